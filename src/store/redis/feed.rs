//! The feed of revocations: added to, read whole, and followed on a connection of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ServerErrorKind, Value};
use tokio::time::Instant;

use super::Core;
use super::dial::{hello, is_primary};
use super::link::{Failure, Line};
use super::node::Node;
use super::slot::Slot;
use crate::clock::Time;
use crate::config::ServerAddress;
use crate::store::{Revocation, Revoked, StoreError};

/// How long the server waits for something to tell; its answer proves that there was nothing before.
const BLOCK: Duration = Duration::from_millis(400);

/// How long an answer may take beyond that.
const PATIENCE: Duration = Duration::from_millis(500);

/// Entries that are read at once.
const PAGE: usize = 1000;

/// Before every entry.
const BEGINNING: &str = "0-0";

/// Why a line is followed no more, where it did not just break.
#[derive(Default)]
pub(super) struct Parting {
    /// Where the feed is going to be.
    pub elsewhere: Option<ServerAddress>,
    pub reason: Option<String>,
}

impl Parting {
    fn because(error: StoreError) -> Self {
        let reason = match error {
            StoreError::Unavailable(reason) => Some(reason),
            _ => None,
        };
        Self { elsewhere: None, reason }
    }
}

/// An entry of the feed: its place, and its fields.
type Item = (String, HashMap<Vec<u8>, Vec<u8>>);

impl Core {
    pub(super) async fn add_to_feed(&self, revocation: &Revocation, deadline: Instant) -> Result<(), StoreError> {
        let unwritable = |_| StoreError::Unavailable("a revocation could not be written as JSON".into());
        let text = serde_json::to_string(revocation).map_err(unwritable)?;
        let (until, now) = (revocation.until.0.to_string(), self.clock.now().0.to_string());
        let key = self.keys.feed();
        let (keys, arguments) = ([&*key], [&*text, &until, &now]);
        let answer = self.call(&key, &self.scripts.revoke.call(&keys, &arguments), deadline).await?;
        self.replicated(&answer.node, key.clone(), deadline).await;
        Ok(())
    }

    /// The whole feed, oldest first, without what has ended.
    pub(super) async fn whole_feed(&self, now: Time) -> Result<Vec<Revocation>, StoreError> {
        let mut revocations = Vec::new();
        let mut last = BEGINNING.to_owned();
        loop {
            let items = items(self.ask(&self.keys.feed(), &self.next(&last, None), self.deadline()).await?)?;
            let more = items.len() == PAGE;
            for (id, fields) in items {
                revocations.extend(read(&id, &fields).filter(|revocation| now < revocation.until));
                last = id;
            }
            if !more {
                return Ok(revocations);
            }
        }
    }

    /// The primary that has the feed.
    pub(super) fn feed_node(&self) -> Result<Arc<Node>, StoreError> {
        self.servers.find(|| Slot::of(&self.keys.feed()))
    }

    /// Reads the feed from its beginning, and then what is added, for as long as the line holds.
    ///
    /// From the beginning each time: what was missed while there was no line is not known to be all that is new.
    pub(super) async fn follow(&self, line: &Line, server: &ServerAddress, in_passing: bool) -> Parting {
        let (hello, asking) = (hello(), redis::cmd("ASKING"));
        let mut last = BEGINNING.to_owned();
        loop {
            let asked_at = Instant::now();
            let next = self.next(&last, Some(BLOCK));
            let questions: &[&Cmd] = if in_passing { &[&hello, &asking, &next] } else { &[&hello, &next] };
            let mut answers = match line.ask_all(questions, asked_at + BLOCK + PATIENCE).await {
                Ok(answers) => answers,
                Err(failure) => return self.turn_away(failure, server),
            };
            let news = answers.pop().unwrap_or(Value::Nil);
            if !answers.first().is_some_and(is_primary) {
                return Parting::default();
            }
            let items = match items(news) {
                Ok(items) => items,
                Err(error) => return Parting::because(error),
            };
            let more = items.len() == PAGE;
            for (id, fields) in items {
                read(&id, &fields).iter().for_each(|revocation| self.hear_of(revocation));
                last = id;
            }
            if !more {
                self.feed.prove(line, asked_at);
            }
        }
    }

    fn turn_away(&self, failure: Failure, server: &ServerAddress) -> Parting {
        match failure.said() {
            Some(ServerErrorKind::Ask) => return Parting { elsewhere: failure.elsewhere(server), reason: None },
            Some(ServerErrorKind::Moved) => self.servers.doubt(failure.elsewhere(server)),
            _ => return Parting::because(failure.into()),
        }
        Parting::default()
    }

    fn next(&self, last: &str, block: Option<Duration>) -> Cmd {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(PAGE);
        if let Some(block) = block {
            command.arg("BLOCK").arg(block.as_millis() as u64);
        }
        command.arg("STREAMS").arg(self.keys.feed()).arg(last);
        command
    }

    fn hear_of(&self, revocation: &Revocation) {
        if self.clock.now() >= revocation.until {
            return;
        }
        if let Revoked::Session { handle, .. } = revocation.of {
            self.cache.forget(handle);
        }
        let listener = self.listener.load_full();
        listener.iter().for_each(|listener| listener.0(revocation));
    }
}

/// Nothing to read is told as nil.
fn items(answer: Value) -> Result<Vec<Item>, StoreError> {
    let unreadable = |_| StoreError::Unavailable("the feed of revocations cannot be read".into());
    let streams: Option<HashMap<String, Vec<Item>>> = redis::from_redis_value(answer).map_err(unreadable)?;
    Ok(streams.unwrap_or_default().into_values().flatten().collect())
}

/// What cannot be read is passed over, for a newer sidecar may have written it; it is told all the same.
fn read(id: &str, fields: &HashMap<Vec<u8>, Vec<u8>>) -> Option<Revocation> {
    let revocation = fields.get(&b"revocation"[..]).and_then(|text| serde_json::from_slice(text).ok());
    if revocation.is_none() {
        tracing::error!(target: "cloakroom::store", entry = id, "an entry of the feed of revocations cannot be read");
    }
    revocation
}
