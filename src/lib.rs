//! A reverse-proxy sidecar that injects session context, and writes back what changed.
//!
//! The modules stand in the order in which a request walks through them.

pub mod exchange;

pub mod route;
pub mod identity;
pub mod limit;
pub mod session;
pub mod context;
pub mod upstream;
pub mod writeback;
pub mod respond;

pub mod store;

pub mod config;
pub mod keyring;
pub mod structured;
pub mod headers;
pub mod handle;
pub mod secret;
pub mod peer;
pub mod clock;
pub mod drain;

pub mod telemetry;
pub mod audit;
