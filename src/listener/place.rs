//! How many connections there may be: in all, and of one peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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
