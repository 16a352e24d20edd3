//! The tasks that keep the links open.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Core;
use super::dial::{Ear, NoLine, Told, hello, is_primary};
use super::link::{Line, Link, PROVEN_FOR};
use super::node::Node;
use crate::config::ServerAddress;
use crate::handle;
use crate::store::StoreError;

/// How often the server has to answer where it is asked nothing else, and how long it may take to.
const BEAT: Duration = Duration::from_millis(400);
const BEAT_PATIENCE: Duration = Duration::from_millis(500);

/// The longest pause before a line is dialled that held well, before one that did not, and ever: of many sidecars
/// that lose the same server, no two come back at the same moment.
const PAUSES: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(50), Duration::from_millis(400)];

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Reads,
    Writes,
    Replicas,
    Feed,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Replicas => "replicas",
            Self::Feed => "feed",
        }
    }
}

impl Core {
    /// Dials a link of a node, tends each line until it breaks, and begins again, for ever.
    pub(super) async fn keep_node(self: Arc<Self>, role: Role, node: Arc<Node>) {
        let is_told = self.tracking && matches!(role, Role::Reads | Role::Writes);
        let ear = is_told.then(|| ear(&self, role));
        let mut failures = 0;
        loop {
            let link = node.link(role);
            let keeping = Keeping { role, link, server: &node.address };
            failures = match self.dialer.dial(&node.address, role.name(), self.next_number(), ear.clone()).await {
                Ok(line) => {
                    let beating = async |line: &Line| {
                        beat(link, line).await;
                        None
                    };
                    keeping.hold(line, failures, beating).await
                }
                Err(error) => keeping.tell(error, failures),
            };
            // Whoever breaks off may be the primary no more.
            self.servers.doubt(None);
            sleep(pause(failures)).await;
        }
    }

    /// The same for the feed, wherever it is.
    pub(super) async fn keep_feed(self: Arc<Self>) {
        let (mut failures, mut via) = (0, None);
        loop {
            let server = match (via.take(), self.feed_node()) {
                (Some(elsewhere), _) => Ok((elsewhere, true)),
                (None, Ok(node)) => Ok((node.address.clone(), false)),
                (None, Err(error)) => Err(error),
            };
            let (address, in_passing) = match server {
                Ok(server) => server,
                Err(error) => {
                    self.feed.fail(match error {
                        StoreError::Unavailable(reason) => reason,
                        other => other.to_string(),
                    });
                    self.servers.look_again(None, Instant::now() + BEAT).await;
                    continue;
                }
            };
            let keeping = Keeping { role: Role::Feed, link: &self.feed, server: &address };
            failures = match self.dialer.dial(&address, Role::Feed.name(), self.next_number(), None).await {
                Ok(line) => {
                    let following = async |line: &Line| {
                        let parting = self.follow(line, &address, in_passing).await;
                        via = parting.elsewhere;
                        parting.reason
                    };
                    keeping.hold(line, failures, following).await
                }
                Err(error) => keeping.tell(error, failures),
            };
            if via.is_none() {
                self.servers.doubt(None);
                sleep(pause(failures)).await;
            }
        }
    }
}

/// One link to one server.
struct Keeping<'a> {
    role: Role,
    link: &'a Link,
    server: &'a ServerAddress,
}

impl Keeping<'_> {
    /// Tends a line for as long as it holds; a server that hangs up at once, or says why it does nothing, is dialled
    /// after longer and longer pauses, and complained of once.
    async fn hold(&self, line: Line, failures: u32, tend: impl AsyncFnOnce(&Line) -> Option<String>) -> u32 {
        let (line, since) = (Arc::new(line), Instant::now());
        let (link, server) = (self.role.name(), self.server);
        tracing::info!(target: "cloakroom::store", link, %server, "connected");
        if let Some(word) = line.untold.as_deref().filter(|_| failures == 0 && self.role == Role::Reads) {
            tracing::warn!(
                target: "cloakroom::store", %server, word,
                "the server refuses CLIENT TRACKING: sessions are read anew every second",
            );
        }
        self.link.open(&line);
        let reason = tokio::select! {
            reason = tend(&line) => {
                line.break_off();
                reason
            }
            () = line.broken() => None,
        };
        if failures == 0 {
            tracing::warn!(target: "cloakroom::store", link, %server, reason, "the connection is broken");
        }
        match reason {
            Some(reason) => self.link.fail(reason),
            None => self.link.redial(),
        }
        if since.elapsed() < PROVEN_FOR { failures + 1 } else { 0 }
    }

    fn tell(&self, error: NoLine, failures: u32) -> u32 {
        let reason = error.reason();
        if failures == 0 {
            tracing::warn!(
                target: "cloakroom::store", link = self.role.name(), server = %self.server, reason,
                "the server cannot be reached",
            );
        }
        self.link.fail(reason);
        failures + 1
    }
}

/// Takes out of the cache what the server says on a link has changed.
fn ear(core: &Arc<Core>, role: Role) -> Ear {
    let core = Arc::downgrade(core);
    Arc::new(move |told| {
        let Some(core) = core.upgrade() else { return };
        match told {
            Told::Changed(keys) => {
                keys.iter()
                    .filter_map(|key| core.keys.handle_in(key))
                    .for_each(|handle| core.cache.changed(handle, role));
            }
            Told::ChangedAll => core.cache.clear(),
            Told::News => {}
        }
    })
}

/// Has the server answer again and again, until it does not, or is the primary no more.
async fn beat(link: &Link, line: &Line) {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let asked_at = Instant::now();
        match line.ask(&hello(), asked_at + BEAT_PATIENCE).await {
            Ok(answer) if is_primary(&answer) => link.prove(line, asked_at),
            _ => return,
        }
    }
}

/// Longer with each failure, and never the same for two sidecars.
fn pause(failures: u32) -> Duration {
    let [fresh, shortest, longest] = PAUSES;
    let [random] = handle::random::<1>().unwrap_or([0]);
    match failures {
        0 => fresh * u32::from(random) / 256,
        _ => {
            let full = shortest.saturating_mul(1 << (failures - 1).min(8)).min(longest);
            full / 2 + full * u32::from(random) / 512
        }
    }
}
