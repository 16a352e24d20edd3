//! Reading sessions, their trails, and the index of users.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use redis::Value;
use tokio::time::{Instant, timeout_at};

use super::ask::Question;
use super::cache::Kept;
use super::keep::Role;
use super::link::Failure;
use super::node::Node;
use super::slot::Slot;
use super::{Core, frame, layout};
use crate::handle::{Handle, UserKey};
use crate::store::{Entry, StoreError, Trail};

/// Sessions of a user that are looked at in one go.
const LISTED: usize = 128;

impl Core {
    pub(super) async fn entry(&self, handle: Handle) -> Result<Option<Arc<Entry>>, StoreError> {
        let node = self.servers.find(|| Slot::tagged(handle))?;
        let is_away = node.reads.open_line() == 0 || self.feed.open_line() == 0;
        if is_away && self.last_known(handle).is_some() {
            // Whoever can do with that is not kept waiting.
            return Err(StoreError::Unavailable("the server is away".into()));
        }
        self.current(handle, &node).await
    }

    /// What has to do while the server is away: the one exception to every proof.
    pub(super) fn last_known(&self, handle: Handle) -> Option<Arc<Entry>> {
        let most = self.stale_for?;
        let node = self.servers.find(|| Slot::tagged(handle));
        self.cache.stale(handle, node.as_deref().ok(), most)
    }

    async fn current(&self, handle: Handle, node: &Node) -> Result<Option<Arc<Entry>>, StoreError> {
        let deadline = self.deadline();
        // Without the feed, a session whose user was revoked may look alive.
        self.feed.proven(deadline).await?;
        let found = self.cache.find(handle, node, || self.read(handle, deadline));
        timeout_at(deadline, found).await.unwrap_or(Err(StoreError::Timeout))
    }

    /// Past the cache, which loses nothing by it: whoever asks may be guessing, and what is kept there is others'.
    pub(super) async fn read_anew(&self, handle: Handle) -> Result<Option<Arc<Entry>>, StoreError> {
        let deadline = self.deadline();
        self.feed.proven(deadline).await?;
        Ok(self.read(handle, deadline).await?.map(|kept| kept.entry))
    }

    async fn read(&self, handle: Handle, deadline: Instant) -> Result<Option<Kept>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.session(handle));
        let question = Question::Command(&command);
        let answer = self.answer(Role::Reads, Slot::tagged(handle), question, deadline).await;
        let answer = answer.map_err(|failure| self.of_session(handle, failure))?;
        let told = self.tracking && answer.line.untold.is_none() && !answer.in_passing;
        let entry = self.decoded(handle, answer.raw)?;
        let (role, line, asked_at) = (Role::Reads, answer.line.number, answer.asked_at);
        Ok(entry.map(|entry| Kept { entry, role, line, told, asked_at }))
    }

    pub(super) async fn trail(&self, handle: Handle, before: Option<u64>, limit: usize) -> Result<Trail, StoreError> {
        // Positions are the first part of an entry's id, so that a bare number bounds them.
        let Some(newest) = before.map_or(Some("+".to_owned()), |before| Some(before.checked_sub(1)?.to_string()))
        else {
            return Ok(Trail::default());
        };
        let mut command = redis::cmd("XREVRANGE");
        let key = self.keys.trail(handle);
        command.arg(&key).arg(newest).arg("-");
        command.arg("COUNT").arg(limit.saturating_add(1).min(i64::MAX as usize));
        let answer = self.ask(&key, &command, self.deadline()).await;
        let answer = answer.map_err(|failure| self.of_session(handle, failure))?;
        page(answer, limit).ok_or_else(|| self.damaged(handle))
    }

    /// The index lists; what it lists wrongly is taken out of it.
    pub(super) async fn sessions_of(&self, user: UserKey) -> Result<Vec<Handle>, StoreError> {
        let key = self.keys.user(user);
        let mut command = redis::cmd("ZRANGE");
        command.arg(&key).arg(0).arg(-1);
        let answer = self.ask(&key, &command, self.deadline()).await?;
        let members: Vec<String> = redis::from_redis_value(answer).unwrap_or_default();
        let (mut listed, mut strays) = (Vec::new(), Vec::new());
        for some in members.chunks(LISTED) {
            let looked = join_all(some.iter().map(|member| self.created_at(member, user))).await;
            for (member, created_at) in some.iter().zip(looked) {
                match (Handle::parse(member), created_at?) {
                    (Some(handle), Some(at)) => listed.push((at, handle)),
                    _ => strays.push(member),
                }
            }
        }
        if !strays.is_empty() {
            let mut command = redis::cmd("ZREM");
            command.arg(&key).arg(&strays);
            self.ask(&key, &command, self.deadline()).await?;
        }
        listed.sort_unstable();
        Ok(listed.into_iter().map(|(_, handle)| handle).collect())
    }

    /// When that session was created, if it is one of the user's.
    async fn created_at(&self, member: &str, user: UserKey) -> Result<Option<u64>, StoreError> {
        let Some(handle) = Handle::parse(member) else { return Ok(None) };
        let mut command = redis::cmd("HMGET");
        let key = self.keys.session(handle);
        command.arg(&key).arg("@user").arg("@created_at");
        let answer = self.ask(&key, &command, self.deadline()).await?;
        let (owner, at): (Option<String>, Option<u64>) = redis::from_redis_value(answer).unwrap_or_default();
        Ok(at.filter(|_| owner.as_deref().and_then(UserKey::parse) == Some(user)))
    }

    /// What an answer says of a session. One that says what the one before said, to the byte, is not read anew.
    fn decoded(&self, handle: Handle, answer: Bytes) -> Result<Option<Arc<Entry>>, StoreError> {
        if let Some((before, entry)) = self.said.as_ref().and_then(|said| said.get(&handle))
            && before == answer
        {
            return Ok(Some(entry));
        }
        let texts = frame::texts(&answer).ok_or_else(|| self.damaged(handle))?;
        if texts.is_empty() {
            return Ok(None);
        }
        let entry = Arc::new(layout::decode(&texts).ok_or_else(|| self.damaged(handle))?);
        if let Some(said) = &self.said {
            said.insert(handle, (answer, entry.clone()));
        }
        Ok(Some(entry))
    }

    /// Tells of a key that holds something else; what stands there is left as it is.
    pub(super) fn damaged(&self, handle: Handle) -> StoreError {
        self.counts.damaged.inc();
        tracing::error!(
            target: "cloakroom::store", session = %handle, "what stands under the session's key is no session",
        );
        StoreError::Damaged(handle)
    }

    pub(super) fn of_session(&self, handle: Handle, failure: Failure) -> StoreError {
        if failure.is_wrong_type() { self.damaged(handle) } else { failure.into() }
    }
}

fn page(answer: Value, limit: usize) -> Option<Trail> {
    let entries: Vec<(String, HashMap<String, String>)> = redis::from_redis_value(answer).ok()?;
    let more = entries.len() > limit;
    let mut trail = Trail::default();
    for (id, mut fields) in entries.into_iter().take(limit) {
        trail.records.push(fields.remove("record")?);
        trail.next = Some(id.split('-').next()?.parse().ok()?);
    }
    trail.next = trail.next.filter(|_| more);
    Some(trail)
}
