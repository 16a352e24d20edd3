//! Commits, touches, and what follows a commit in other slots.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, interval};

use super::link::{Failure, value};
use super::written::Written;
use super::{Core, frame, script};
use crate::clock::Time;
use crate::handle::{Birth, Handle, UserKey};
use crate::store::{Commit, Conflict, Effect, Outcome, Revocation, Revoked, StoreError};

/// How long a touch stands for others: less than any touch interval.
const TOUCH_STANDS: Duration = Duration::from_secs(1);

/// Revocations that wait to be told; a server that takes commits and no revocations for so long is beyond help.
const OWED: usize = 4096;

/// How often it is tried to tell them.
const PAY: Duration = Duration::from_millis(400);

impl Core {
    pub(super) async fn commit(self: Arc<Self>, commit: Commit, again: bool) -> Result<Outcome, StoreError> {
        let (handle, deadline, commit) = (commit.handle, self.deadline(), Arc::new(commit));
        let asked = script::asked(&commit, self.bounds);
        let [session, trail, past] = self.keys.all(handle);
        let (keys, arguments) = ([&*session, &trail], [&*asked, &past, &commit.record.0]);
        let call = self.scripts.commit.call(&keys, &arguments);
        let written = Written::new(&self, &commit, &session);
        let answer = self.call_commit(&call, &written, again, deadline).await;
        // Nobody has put there what it left.
        if answer.as_ref().is_ok_and(|answer| answer.in_passing) {
            self.cache.forget(handle);
        }
        self.touched.remove(&handle);
        let answer = answer.map_err(|failure| match failure {
            Failure::Unanswered => StoreError::Unknown,
            failure => self.of_session(handle, failure),
        })?;
        let words = frame::texts(&answer.raw).ok_or(StoreError::Unknown)?;
        let settled = self.settle(&commit, &words, answer.was_lost, deadline).await;
        if matches!(words.first(), Some(&("done" | "again" | "replaced"))) {
            self.replicated(&answer.node, trail, deadline).await;
        }
        settled
    }

    /// What was lost was never told, and is told whole now; what a caller asks for again was told before.
    async fn settle(
        &self,
        commit: &Commit,
        words: &[&str],
        was_lost: bool,
        deadline: Instant,
    ) -> Result<Outcome, StoreError> {
        match *words {
            [done @ ("done" | "again"), revision, seq, birth, was, is, ends_at, ..] => {
                let (revision, seq) = (number(revision)?, number(seq)?);
                self.follow_up(commit, (birth, was, is, ends_at), deadline).await?;
                let record = (done == "done" || was_lost).then(|| commit.record.complete(seq, revision));
                Ok(Outcome::Done { revision, seq, record })
            }
            ["replaced", seq, was_revision, was_seq, was_birth, was, is, ends_at] => {
                let (seq, was_revision, was_seq) = (number(seq)?, number(was_revision)?, number(was_seq)?);
                self.follow_up(commit, (was_birth, was, is, ends_at), deadline).await?;
                let ended = match &commit.effect {
                    Effect::Replace(asked) => Some(asked.ended.complete(was_seq, was_revision)),
                    _ => None,
                };
                Ok(Outcome::Replaced { ended, record: commit.record.complete(seq, 1) })
            }
            ["unchanged", revision] => Ok(Outcome::Unchanged { revision: number(revision)? }),
            ["conflict", "birth"] => Ok(Outcome::Conflict(Conflict::Birth)),
            ["conflict", "revision"] => Ok(Outcome::Conflict(Conflict::Revision)),
            ["conflict", "field", path] => Ok(Outcome::Conflict(Conflict::Field(path.into()))),
            ["not-found"] => Ok(Outcome::NotFound),
            ["revoked"] => Ok(Outcome::Revoked),
            ["exists"] => Ok(Outcome::Exists),
            ["secret-changed"] => Ok(Outcome::SecretChanged),
            ["too-large"] => Ok(Outcome::TooLarge),
            ["damaged"] => Err(self.damaged(commit.handle)),
            _ => Err(StoreError::Unknown),
        }
    }

    /// What cannot be in the commit's own step, since it is in another slot: the feed and the index of users.
    async fn follow_up(
        &self,
        commit: &Commit,
        (birth, was, is, ends_at): (&str, &str, &str, &str),
        deadline: Instant,
    ) -> Result<(), StoreError> {
        if let Some((birth, until)) = over(&commit.effect, birth, ends_at) {
            let of = Revoked::Session { handle: commit.handle, birth };
            self.announce(Revocation { of, until }, deadline).await?;
        }
        let moves = was != is || matches!(commit.effect, Effect::Create(_) | Effect::Replace(_));
        if moves && let Err(error) = self.list(commit, (was, is, ends_at), deadline).await {
            // The index only lists, and is put right when it is used.
            tracing::warn!(target: "cloakroom::store", session = %commit.handle, %error, "the index of users lags");
        }
        Ok(())
    }

    /// Tells the other sidecars of a tombstone that stands already; if not now, then as soon as it can be told.
    async fn announce(&self, revocation: Revocation, deadline: Instant) -> Result<(), StoreError> {
        let told = self.add_to_feed(&revocation, deadline).await;
        if told.is_err() {
            let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
            if owed.len() < OWED {
                owed.push(revocation);
            }
        }
        // The session is revoked; only not everywhere yet.
        told.map_err(|_| StoreError::Unknown)
    }

    /// Tells what could not be told, for as long as the store is open.
    pub(super) async fn pay(&self) {
        let mut beats = interval(PAY);
        loop {
            beats.tick().await;
            let next = self.owed.lock().unwrap_or_else(PoisonError::into_inner).first().cloned();
            let Some(next) = next else { continue };
            if self.add_to_feed(&next, self.deadline()).await.is_ok() {
                self.owed.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != next);
                beats.reset_immediately();
            }
        }
    }

    async fn list(
        &self,
        commit: &Commit,
        (was, is, ends_at): (&str, &str, &str),
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let handle = commit.handle.to_string();
        if let Some(user) = UserKey::parse(was).filter(|_| was != is) {
            let mut command = redis::cmd("ZREM");
            let key = self.keys.user(user);
            command.arg(&key).arg(&handle);
            self.ask(&key, &command, deadline).await?;
        }
        if let Some(user) = UserKey::parse(is) {
            let now = commit.now.0.to_string();
            let key = self.keys.user(user);
            let (keys, arguments) = ([&*key], [&*handle, ends_at, &now]);
            self.call(&key, &self.scripts.list.call(&keys, &arguments), deadline).await?;
        }
        Ok(())
    }

    /// Many that ask at once, or within a second, touch once.
    pub(super) async fn touch(&self, handle: Handle, birth: Birth, now: Time) -> Result<bool, StoreError> {
        if self.touched.get(&handle).is_some_and(|(of, at)| of == birth && now < at.plus(TOUCH_STANDS)) {
            return Ok(true);
        }
        self.touched.insert(handle, (birth, now));
        let keys = [self.keys.session(handle), self.keys.trail(handle)];
        let (birth, now) = (birth.to_string(), now.0.to_string());
        let retain = self.bounds.retain.as_millis().to_string();
        let (named, arguments) = ([&*keys[0], &keys[1]], [&*birth, &now, &retain]);
        let call = self.scripts.touch.call(&named, &arguments);
        let answer = self.call(&keys[0], &call, self.deadline()).await.and_then(|answer| value(&answer.raw));
        if !matches!(answer, Ok(Value::Int(1))) {
            self.touched.remove(&handle);
        }
        match answer.map_err(|failure| self.of_session(handle, failure))? {
            Value::Int(1) => {
                self.cache.forget(handle);
                Ok(true)
            }
            Value::Int(0) => Ok(false),
            _ => Err(self.damaged(handle)),
        }
    }
}

/// The session that a commit ends, if it does, and how long others are told of that: past its absolute expiry nobody
/// takes it for living.
fn over(effect: &Effect, birth: &str, ends_at: &str) -> Option<(Birth, Time)> {
    let (birth, stands) = match effect {
        Effect::Change(change) => {
            let stands = change.end?;
            (Birth::parse(birth)?, stands)
        }
        Effect::Revoke { until, .. } => (Birth::parse(birth)?, *until),
        Effect::Replace(asked) => (asked.birth, asked.record.ends_at),
        Effect::Create(_) | Effect::Note { .. } | Effect::Reseal { .. } => return None,
    };
    Some((birth, ends_at.parse().map_or(stands, Time)))
}

fn number(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| StoreError::Unknown)
}
