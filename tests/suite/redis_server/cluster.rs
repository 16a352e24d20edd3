//! A real cluster of the test's own.

use std::sync::{Arc, Mutex, Weak};

use super::{Raw, Server, free_port, wait_for};

/// How long a node is silent before the others take it for dead, in milliseconds.
const NODE_TIMEOUT: &str = "1000";

/// Three primaries, and a replica of each where that was asked for.
pub struct Cluster {
    pub primaries: Vec<Arc<Server>>,
    pub replicas: Vec<Arc<Server>>,
}

impl Cluster {
    pub fn start() -> Arc<Self> {
        Self::with_replicas(0)
    }

    /// Replicas are of the first primaries.
    pub fn with_replicas(replicas: usize) -> Arc<Self> {
        let primaries: Vec<_> = (0..3).map(|_| node()).collect();
        let replicas: Vec<_> = (0..replicas).map(|_| node()).collect();
        for (place, primary) in primaries.iter().enumerate() {
            let mut raw = primary.raw();
            let (first, last) = (place * 16384 / 3, (place + 1) * 16384 / 3 - 1);
            raw.say::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", place + 1));
            raw.say::<()>(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
        }
        let mut first = primaries[0].raw();
        for other in primaries.iter().skip(1).chain(&replicas) {
            first.say::<()>(&format!("CLUSTER MEET 127.0.0.1 {} {}", other.port, bus_port(other)));
        }
        let all = primaries.len() + replicas.len();
        for node in primaries.iter().chain(&replicas) {
            let mut raw = node.raw();
            wait_for("the cluster", || {
                let info: String = raw.say("CLUSTER INFO");
                let met = info.contains(&format!("cluster_known_nodes:{all}\r"));
                (met && info.contains("cluster_state:ok")).then_some(())
            });
        }
        for (replica, primary) in replicas.iter().zip(&primaries) {
            let id: String = primary.raw().say("CLUSTER MYID");
            let mut raw = replica.raw();
            wait_for("a replica", || raw.try_say::<()>(&format!("CLUSTER REPLICATE {id}")).ok());
            wait_for("its primary", || {
                raw.say::<String>("INFO replication").contains("master_link_status:up").then_some(())
            });
            // The others know of it, so that they may vote for it.
            wait_for("its name", || {
                primary.raw().say::<String>("CLUSTER NODES").contains(&format!(" slave {id} ")).then_some(())
            });
        }
        Arc::new(Self { primaries, replicas })
    }

    /// One cluster for all tests that run at the same time and leave it as it is.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Self::start();
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    pub fn urls(&self) -> Vec<String> {
        self.primaries.iter().map(|primary| primary.url()).collect()
    }

    /// The primary, by the first ranges, that has a key's slot.
    pub fn place_of(&self, key: &str) -> usize {
        self.slot_of(key) * 3 / 16384
    }

    pub fn slot_of(&self, key: &str) -> usize {
        self.primaries[0].raw().say(&format!("CLUSTER KEYSLOT {key}"))
    }

    /// Begins to move a slot; its keys go one by one.
    pub fn begin_move(&self, slot: usize, from: usize, to: usize) {
        let (source, target) = (self.id(from), self.id(to));
        self.primaries[to].raw().say::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}"));
        self.primaries[from].raw().say::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}"));
    }

    /// Moves up to so many of a slot's keys; how many there were.
    pub fn move_keys(&self, slot: usize, from: usize, to: usize, most: usize) -> usize {
        let mut raw = self.primaries[from].raw();
        let keys: Vec<String> = raw.say(&format!("CLUSTER GETKEYSINSLOT {slot} {most}"));
        for key in &keys {
            raw.say::<String>(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", self.primaries[to].port));
        }
        keys.len()
    }

    pub fn finish_move(&self, slot: usize, from: usize, to: usize) {
        let target = self.id(to);
        // The new owner first, as redis-cli does, so that the slot is never nobody's.
        let others = (0..self.primaries.len()).filter(|place| ![from, to].contains(place));
        for place in [to, from].into_iter().chain(others) {
            self.primaries[place].raw().say::<()>(&format!("CLUSTER SETSLOT {slot} NODE {target}"));
        }
    }

    fn id(&self, place: usize) -> String {
        self.primaries[place].raw().say("CLUSTER MYID")
    }

    pub fn raws(&self) -> Vec<Raw> {
        self.primaries.iter().map(|primary| primary.raw()).collect()
    }
}

fn node() -> Arc<Server> {
    let bus = free_port().to_string();
    Server::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", NODE_TIMEOUT])
}

fn bus_port(node: &Server) -> String {
    let (_, port): (String, String) = node.raw().say("CONFIG GET cluster-port");
    port
}
