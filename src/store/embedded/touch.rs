//! Touches that wait to be written, seen by every reader meanwhile.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::clock::Time;
use crate::handle::{Birth, Handle};
use crate::store::StoreError;

/// Sessions with a touch that waits, 6 MB of them; it takes a writer that has stood still to get there.
const WAITING: usize = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Touch {
    pub birth: Birth,
    pub at: Time,
}

#[derive(Debug, Default)]
pub(super) struct Touches(RwLock<HashMap<Handle, Touch>>);

impl Touches {
    pub fn of(&self, handle: Handle) -> Option<Touch> {
        self.read().get(&handle).copied()
    }

    /// Adds a touch; a later one of the same session stays.
    pub fn note(&self, handle: Handle, touch: Touch) -> Result<(), StoreError> {
        let mut waiting = self.write();
        let full = waiting.len() >= WAITING;
        match waiting.get_mut(&handle) {
            Some(before) if before.birth == touch.birth => before.at = before.at.max(touch.at),
            Some(before) => *before = touch,
            None if full => return Err(StoreError::Unavailable("too many touches wait to be written".into())),
            None => {
                waiting.insert(handle, touch);
            }
        }
        Ok(())
    }

    /// Some sessions with a touch that waits.
    pub fn some(&self, limit: usize) -> Vec<Handle> {
        self.read().keys().take(limit).copied().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Forgets what has been written, unless a later touch came meanwhile.
    pub fn settle(&self, written: &[(Handle, Touch)]) {
        let mut waiting = self.write();
        for (handle, touch) in written {
            if waiting.get(handle) == Some(touch) {
                waiting.remove(handle);
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Handle, Touch>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Handle, Touch>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
