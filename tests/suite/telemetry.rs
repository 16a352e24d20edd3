//! What is seen from outside: figures, logs, traces, the audit trail.

mod collector;
mod figures;
mod load;
mod redis;
mod sidecar;
mod traces;
