//! The figures of one route, looked up once and not by every request.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::Figures;
use super::label::{Ended, Request, Route, WriteBack, WriteBacks};

/// One route's own counters, so that counting is an addition and no search by labels.
#[derive(Debug)]
pub struct RouteFigures {
    pub route: Arc<str>,
    /// The path that it matches, as it is configured.
    pub pattern: Arc<str>,
    figures: Arc<Figures>,
    /// The statuses that were seen so far: few, so that a glance over them costs less than a hash.
    ended: ArcSwap<Vec<(u16, Ended, Counter)>>,
    pub request_duration: Histogram,
    pub overhead_duration: Histogram,
    pub upstream_duration: Histogram,
    write_backs: Vec<Counter>,
}

impl RouteFigures {
    pub(super) fn new(figures: Arc<Figures>, name: &Arc<str>, pattern: &str) -> Self {
        let route = Route { route: name.clone() };
        let write_back = |outcome: &WriteBack| {
            figures.write_backs.get_or_create_owned(&WriteBacks { route: name.clone(), outcome: *outcome })
        };
        Self {
            route: name.clone(),
            pattern: pattern.into(),
            ended: ArcSwap::default(),
            request_duration: figures.request_duration.get_or_create_owned(&route),
            overhead_duration: figures.overhead_duration.get_or_create_owned(&route),
            upstream_duration: figures.upstream_duration.get_or_create_owned(&route),
            write_backs: WriteBack::ALL.iter().map(write_back).collect(),
            figures,
        }
    }

    /// Counts an exchange; a status of 0 is that of a client who left before there was one.
    pub fn ended(&self, code: u16, outcome: Ended) {
        let seen = self.ended.load();
        match find(&seen, code, outcome) {
            Some(counter) => drop(counter.inc()),
            None => drop(self.first(code, outcome).inc()),
        }
    }

    fn first(&self, code: u16, outcome: Ended) -> Counter {
        let label = Request { route: self.route.clone(), code, outcome };
        let counter = self.figures.requests.get_or_create_owned(&label);
        self.ended.rcu(|seen| {
            let mut seen = Vec::clone(seen);
            if find(&seen, code, outcome).is_none() {
                seen.push((code, outcome, counter.clone()));
            }
            seen
        });
        counter
    }

    pub fn wrote_back(&self, outcome: WriteBack) {
        // Every outcome has its counter, in the order of the list.
        if let Some(counter) = self.write_backs.get(outcome as usize) {
            counter.inc();
        }
    }
}

fn find(seen: &[(u16, Ended, Counter)], code: u16, outcome: Ended) -> Option<&Counter> {
    seen.iter().find(|(known, how, _)| (*known, *how) == (code, outcome)).map(|(_, _, counter)| counter)
}
