//! Finding out which primaries there are and what they serve, and tending the links to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Core;
use super::cluster::Cluster;
use super::dial::{Ear, NoLine, Unusable};
use super::node::Node;
use super::replicas::Replicas;
use super::sentinel::Sentinels;
use super::servers::Map;
use super::slot::{Range, SLOTS};
use crate::config::{self, ServerAddress, ServerUrl};

/// How often is looked where nobody doubts, and how often at most.
const BEAT: Duration = Duration::from_millis(500);
const BREATH: Duration = Duration::from_millis(10);

/// Who is asked.
pub(super) enum Ground {
    Single(ServerAddress),
    Sentinels(Sentinels),
    Cluster(Cluster),
}

/// A primary and the slots it serves.
pub(super) type Serving = (ServerAddress, Vec<Range>);

impl Ground {
    /// # Errors
    /// URLs that name no server, or different ones.
    pub fn new(config: &config::Store) -> Result<(Self, ServerUrl), Unusable> {
        let unreadable = || Unusable::server("this is not a URL of a Redis server");
        let urls: Option<Vec<_>> = config.server_urls().map(|(_, url)| ServerUrl::parse(url.reveal())).collect();
        let urls = urls.ok_or_else(unreadable)?;
        let mut addresses: Vec<_> = urls.iter().flat_map(|url| url.addresses.clone()).collect();
        let first = urls.into_iter().next().ok_or_else(|| Unusable::server("it is needed for this store"))?;
        let ground = match &first.service {
            Some(service) => Self::Sentinels(Sentinels::new(addresses, service.clone())),
            None if config.cluster => Self::Cluster(Cluster::new(addresses)),
            None => Self::Single(addresses.swap_remove(0)),
        };
        Ok((ground, first))
    }

    async fn look(&mut self, core: &Arc<Core>) -> Result<Vec<Serving>, NoLine> {
        let everything = |address| vec![(address, vec![(0, SLOTS - 1)])];
        match self {
            Self::Single(address) => Ok(everything(address.clone())),
            Self::Sentinels(sentinels) => sentinels.primary(&core.dialer, &core.doubting()).await.map(everything),
            Self::Cluster(cluster) => cluster.primaries(core).await,
        }
    }
}

impl Core {
    /// Doubts who the primary is whenever something is heard.
    fn doubting(self: &Arc<Self>) -> Ear {
        let core = Arc::downgrade(self);
        Arc::new(move |_| {
            if let Some(core) = core.upgrade() {
                core.servers.doubt(None);
            }
        })
    }
}

/// A node whose links are tended for as long as this is.
struct Tended {
    node: Arc<Node>,
    _tasks: JoinSet<()>,
}

pub(super) struct Survey {
    core: Arc<Core>,
    ground: Ground,
    tended: HashMap<ServerAddress, Tended>,
}

impl Survey {
    pub fn new(core: Arc<Core>, ground: Ground) -> Self {
        Self { core, ground, tended: HashMap::new() }
    }

    /// Looks once.
    pub async fn look(&mut self) -> Result<(), NoLine> {
        let core = self.core.clone();
        let primaries = self.ground.look(&core).await?;
        let serving: Vec<_> = primaries.into_iter().map(|(address, slots)| (self.tend(address), slots)).collect();
        let before = core.feed_node();
        core.servers.install(match (&self.ground, serving.first()) {
            (Ground::Single(_) | Ground::Sentinels(_), Some((node, _))) => Map::of_one(node.clone()),
            _ => Map::of_cluster(serving),
        });
        let map = core.servers.map();
        self.tended.retain(|_, tended| {
            let stays = map.nodes.iter().any(|node| Arc::ptr_eq(node, &tended.node));
            if !stays {
                tracing::info!(target: "cloakroom::store", server = %tended.node.address, "this is a primary no more");
                tended.node.retire();
            }
            stays
        });
        let moved = match (before, core.feed_node()) {
            (Ok(before), Ok(now)) => !Arc::ptr_eq(&before, &now),
            _ => true,
        };
        if moved {
            core.feed.renew();
        }
        Ok(())
    }

    fn tend(&mut self, address: ServerAddress) -> Arc<Node> {
        let core = &self.core;
        let tended = self.tended.entry(address.clone()).or_insert_with(|| {
            let node = Node::new(address, core.wanted.map(|_| Replicas::new()));
            let mut tasks = JoinSet::new();
            for (role, _) in node.links() {
                tasks.spawn(core.clone().keep_node(role, node.clone()));
            }
            if node.replicas.is_some() {
                tasks.spawn(core.clone().await_replicas(node.clone()));
            }
            Tended { node, _tasks: tasks }
        });
        tended.node.clone()
    }

    /// Looks for ever: now and then, and where somebody doubts what was found.
    pub async fn go_on(mut self) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = self.core.servers.doubted() => {}
                () = sleep(BEAT) => {}
            }
            let failure = self.look().await.err().map(NoLine::reason);
            if let Some(reason) = failure.as_deref().filter(|_| !failing) {
                tracing::warn!(target: "cloakroom::store", reason, "who the primaries are cannot be found out");
            }
            failing = failure.is_some();
            self.core.servers.looked(failure);
            sleep(BREATH).await;
        }
    }
}
