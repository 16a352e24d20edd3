//! Which primary serves what, as far as it is known.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::node::Node;
use super::slot::{Range, SLOTS, Slot};
use crate::config::ServerAddress;
use crate::store::StoreError;

/// In a map of slots: nobody serves it.
const NOBODY: u16 = u16::MAX;

/// All primaries, and what each serves.
#[derive(Default)]
pub(super) struct Map {
    pub nodes: Vec<Arc<Node>>,
    /// For each slot the place of its node among them; none where the first of them serves everything.
    owners: Option<Box<[u16]>>,
}

impl Map {
    /// One primary that serves everything.
    pub fn of_one(node: Arc<Node>) -> Self {
        Self { nodes: vec![node], owners: None }
    }

    /// The primaries of a cluster and the slots that they serve.
    pub fn of_cluster(primaries: Vec<(Arc<Node>, Vec<Range>)>) -> Self {
        let mut owners = vec![NOBODY; usize::from(SLOTS)].into_boxed_slice();
        let mut nodes = Vec::new();
        for (place, (node, slots)) in (0..NOBODY).zip(primaries) {
            nodes.push(node);
            for (first, last) in slots {
                if let Some(range) = owners.get_mut(usize::from(first)..=usize::from(last)) {
                    range.fill(place);
                }
            }
        }
        Self { nodes, owners: Some(owners) }
    }

    fn find(&self, slot: impl FnOnce() -> Slot) -> Option<&Arc<Node>> {
        let Some(owners) = &self.owners else { return self.nodes.first() };
        self.nodes.get(usize::from(*owners.get(usize::from(slot().0))?))
    }

    /// A tag of keys that the node serves.
    pub fn tag_of(&self, node: &Arc<Node>) -> String {
        let Some(owners) = &self.owners else { return "ses_".into() };
        let is_its = |slot: &u16| self.find(|| Slot(*slot)).is_some_and(|owner| Arc::ptr_eq(owner, node));
        (0..owners.len() as u16).find(is_its).map_or_else(String::new, |slot| Slot(slot).tag())
    }
}

/// The map, and whoever doubts it.
pub(super) struct Servers {
    map: ArcSwap<Map>,
    /// Why there is no map, while there is none.
    absence: ArcSwapOption<String>,
    doubt: Notify,
    /// Who knows better than the map, by what was heard.
    witness: Mutex<Option<ServerAddress>>,
    /// Counts the times that somebody has looked.
    looks: watch::Sender<u64>,
}

impl Servers {
    pub fn new() -> Self {
        Self {
            map: ArcSwap::default(),
            absence: ArcSwapOption::empty(),
            doubt: Notify::new(),
            witness: Mutex::default(),
            looks: watch::Sender::new(0),
        }
    }

    pub fn map(&self) -> Arc<Map> {
        self.map.load_full()
    }

    /// The primary that serves a slot, which is asked for only where it matters.
    pub fn find(&self, slot: impl FnOnce() -> Slot) -> Result<Arc<Node>, StoreError> {
        let map = self.map.load();
        match map.find(slot) {
            Some(node) => Ok(node.clone()),
            None => Err(StoreError::Unavailable(self.absence(&map))),
        }
    }

    fn absence(&self, map: &Map) -> String {
        match self.absence.load().as_deref() {
            Some(reason) if map.nodes.is_empty() => reason.clone(),
            _ if map.nodes.is_empty() => "no server was found yet".into(),
            _ => "no primary of the cluster serves this slot".into(),
        }
    }

    /// Whether that node still serves what it did.
    pub fn serves(&self, slot: Slot, node: &Arc<Node>) -> bool {
        self.map.load().find(|| slot).is_some_and(|owner| Arc::ptr_eq(owner, node))
    }

    pub fn install(&self, map: Map) {
        self.map.store(Arc::new(map));
    }

    /// Has the map be looked at again, first where that witness is.
    pub fn doubt(&self, witness: Option<ServerAddress>) {
        if witness.is_some() {
            *self.witness.lock().unwrap_or_else(PoisonError::into_inner) = witness;
        }
        self.doubt.notify_one();
    }

    pub async fn doubted(&self) {
        self.doubt.notified().await;
    }

    pub fn witness(&self) -> Option<ServerAddress> {
        self.witness.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Tells that somebody has looked, and what came in the way.
    pub fn looked(&self, failure: Option<String>) {
        self.absence.store(failure.map(Arc::new));
        self.looks.send_modify(|looks| *looks += 1);
    }

    /// Doubts, and waits until somebody has looked since.
    pub async fn look_again(&self, witness: Option<ServerAddress>, deadline: Instant) {
        let mut looks = self.looks.subscribe();
        self.doubt(witness);
        let _ = timeout_at(deadline, looks.changed()).await;
    }
}
