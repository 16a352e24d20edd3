//! Reading sessions, their trails, and the index of users.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use redis::Value;
use tokio::time::{Instant, timeout_at};

use super::cache::Kept;
use super::link::Failure;
use super::{Core, layout};
use crate::handle::{Handle, UserKey};
use crate::store::{Entry, StoreError, Trail};

/// Sessions of a user that are looked at in one go.
const LISTED: usize = 128;

impl Core {
    pub(super) async fn entry(&self, handle: Handle) -> Result<Option<Arc<Entry>>, StoreError> {
        let is_away = self.reads.open_line() == 0 || self.feed.open_line() == 0;
        if is_away && let Some(stale) = self.stale(handle) {
            return Ok(Some(stale));
        }
        match self.current(handle).await {
            Err(error @ (StoreError::Timeout | StoreError::Unavailable(_))) => {
                self.stale(handle).map(Some).ok_or(error)
            }
            answer => answer,
        }
    }

    /// What has to do while the server is away: the one exception to every proof.
    fn stale(&self, handle: Handle) -> Option<Arc<Entry>> {
        self.cache.stale(handle, &self.reads, self.stale_for?)
    }

    async fn current(&self, handle: Handle) -> Result<Option<Arc<Entry>>, StoreError> {
        let deadline = self.deadline();
        // Without the feed, a session whose user was revoked may look alive.
        self.feed.proven(deadline).await?;
        let found = self.cache.find(handle, &self.reads, || self.read(handle, deadline));
        timeout_at(deadline, found).await.unwrap_or(Err(StoreError::Timeout))
    }

    /// Asks on one line, and where that breaks, once more on the next.
    async fn read(&self, handle: Handle, deadline: Instant) -> Result<Option<Kept>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.session(handle));
        let mut again = true;
        loop {
            let line = self.reads.line(deadline).await?;
            let asked_at = Instant::now();
            match line.ask(&command, deadline).await {
                Ok(hash) => {
                    let entry = decoded(handle, hash)?;
                    return Ok(entry.map(|entry| Kept { entry: Arc::new(entry), line: line.number, asked_at }));
                }
                Err(Failure::Unanswered) if again && Instant::now() < deadline => again = false,
                Err(failure) => return Err(of_session(handle, failure)),
            }
        }
    }

    pub(super) async fn trail(&self, handle: Handle, before: Option<u64>, limit: usize) -> Result<Trail, StoreError> {
        // Positions are the first part of an entry's id, so that a bare number bounds them.
        let Some(newest) = before.map_or(Some("+".to_owned()), |before| Some(before.checked_sub(1)?.to_string()))
        else {
            return Ok(Trail::default());
        };
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys.trail(handle)).arg(newest).arg("-");
        command.arg("COUNT").arg(limit.saturating_add(1).min(i64::MAX as usize));
        let answer = self.writes.ask(&command, self.deadline()).await.map_err(|failure| of_session(handle, failure))?;
        page(answer, limit).ok_or(StoreError::Damaged(handle))
    }

    /// The index lists; what it lists wrongly is taken out of it.
    pub(super) async fn sessions_of(&self, user: UserKey) -> Result<Vec<Handle>, StoreError> {
        let key = self.keys.user(user);
        let mut command = redis::cmd("ZRANGE");
        command.arg(&key).arg(0).arg(-1);
        let answer = self.writes.ask(&command, self.deadline()).await?;
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
            self.writes.ask(&command, self.deadline()).await?;
        }
        listed.sort_unstable();
        Ok(listed.into_iter().map(|(_, handle)| handle).collect())
    }

    /// When that session was created, if it is one of the user's.
    async fn created_at(&self, member: &str, user: UserKey) -> Result<Option<u64>, StoreError> {
        let Some(handle) = Handle::parse(member) else { return Ok(None) };
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.session(handle)).arg("@user").arg("@created_at");
        let answer = self.writes.ask(&command, self.deadline()).await?;
        let (owner, at): (Option<String>, Option<u64>) = redis::from_redis_value(answer).unwrap_or_default();
        Ok(at.filter(|_| owner.as_deref().and_then(UserKey::parse) == Some(user)))
    }
}

fn decoded(handle: Handle, answer: Value) -> Result<Option<Entry>, StoreError> {
    let hash: HashMap<String, String> = redis::from_redis_value(answer).map_err(|_| damaged(handle))?;
    if hash.is_empty() {
        return Ok(None);
    }
    layout::decode(hash).map(Some).ok_or_else(|| damaged(handle))
}

/// Tells of a key that holds something else; what stands there is left as it is.
pub(super) fn damaged(handle: Handle) -> StoreError {
    tracing::error!(target: "cloakroom::store", session = %handle, "what stands under the session's key is no session");
    StoreError::Damaged(handle)
}

pub(super) fn of_session(handle: Handle, failure: Failure) -> StoreError {
    if failure.is_wrong_type() { damaged(handle) } else { failure.into() }
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
