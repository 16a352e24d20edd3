//! Asking a cluster's nodes who serves what.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Core;
use super::dial::{NoLine, Unusable, no_line};
use super::link::{Failure, Line};
use super::slot::Range;
use super::survey::Serving;
use crate::config::ServerAddress;

/// How long one node may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often in a row an older view than the last is refused: by then the cluster was made anew.
const REFUSALS: u8 = 8;

/// What one node says.
struct View {
    /// Grows with every change of who serves what.
    epoch: u64,
    primaries: Vec<Serving>,
    replicas: Vec<ServerAddress>,
}

pub(super) struct Cluster {
    /// Those in the configuration.
    seeds: Vec<ServerAddress>,
    /// Those that were seen last, replicas too.
    known: Vec<ServerAddress>,
    epoch: u64,
    refused: u8,
    turn: usize,
}

impl Cluster {
    pub fn new(seeds: Vec<ServerAddress>) -> Self {
        Self { seeds, known: Vec::new(), epoch: 0, refused: 0, turn: 0 }
    }

    /// The primaries, by a node that is not behind what is known already.
    pub async fn primaries(&mut self, core: &Core) -> Result<Vec<Serving>, NoLine> {
        if let Some(witness) = core.servers.witness()
            && let Ok(line) = core.dialer.connect(&witness, core.next_number(), None).await
            && let Some(serving) = self.hear(view(&line, &witness).await)
        {
            return Ok(serving);
        }
        let nodes = core.servers.map().nodes.clone();
        self.turn = self.turn.wrapping_add(1);
        for offset in 0..nodes.len() {
            let Some(node) = nodes.get((self.turn + offset) % nodes.len()) else { break };
            if let Some(line) = node.writes.open_now()
                && let Some(serving) = self.hear(view(&line, &node.address).await)
            {
                return Ok(serving);
            }
        }
        self.ask_everybody(core).await
    }

    /// Takes a view on, unless it is older than the last one.
    fn hear(&mut self, view: Result<View, NoLine>) -> Option<Vec<Serving>> {
        let view = view.ok()?;
        if view.epoch < self.epoch && self.refused < REFUSALS {
            self.refused += 1;
            return None;
        }
        (self.epoch, self.refused) = (view.epoch, 0);
        let primaries = view.primaries.iter().map(|(address, _)| address.clone());
        self.known = primaries.chain(view.replicas).collect();
        Some(view.primaries)
    }

    /// Dials all at once; the first that answers is heard.
    async fn ask_everybody(&mut self, core: &Core) -> Result<Vec<Serving>, NoLine> {
        let mut asked = JoinSet::new();
        let mut addresses = [self.seeds.clone(), self.known.clone()].concat();
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses {
            let (dialer, number) = (core.dialer.clone(), core.next_number());
            asked.spawn(async move { view(&dialer.connect(&address, number, None).await?, &address).await });
        }
        let mut worst = NoLine::Unreachable("no node of the cluster can be reached".into());
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Err(NoLine::Unusable(unusable))) => worst = NoLine::Unusable(unusable),
                Ok(Err(NoLine::Unreachable(reason))) if matches!(worst, NoLine::Unreachable(_)) => {
                    worst = NoLine::Unreachable(reason);
                }
                Ok(view) => {
                    if let Some(serving) = self.hear(view) {
                        return Ok(serving);
                    }
                }
                Err(_) => {}
            }
        }
        Err(worst)
    }
}

async fn view(line: &Line, asked: &ServerAddress) -> Result<View, NoLine> {
    let deadline = Instant::now() + PATIENCE;
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let slots = line.ask(&command, deadline).await.map_err(refused)?;
    let mut command = redis::cmd("CLUSTER");
    command.arg("INFO");
    // Who may not ask takes every view for new.
    let info: Option<String> =
        line.ask(&command, deadline).await.ok().and_then(|info| redis::from_redis_value(info).ok());
    let epoch =
        info.as_deref().unwrap_or_default().lines().find_map(|line| line.strip_prefix("cluster_current_epoch:"));
    let epoch = epoch.and_then(|digits| digits.trim().parse().ok()).unwrap_or(0);
    let unreadable = || NoLine::Unreachable("what it says of the cluster cannot be read".into());
    let (primaries, replicas) = read(slots, asked).ok_or_else(unreadable)?;
    if primaries.is_empty() {
        return Err(NoLine::Unreachable("the cluster serves no slots".into()));
    }
    Ok(View { epoch, primaries, replicas })
}

fn refused(failure: Failure) -> NoLine {
    let Failure::Refused(error) = failure else { return NoLine::Unreachable("it does not answer".into()) };
    match error.code() {
        Some("NOPERM") => NoLine::Unusable(Unusable::server("this user lacks the permission for CLUSTER SLOTS")),
        Some("ERR") if error.detail().is_some_and(|detail| detail.contains("cluster support disabled")) => {
            NoLine::Unusable(Unusable::new("store.cluster", "the server is not part of a cluster"))
        }
        _ => no_line(&error),
    }
}

/// `[[first, last, primary, replica…]…]`, a node being `[host, port, id, …]`.
fn read(slots: Value, asked: &ServerAddress) -> Option<(Vec<Serving>, Vec<ServerAddress>)> {
    let Value::Array(ranges) = slots else { return None };
    let mut primaries: BTreeMap<ServerAddress, Vec<Range>> = BTreeMap::new();
    let mut replicas = Vec::new();
    for range in ranges {
        let Value::Array(parts) = range else { return None };
        let mut parts = parts.into_iter();
        let (first, last) = (number(parts.next()?)?, number(parts.next()?)?);
        primaries.entry(node(parts.next()?, asked)?).or_default().push((first, last));
        replicas.extend(parts.filter_map(|part| node(part, asked)));
    }
    Some((primaries.into_iter().collect(), replicas))
}

fn number(value: Value) -> Option<u16> {
    redis::from_redis_value(value).ok()
}

/// A node that does not know its own host is where it was asked.
fn node(value: Value, asked: &ServerAddress) -> Option<ServerAddress> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let host: Option<String> = redis::from_redis_value(parts.next()?).ok()?;
    let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| asked.host.clone());
    Some(ServerAddress { host, port: number(parts.next()?)? })
}
