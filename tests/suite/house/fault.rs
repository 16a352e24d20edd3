//! A store that fails when the test tells it to, and is the configured one else.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cloakroom::clock::Time;
use cloakroom::handle::{Birth, Handle, UserKey};
use cloakroom::quota::Quota;
use cloakroom::store::{Commit, Entry, Listener, Outcome, Reply, Revocation, Store, StoreError, Taken, Trail};

use super::Gate;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    None,
    /// Everything.
    Down,
    /// Whatever writes.
    Writes,
    /// Every touch.
    Touches,
}

/// The switches.
#[derive(Clone, Default)]
pub struct Faults(Arc<Switches>);

#[derive(Default)]
struct Switches {
    now: AtomicU8,
    /// What commits wait for.
    gate: Mutex<Option<Gate>>,
    waiting: AtomicUsize,
}

impl Faults {
    pub fn set(&self, fault: Fault) {
        self.0.now.store(fault as u8, Ordering::Release);
    }

    /// Has commits wait until the gate opens.
    pub fn hold_commits(&self, gate: &Gate) {
        *self.0.gate.lock().unwrap() = Some(gate.clone());
    }

    /// How many commits have begun to wait.
    pub fn held(&self) -> usize {
        self.0.waiting.load(Ordering::Acquire)
    }

    fn any(&self, of: &[Fault]) -> Result<(), StoreError> {
        let now = self.0.now.load(Ordering::Acquire);
        if of.iter().any(|fault| *fault as u8 == now) {
            return Err(StoreError::Unavailable("the test says so".into()));
        }
        Ok(())
    }

    pub fn before(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Faulty { faults: self.clone(), store })
    }
}

struct Faulty {
    faults: Faults,
    store: Arc<dyn Store>,
}

impl Faulty {
    /// Asks the store, unless that fails now. What fails is not asked for at all.
    fn unless<'a, T: Send + 'a>(
        &'a self,
        of: &[Fault],
        ask: impl FnOnce(&'a dyn Store) -> Reply<'a, T>,
    ) -> Reply<'a, T> {
        match self.faults.any(of) {
            Ok(()) => ask(&*self.store),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

const READING: &[Fault] = &[Fault::Down];
const WRITING: &[Fault] = &[Fault::Down, Fault::Writes];
const TOUCHING: &[Fault] = &[Fault::Down, Fault::Writes, Fault::Touches];

impl Store for Faulty {
    fn load_anew(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        self.unless(READING, |store| store.load_anew(handle))
    }

    fn last_known(&self, handle: Handle) -> Option<Arc<Entry>> {
        self.store.last_known(handle)
    }

    fn at_hand(&self, handle: Handle) -> Option<Arc<Entry>> {
        self.faults.any(READING).ok().and_then(|()| self.store.at_hand(handle))
    }

    fn load(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        self.unless(READING, |store| store.load(handle))
    }

    fn commit(&self, commit: Commit) -> Reply<'_, Outcome> {
        let gate = self.faults.0.gate.lock().unwrap().clone();
        let Some(gate) = gate else { return self.unless(WRITING, |store| store.commit(commit)) };
        self.faults.0.waiting.fetch_add(1, Ordering::AcqRel);
        Box::pin(async move {
            gate.passed().await;
            self.store.commit(commit).await
        })
    }

    fn touch(&self, handle: Handle, birth: Birth, now: Time) -> Reply<'_, bool> {
        self.unless(TOUCHING, |store| store.touch(handle, birth, now))
    }

    fn trail(&self, handle: Handle, before: Option<u64>, limit: usize) -> Reply<'_, Trail> {
        self.unless(READING, |store| store.trail(handle, before, limit))
    }

    fn sessions_of(&self, user: UserKey) -> Reply<'_, Vec<Handle>> {
        self.unless(READING, |store| store.sessions_of(user))
    }

    fn handles(&self, after: Option<Handle>, limit: usize) -> Reply<'_, Vec<Handle>> {
        self.unless(READING, |store| store.handles(after, limit))
    }

    fn revoke(&self, revocation: Revocation) -> Reply<'_, ()> {
        self.unless(WRITING, |store| store.revoke(revocation))
    }

    fn revocations(&self, now: Time) -> Reply<'_, Vec<Revocation>> {
        self.unless(READING, |store| store.revocations(now))
    }

    fn follow(&self, listener: Listener) -> bool {
        self.store.follow(listener)
    }

    fn take(&self, key: &str, quota: Quota) -> Option<Reply<'_, Taken>> {
        match self.faults.any(WRITING) {
            Ok(()) => self.store.take(key, quota),
            Err(error) => Some(Box::pin(std::future::ready(Err(error)))),
        }
    }

    fn reachable(&self) -> Reply<'_, ()> {
        self.unless(READING, |store| store.reachable())
    }

    fn remark(&self) -> Option<String> {
        self.store.remark()
    }
}
