//! Limits that sidecars share.

use redis::Value;

use super::Core;
use super::link::value;
use crate::quota::Quota;
use crate::store::{StoreError, Taken};

impl Core {
    /// Asked on the link of writes, on which the server tells of each: a few bytes, and nothing of a session.
    ///
    /// Where an answer is lost one may be taken twice, which is the safe side of a limit.
    pub(super) async fn take(&self, key: String, quota: Quota) -> Result<Taken, StoreError> {
        let period = quota.period.as_nanos() as f64 / 1e3;
        let (period, burst) = (period.to_string(), quota.burst.to_string());
        let (keys, arguments) = ([&*key], [&*period, &burst]);
        let answer = self.call(&key, &self.scripts.take.call(&keys, &arguments), self.deadline()).await?;
        match value(&answer.raw)? {
            Value::Int(0) => Ok(Taken::One),
            Value::Int(micros) => Ok(Taken::NoneFor(std::time::Duration::from_micros(micros.unsigned_abs()))),
            _ => Err(StoreError::Unavailable("the server's count cannot be read".into())),
        }
    }
}
