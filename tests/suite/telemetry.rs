//! What is seen from outside: figures, logs, traces, the audit trail.

mod audit;
mod collector;
mod figures;
mod leaks;
mod load;
mod pictures;
mod readers;
mod redis;
pub mod sidecar;
mod traces;
