//! A reverse-proxy sidecar that injects session context, and writes back what changed.
//!
//! A request walks through the rooms below in their order, once; no room calls another, the corridor does
//! ([`exchange`]):
//!
//! ```text
//! accept -> strip -> route -> limit -> identify -> load -> admit -> inject -> forward
//!                                                                                |
//!           respond <------------------ touch <- commit with audit <- check <- collect
//! ```
//!
//! Imports point one way: a room may know the rooms before it and the ground floor, never a later one.

pub mod cli;
pub mod app;

pub mod listener;
pub mod exchange;

pub mod route;
pub mod identity;
pub mod session;
pub mod limit;
pub mod context;
pub mod upstream;
pub mod writeback;
pub mod respond;

pub mod store;

// The ground floor: imported by all, imports nothing above.
pub mod config;
pub mod keyring;
pub mod json;
pub mod structured;
pub mod headers;
pub mod handle;
pub mod secret;
pub mod tls;
pub mod peer;
pub mod quota;
pub mod clock;
pub mod in_force;
pub mod drain;
pub mod readiness;
pub mod together;
pub mod gather;
pub mod unbroken;

// Beside the corridor.
pub mod telemetry;
pub mod audit;
pub mod admin;
pub mod injector;
