//! What is seen from outside: figures, logs, traces, the audit trail.

mod audit;
mod collector;
mod figures;
mod load;
mod readers;
mod redis;
mod sidecar;
mod traces;
