//! Whether this process can serve, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

/// What a check says before anybody has looked.
const NOT_LOOKED: &str = "it has not been looked at yet";

/// Named checks, all of which must hold for the process to be ready.
///
/// Names and reasons are shown to whoever asks: nothing secret may stand in them.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, Check>>>);

/// One check's last result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub ready: bool,
    /// Why it is not ready, or what to know although it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

/// All checks at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub ready: bool,
    pub checks: BTreeMap<&'static str, Check>,
}

impl Readiness {
    /// Begins with these checks, none of which holds until it was looked at.
    pub fn awaiting(names: &[&'static str]) -> Self {
        let readiness = Self::default();
        for name in names {
            readiness.fails(name, NOT_LOOKED);
        }
        readiness
    }

    pub fn holds(&self, name: &'static str) {
        self.put(name, true, None);
    }

    /// It holds, and there is something to know: a new configuration that was refused, say.
    pub fn holds_but(&self, name: &'static str, reason: impl Into<Arc<str>>) {
        self.put(name, true, Some(reason.into()));
    }

    pub fn fails(&self, name: &'static str, reason: impl Into<Arc<str>>) {
        self.put(name, false, Some(reason.into()));
    }

    /// The process is about to end, and is not ready any more.
    pub fn draining(&self) {
        self.fails("draining", "the process is about to end");
    }

    pub fn report(&self) -> Report {
        let checks = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        Report { ready: checks.values().all(|check| check.ready), checks }
    }

    fn put(&self, name: &'static str, ready: bool, reason: Option<Arc<str>>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, Check { ready, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_check_holds() {
        let readiness = Readiness::awaiting(&["store", "configuration"]);
        assert!(!readiness.report().ready);
        readiness.holds("store");
        assert!(!readiness.report().ready);
        readiness.holds_but("configuration", "the new file was refused");
        assert!(readiness.report().ready);
        readiness.draining();
        assert!(!readiness.report().ready);
        assert!(readiness.report().checks["draining"].reason.is_some());
    }
}
