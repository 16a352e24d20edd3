//! Limits that sidecars share.

use redis::Value;

use super::Core;
use super::script::Call;
use crate::quota::Quota;
use crate::store::{StoreError, Taken};

impl Core {
    pub(super) fn taking(&self, key: &str, quota: Quota) -> Call {
        let period = quota.period.as_nanos() as f64 / 1e3;
        self.scripts.take.call(&[&self.keys.limit(key)], &[&period.to_string(), &quota.burst.to_string()])
    }

    /// Asked on the link of writes: on the other, the server would tell of every key that this touches.
    ///
    /// Where an answer is lost one may be taken twice, which is the safe side of a limit.
    pub(super) async fn take(&self, call: &Call) -> Result<Taken, StoreError> {
        match self.writes.call(call, self.deadline()).await?.0 {
            Value::Int(0) => Ok(Taken::One),
            Value::Int(micros) => Ok(Taken::NoneFor(std::time::Duration::from_micros(micros.unsigned_abs()))),
            _ => Err(StoreError::Unavailable("the server's count cannot be read".into())),
        }
    }
}
