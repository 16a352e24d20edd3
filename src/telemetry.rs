//! What operators see: logs, metrics, and one record for each exchange.

mod change;
mod logs;
mod metrics;
mod record;
mod store;
mod trace;

pub use change::change_logs;
pub use logs::start_logs;
pub use metrics::{
    Ended, Exposition, Metrics, RateLimited, Reason, Reload, RouteFigures, SinkName, StoreOp, WriteBack,
};
pub use record::{Record, Tally};
pub use store::Observed;
pub use trace::{Parent, Place, Spans, Tracer, TracingError, within};
