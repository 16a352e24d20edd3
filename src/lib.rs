//! A reverse-proxy sidecar that injects session context, and writes back what changed.
//!
//! The modules stand in the order in which a request walks through them.

pub mod cli;

pub mod exchange;

pub mod context;
pub mod identity;
pub mod limit;
pub mod respond;
pub mod route;
pub mod session;
pub mod upstream;
pub mod writeback;

pub mod store;

pub mod clock;
pub mod config;
pub mod drain;
pub mod handle;
pub mod headers;
pub mod keyring;
pub mod peer;
pub mod readiness;
pub mod secret;
pub mod structured;

pub mod admin;
pub mod audit;
pub mod telemetry;
