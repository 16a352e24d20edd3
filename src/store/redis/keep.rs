//! The tasks that keep the links open.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Core;
use super::dial::{Dialer, Ear, NoLine, Told};
use super::link::{Line, Link, PROVEN_FOR};
use crate::handle;

/// How often the server has to answer where it is asked nothing else, and how long it may take to.
const BEAT: Duration = Duration::from_millis(400);
const BEAT_PATIENCE: Duration = Duration::from_millis(500);

/// The first pause after a failure, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Reads,
    Writes,
    Feed,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Feed => "feed",
        }
    }
}

impl Core {
    fn link(&self, role: Role) -> &Link {
        match role {
            Role::Reads => &self.reads,
            Role::Writes => &self.writes,
            Role::Feed => &self.feed,
        }
    }

    /// Dials, tends each line until it breaks, and begins again, for ever.
    pub(super) async fn keep(self: Arc<Self>, role: Role, dialer: Dialer, mut first: Option<Line>) {
        let ear = (role == Role::Reads && self.tracking).then(|| ear(&self));
        let mut failures = 0;
        for number in 1.. {
            let dialled = match first.take() {
                Some(line) => Ok(line),
                None => dialer.dial(role.name(), number, ear.clone()).await,
            };
            failures = match dialled {
                Ok(line) => self.hold(role, line).await,
                Err(error) => self.tell(role, error, failures),
            };
            if failures > 0 {
                sleep(pause(failures)).await;
            }
        }
    }

    /// Tends a line for as long as it holds; a server that hangs up at once is not dialled without any pause.
    async fn hold(&self, role: Role, line: Line) -> u32 {
        let (link, line, since) = (self.link(role), Arc::new(line), Instant::now());
        tracing::info!(target: "cloakroom::store", link = role.name(), "connected");
        link.open(&line);
        tokio::select! {
            () = self.tend(role, &line) => line.break_off(),
            () = line.broken() => {}
        }
        link.redial();
        tracing::warn!(target: "cloakroom::store", link = role.name(), "the connection is broken");
        u32::from(since.elapsed() < PROVEN_FOR)
    }

    async fn tend(&self, role: Role, line: &Line) {
        match role {
            Role::Reads | Role::Writes => beat(self.link(role), line).await,
            Role::Feed => self.follow(line).await,
        }
    }

    fn tell(&self, role: Role, error: NoLine, failures: u32) -> u32 {
        let reason = error.reason();
        if failures == 0 {
            tracing::warn!(target: "cloakroom::store", link = role.name(), reason, "the server cannot be reached");
        }
        self.link(role).fail(reason);
        failures + 1
    }
}

/// Takes out of the cache what the server says has changed.
fn ear(core: &Arc<Core>) -> Ear {
    let core = Arc::downgrade(core);
    Arc::new(move |told| {
        let Some(core) = core.upgrade() else { return };
        match told {
            Told::Changed(keys) => {
                keys.iter().filter_map(|key| core.keys.handle_in(key)).for_each(|handle| core.cache.forget(handle));
            }
            Told::ChangedAll => core.cache.clear(),
        }
    })
}

/// Has the server answer again and again, until it does not.
async fn beat(link: &Link, line: &Line) {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let asked_at = Instant::now();
        if line.ask(&redis::cmd("PING"), asked_at + BEAT_PATIENCE).await.is_err() {
            return;
        }
        link.prove(line, asked_at);
    }
}

/// Longer with each failure, and never the same for two sidecars.
fn pause(failures: u32) -> Duration {
    let [shortest, longest] = PAUSES;
    let full = shortest.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(longest);
    let [random] = handle::random::<1>().unwrap_or([0]);
    full / 2 + full * u32::from(random) / 512
}
