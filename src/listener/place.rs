//! How many connections there may be: in all, and of one peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::drain::Drain;
use crate::in_force::InForce;

use super::terms::Terms;

/// How often a full listener looks whether its terms are others by now.
const REFIT: Duration = Duration::from_secs(1);

/// The places for connections, as many as the terms in force give.
pub struct Places {
    free: Arc<Semaphore>,
    count: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(0)), count: 0 }
    }
}

impl Places {
    /// Waits for a place; none once the drain has begun.
    pub async fn take(&mut self, terms: &InForce<Terms>, drain: &Drain) -> Option<OwnedSemaphorePermit> {
        let wanted = || terms.current().limits.connections.min(Semaphore::MAX_PERMITS);
        loop {
            let more = wanted().saturating_sub(self.count);
            self.free.add_permits(more);
            self.count += more;
            let place = tokio::select! {
                biased;
                place = self.free.clone().acquire_owned() => place.ok()?,
                () = drain.begun() => return None,
                // There may be more of them by then.
                () = tokio::time::sleep(REFIT) => continue,
            };
            if self.count <= wanted() {
                return Some(place);
            }
            // One too many: it is gone, and no open connection is closed for that.
            place.forget();
            self.count -= 1;
        }
    }
}

/// How many connections each peer has open.
#[derive(Debug, Clone, Default)]
pub struct PerPeer {
    open: Arc<Mutex<HashMap<u128, usize>>>,
}

/// One connection's share of what its peer may have open.
#[derive(Debug)]
pub struct Share {
    peer: Option<u128>,
    open: Arc<Mutex<HashMap<u128, usize>>>,
}

impl PerPeer {
    /// Takes a share; none where the peer has as many as the limit.
    pub fn enter(&self, peer: u128, limit: Option<usize>) -> Option<Share> {
        let Some(limit) = limit else { return Some(Share { peer: None, open: self.open.clone() }) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(peer).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Share { peer: Some(peer), open: self.open.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(peer) = self.peer else { return };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&peer);
            }
        }
    }
}
