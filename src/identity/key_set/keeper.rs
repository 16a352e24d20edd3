//! The one task that keeps all key sets fresh.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::clock::{Clock, Time};
use crate::config::{self, Problems};
use crate::drain::Drain;
use crate::readiness::Readiness;

use super::KeySet;
use super::source::Source;

/// How often it is looked whether a fetch is due.
const TICK: Duration = Duration::from_millis(250);
/// As it stands in `/readyz`.
const CHECK: &str = "jwks";

/// The key sets in use. One that two configurations have in common keeps its keys from one to the other.
#[derive(Clone, Default)]
pub struct KeySets(Arc<Kept>);

impl std::fmt::Debug for KeySets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySets")
    }
}

#[derive(Default)]
pub struct Kept {
    /// What it goes by once it is kept.
    clock: OnceLock<Clock>,
    sets: Mutex<Vec<Weak<KeySet>>>,
    poke: Notify,
}

impl Kept {
    pub fn now(&self) -> Time {
        self.clock.get().map_or_else(|| Clock::system().now(), Clock::now)
    }

    /// Has it looked at once whether a fetch is due.
    pub fn poke(&self) {
        self.poke.notify_one();
    }
}

impl KeySets {
    /// The key set of an issuer: the one that is in use if it has the same source, else a new one.
    pub fn of(
        &self,
        issuer: &str,
        raw: &config::KeySource,
        path: &str,
        problems: &mut Problems,
    ) -> Option<Arc<KeySet>> {
        let same = |set: &Arc<KeySet>| *set.issuer == *issuer && set.raw == *raw;
        if let Some(set) = self.living().into_iter().find(same) {
            return Some(set);
        }
        let source = Source::compile(issuer, raw, path, problems)?;
        let set = Arc::new(KeySet::new(issuer, raw, source, self.0.clone()));
        self.sets().push(Arc::downgrade(&set));
        self.0.poke();
        Some(set)
    }

    /// Fetches what is due until the end. Fetches run beside one another: a server that hangs holds up no other's.
    ///
    /// What is missing is told before this returns, so that nobody is called ready without keys.
    pub fn keep(self, clock: Clock, readiness: Readiness, drain: Drain) -> impl Future<Output = ()> + Send {
        let _ = self.0.clock.set(clock);
        let mut told = report(&self.living(), &readiness, false);
        async move {
            let mut ticks = tokio::time::interval(TICK);
            let mut fetches = JoinSet::new();
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = self.0.poke.notified() => {}
                    Some(_) = fetches.join_next() => {}
                    () = drain.over() => break,
                }
                let sets = self.living();
                for set in sets.iter().filter(|set| set.begin()) {
                    let set = set.clone();
                    fetches.spawn(async move { set.refresh().await });
                }
                told = report(&sets, &readiness, told);
            }
            fetches.shutdown().await;
        }
    }

    fn living(&self) -> Vec<Arc<KeySet>> {
        let mut sets = self.sets();
        sets.retain(|set| set.strong_count() > 0);
        sets.iter().filter_map(Weak::upgrade).collect()
    }

    fn sets(&self) -> std::sync::MutexGuard<'_, Vec<Weak<KeySet>>> {
        self.0.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whether all keys are loaded, where any are needed or were; whether it has ever said so.
fn report(sets: &[Arc<KeySet>], readiness: &Readiness, told: bool) -> bool {
    match sets.iter().find(|set| !set.is_loaded()) {
        Some(missing) => readiness.fails(CHECK, format!("the keys of {} are not loaded", missing.issuer)),
        None if sets.is_empty() && !told => return false,
        None => readiness.holds(CHECK),
    }
    true
}
