//! A primary, and the links to it.

use std::sync::Arc;

use super::keep::Role;
use super::link::Link;
use super::replicas::Replicas;
use crate::config::ServerAddress;

pub(super) struct Node {
    pub address: ServerAddress,
    /// On each of which the server tells what changes among what was read or committed on it.
    pub reads: Link,
    pub writes: Link,
    /// Who waits for copies of what was written, where anybody does.
    pub replicas: Option<Replicas>,
}

impl Node {
    pub fn new(address: ServerAddress, replicas: Option<Replicas>) -> Arc<Self> {
        Arc::new(Self { address, reads: Link::new(), writes: Link::new(), replicas })
    }

    /// The links, and what each is for.
    pub fn links(&self) -> impl Iterator<Item = (Role, &Link)> {
        let replicas = self.replicas.iter().map(|replicas| (Role::Replicas, &replicas.link));
        [(Role::Reads, &self.reads), (Role::Writes, &self.writes)].into_iter().chain(replicas)
    }

    /// The link for that; the writes' also for what has none of its own.
    pub fn link(&self, role: Role) -> &Link {
        match (role, &self.replicas) {
            (Role::Reads, _) => &self.reads,
            (Role::Replicas, Some(replicas)) => &replicas.link,
            (Role::Writes | Role::Replicas | Role::Feed, _) => &self.writes,
        }
    }

    pub fn is_open(&self) -> bool {
        self.reads.open_line() != 0 && self.writes.open_line() != 0
    }

    /// Has nobody wait for it any more.
    pub fn retire(&self) {
        self.links().for_each(|(_, link)| link.fail("it is the primary no more".into()));
    }
}
