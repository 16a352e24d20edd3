//! Waiting until replicas have what was written.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Core;
use super::link::Link;
use super::node::Node;
use crate::config;

/// Writers that may wait at one time; a server that is so far behind is waited for by no more.
const WAITING: usize = 4096;

/// How long an answer may take beyond what the server was asked to wait.
const PATIENCE: Duration = Duration::from_millis(500);

/// Between two complaints.
const QUIET: Duration = Duration::from_secs(1);

/// How many copies are wanted, and how long they are waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub copies: u32,
    pub timeout: Duration,
}

impl Wanted {
    pub fn new(config: &config::Durability) -> Option<Self> {
        (config.wait_replicas > 0).then_some(Self { copies: config.wait_replicas, timeout: config.timeout.0 })
    }
}

/// Those who wait for the replicas of one primary.
///
/// `WAIT` holds up its connection, and waits for what that connection wrote. So it has one of its own, on which a
/// key's time to live is set to what it is: that goes to the replicas after all that was written before. Many
/// writers wait together.
pub(super) struct Replicas {
    pub link: Link,
    queue: mpsc::Sender<Waiting>,
    waiting: Mutex<Option<mpsc::Receiver<Waiting>>>,
}

struct Waiting {
    /// What was written.
    key: String,
    enough: oneshot::Sender<bool>,
}

impl Replicas {
    pub fn new() -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        Self { link: Link::new(), queue, waiting: Mutex::new(Some(waiting)) }
    }

    fn queue(&self, key: String) -> Option<oneshot::Receiver<bool>> {
        let (enough, told) = oneshot::channel();
        self.queue.try_send(Waiting { key, enough }).ok()?;
        Some(told)
    }
}

impl Core {
    /// Waits until enough replicas have what was just written under a key, or for as long as that may take.
    ///
    /// What was written stands either way.
    pub(super) async fn replicated(&self, node: &Node, key: String, deadline: Instant) {
        let (Some(wanted), Some(replicas)) = (self.wanted, &node.replicas) else { return };
        let deadline = deadline.min(Instant::now() + wanted.timeout);
        let enough = match replicas.queue(key) {
            Some(told) => matches!(timeout_at(deadline, told).await, Ok(Ok(true))),
            None => false,
        };
        if !enough {
            self.counts.unreplicated.inc();
            self.complain_of_replicas(wanted);
        }
    }

    fn complain_of_replicas(&self, wanted: Wanted) {
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= QUIET) {
            *last = Some(Instant::now());
            let (wanted, missed) = (wanted.copies, self.counts.unreplicated.get());
            tracing::warn!(
                target: "cloakroom::store", wanted, missed,
                "too few replicas have what was written; it stands, and a failover may lose it",
            );
        }
    }

    /// Has the server wait for all who are waiting, again and again.
    pub(super) async fn await_replicas(self: Arc<Self>, node: Arc<Node>) {
        let (Some(wanted), Some(replicas)) = (self.wanted, &node.replicas) else { return };
        let taken = replicas.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = taken else { return };
        let mut all = Vec::new();
        while waiting.recv_many(&mut all, WAITING).await > 0 {
            let copies = match all.last() {
                Some(last) => self.copies(replicas, &last.key, wanted).await,
                None => None,
            };
            let enough = copies.is_some_and(|copies| copies >= i64::from(wanted.copies));
            for waiting in all.drain(..) {
                // Who has left needs no answer.
                let _ = waiting.enough.send(enough);
            }
        }
    }

    async fn copies(&self, replicas: &Replicas, key: &str, wanted: Wanted) -> Option<i64> {
        let deadline = Instant::now() + wanted.timeout + PATIENCE;
        let line = replicas.link.line(deadline).await.ok()?;
        let mark = self.scripts.mark.call(&[key], &[]).command(true, false);
        let mut wait = redis::cmd("WAIT");
        wait.arg(wanted.copies).arg(wanted.timeout.as_millis().max(1) as u64);
        match line.ask_all(&[&mark, &wait], deadline).await.ok()?.pop()? {
            Value::Int(copies) => Some(copies),
            _ => None,
        }
    }
}
