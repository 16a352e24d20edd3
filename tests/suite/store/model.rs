//! Any sequence of commits ends the same in every home, and as a small model of the rules says.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloakroom::clock::Time;
use cloakroom::handle::{Birth, CommitId, Handle};
use cloakroom::store::{Base, Change, Conflict, Draft, Effect, Entry, Outcome, Proof, Record, Replace, TokenProof};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use super::fixture::{self, Home, create, record};

const FIELDS: [&str; 3] = ["a", "b", "c"];

/// A step in the life of one handle; small numbers, so that steps meet.
#[derive(Debug, Clone)]
enum Step {
    Create {
        kind: Kind,
        login: Option<i64>,
    },
    Replace {
        of_another: bool,
    },
    /// The claims of a token, with a change or without.
    Claims {
        at: u64,
        set: Vec<usize>,
    },
    Change {
        set: Vec<usize>,
        unset: Vec<usize>,
        back: u64,
        own: bool,
        if_match: Option<u64>,
        end: bool,
    },
    Revoke {
        of_another: bool,
    },
    Note,
    Touch,
    /// Asks for an earlier commit again, counted from the last.
    Again(usize),
    Wait {
        seconds: u64,
    },
}

/// What proves a session: an id, or a token whose tombstone yields to later logins or does not.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Secret,
    Yielding,
    Unyielding,
}

fn step() -> impl Strategy<Value = Step> {
    let some = || vec(0..FIELDS.len(), 0..3);
    let change = (some(), some(), 0..3u64, any::<bool>(), proptest::option::weighted(0.2, 0..3u64), 0..12u8);
    let kind = prop_oneof![1 => Just(Kind::Secret), 3 => Just(Kind::Yielding), 1 => Just(Kind::Unyielding)];
    let login = proptest::option::weighted(0.9, -2..3i64);
    prop_oneof![
        4 => (kind, login).prop_map(|(kind, login)| Step::Create { kind, login }),
        1 => (0..4u8).prop_map(|of| Step::Replace { of_another: of == 0 }),
        2 => (0..4u64, some()).prop_map(|(at, set)| Step::Claims { at, set }),
        12 => change.prop_map(|(set, unset, back, own, if_match, end)| {
            Step::Change { set, unset, back, own, if_match, end: end == 0 }
        }),
        1 => any::<bool>().prop_map(|of_another| Step::Revoke { of_another }),
        2 => Just(Step::Note),
        2 => Just(Step::Touch),
        3 => (0..4usize).prop_map(Step::Again),
        2 => (1..70u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// The rules once more, without homes: what stands under one handle.
#[derive(Default)]
struct Model {
    life: Option<Life>,
    done: Vec<(CommitId, u64, u64)>,
}

struct Life {
    birth: Birth,
    revision: u64,
    seq: u64,
    ends_at: Time,
    last_active: Time,
    /// Field to whether it is set, and the revision that did it.
    fields: BTreeMap<usize, (bool, u64)>,
    token: Option<TokenProof>,
    tombstone: Option<Time>,
    revoked_at: Time,
    /// The session ended by itself, and what stands is the revocation before it.
    remains: bool,
}

impl Life {
    fn of(record: &Record) -> Self {
        Self {
            birth: record.birth,
            revision: 1,
            seq: 1,
            ends_at: record.ends_at,
            last_active: record.last_active,
            fields: BTreeMap::new(),
            token: record.proof.token().cloned(),
            tombstone: None,
            revoked_at: Time(0),
            remains: false,
        }
    }

    fn is_over(&self, now: Time) -> bool {
        let idle = self.last_active.plus(fixture::IDLE + fixture::TOUCH_INTERVAL);
        now >= self.tombstone.unwrap_or(idle.min(self.ends_at))
    }

    /// What came after a revocation leaves that behind.
    fn leave(&mut self, now: Time) -> bool {
        let after = self.token.as_ref().and_then(|token| token.after);
        let Some(after) = after.filter(|past| self.tombstone.is_none() && self.is_over(now) && now < past.until) else {
            return false;
        };
        (self.tombstone, self.revoked_at, self.remains) = (Some(after.until), after.at, true);
        true
    }

    fn yields_to(&self, login: Option<u64>) -> bool {
        self.token.as_ref().is_some_and(|token| token.yields)
            && login.is_some_and(|login| login > self.revoked_at.seconds())
    }
}

/// What a commit came to, without the audit record.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Done { revision: u64, seq: u64, again: bool },
    Other(Outcome),
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done { revision, seq, record } => Self::Done { revision, seq, again: record.is_none() },
            Outcome::Replaced { .. } => Self::Done { revision: 1, seq: 1, again: false },
            other => Self::Other(other),
        }
    }
}

impl Model {
    fn commit(&mut self, id: CommitId, now: Time, effect: &Effect) -> Ending {
        let left = self.life.as_mut().is_some_and(|life| life.leave(now));
        let over = self.life.as_ref().is_none_or(|life| life.is_over(now));
        if over || left {
            self.done.clear();
        }
        if let Some((_, revision, seq)) = self.done.iter().find(|(done, ..)| *done == id) {
            return Ending::Done { revision: *revision, seq: *seq, again: true };
        }
        match self.decide(over, now, effect) {
            Err(outcome) => Ending::Other(outcome),
            Ok((revision, seq)) => {
                self.done.push((id, revision, seq));
                Ending::Done { revision, seq, again: false }
            }
        }
    }

    fn decide(&mut self, over: bool, now: Time, effect: &Effect) -> Result<(u64, u64), Outcome> {
        if let Effect::Create(record) = effect {
            return self.create(over, record);
        }
        let life = self.life.as_mut().filter(|_| !over).ok_or(Outcome::NotFound)?;
        if life.tombstone.is_some() {
            return Err(Outcome::Revoked);
        }
        let (birth, end) = match effect {
            Effect::Change(change) => (change.base.birth, change.end),
            Effect::Revoke { birth, until } => (birth.unwrap_or(life.birth), Some(*until)),
            Effect::Note { birth } | Effect::Reseal { birth, .. } => (*birth, None),
            Effect::Replace(asked) => (asked.birth, None),
            Effect::Create(_) => return Err(Outcome::Exists),
        };
        if birth != life.birth {
            return Err(Outcome::Conflict(Conflict::Birth));
        }
        if let Effect::Replace(asked) = effect {
            let after = life.token.as_ref().and_then(|token| token.after);
            *life = Life::of(&asked.record);
            if let Some(token) = &mut life.token {
                token.after = after;
            }
            return Ok((1, 1));
        }
        if let Effect::Change(change) = effect {
            merge(life, change)?;
        }
        life.tombstone = end;
        life.revoked_at = now;
        life.seq += 1;
        Ok((life.revision, life.seq))
    }

    fn create(&mut self, over: bool, record: &Record) -> Result<(u64, u64), Outcome> {
        match &self.life {
            Some(life) if !over && life.tombstone.is_some() => {
                let login = record.proof.token().and_then(|token| token.login);
                if !life.yields_to(login) {
                    return Err(Outcome::Revoked);
                }
                let until = life.tombstone.unwrap();
                let after = Some(cloakroom::store::Past { at: life.revoked_at, until });
                self.life = Some(Life::of(record));
                self.life.as_mut().and_then(|life| life.token.as_mut()).unwrap().after = after;
                self.done.clear();
                return Ok((1, 1));
            }
            Some(_) if !over => return Err(Outcome::Exists),
            _ => {}
        }
        self.life = Some(Life::of(record));
        Ok((1, 1))
    }
}

fn number(path: &str) -> usize {
    FIELDS.iter().position(|field| *field == path).unwrap()
}

fn merge(life: &mut Life, change: &Change) -> Result<(), Outcome> {
    let own = change.base.own.unwrap_or(0);
    let claims_at = change.claims_at.filter(|_| life.token.is_some());
    if let (Some(at), Some(token)) = (claims_at, &life.token)
        && at <= token.claims_at
    {
        return Err(Outcome::Unchanged { revision: life.revision });
    }
    if let Some(wanted) = change.if_match
        && wanted != life.revision
        && !(own == life.revision && wanted + 1 == own)
    {
        return Err(Outcome::Conflict(Conflict::Revision));
    }
    let paths: Vec<_> = change.set.iter().map(|(path, _)| path).chain(&change.unset).collect();
    for path in &paths {
        let at = life.fields.get(&number(path)).map_or(0, |(_, at)| *at);
        if at > change.base.revision && at != own {
            return Err(Outcome::Conflict(Conflict::Field((*path).clone())));
        }
    }
    if let (Some(at), Some(token)) = (claims_at, &mut life.token) {
        token.claims_at = at;
    }
    if paths.is_empty() && change.end.is_none() {
        return Err(Outcome::Unchanged { revision: life.revision });
    }
    if !paths.is_empty() {
        life.revision += 1;
    }
    for path in &change.unset {
        life.fields.insert(number(path), (false, life.revision));
    }
    for (path, _) in &change.set {
        life.fields.insert(number(path), (true, life.revision));
    }
    Ok(())
}

/// Homes and the model, side by side under one handle.
struct Run<'h> {
    homes: &'h [Home],
    handle: Handle,
    now: Time,
    /// The last birth that was tried, living or not.
    birth: Birth,
    revision: u64,
    asked: Vec<(CommitId, Effect)>,
    model: Model,
}

impl Run<'_> {
    async fn step(&mut self, step: &Step) {
        match step {
            Step::Create { kind, login } => {
                let record = self.record(*kind, *login);
                self.begin(record.birth, create(record)).await;
            }
            Step::Replace { of_another } => {
                let birth = if *of_another { Birth::random().unwrap() } else { self.birth };
                let record = self.record(Kind::Yielding, None);
                let ended = Draft::new(r#"{"action":"revoke"}"#).unwrap();
                self.begin(record.birth, Effect::Replace(Box::new(Replace { birth, record, ended }))).await;
            }
            Step::Claims { at, set } => {
                let change = Change { claims_at: Some(*at), ..self.change(set, &[], 0, false, None, false) };
                self.commit(CommitId::random().unwrap(), Effect::Change(Box::new(change))).await;
            }
            Step::Change { set, unset, back, own, if_match, end } => {
                let change = self.change(set, unset, *back, *own, *if_match, *end);
                self.commit(CommitId::random().unwrap(), Effect::Change(Box::new(change))).await;
            }
            Step::Revoke { of_another } => {
                let birth = if *of_another { Birth::random().unwrap() } else { self.birth };
                let effect = Effect::Revoke { birth: Some(birth), until: self.now.plus(fixture::IDLE) };
                self.commit(CommitId::random().unwrap(), effect).await;
            }
            Step::Note => {
                self.commit(CommitId::random().unwrap(), Effect::Note { birth: self.birth }).await;
            }
            Step::Touch => self.touch().await,
            Step::Again(back) => {
                if let Some((id, effect)) = self.asked.iter().rev().nth(*back).cloned() {
                    self.commit(id, effect).await;
                }
            }
            Step::Wait { seconds } => self.now = self.now.plus(fixture::SECOND * *seconds as u32),
        }
    }

    fn record(&self, kind: Kind, login: Option<i64>) -> Record {
        let login = login.and_then(|offset| self.now.seconds().checked_add_signed(offset));
        let token = |yields| Proof::Token(TokenProof { login, yields, ..TokenProof::default() });
        match kind {
            Kind::Secret => record(self.now),
            Kind::Yielding => Record { proof: token(true), ..record(self.now) },
            Kind::Unyielding => Record { proof: token(false), ..record(self.now) },
        }
    }

    async fn begin(&mut self, birth: Birth, effect: Effect) {
        if let Ending::Done { .. } = self.commit(CommitId::random().unwrap(), effect).await {
            self.birth = birth;
        }
    }

    fn change(&self, set: &[usize], unset: &[usize], back: u64, own: bool, if_match: Option<u64>, end: bool) -> Change {
        let base =
            Base { birth: self.birth, revision: self.revision.saturating_sub(back), own: own.then_some(self.revision) };
        // What is both set and unset would depend on the order within one change, which no writer may rely on.
        let unset = unset.iter().filter(|field| !set.contains(field)).map(|field| FIELDS[*field].into()).collect();
        Change {
            base,
            if_match: if_match.map(|back| self.revision.saturating_sub(back)),
            set: set.iter().map(|field| (FIELDS[*field].into(), Arc::from("1"))).collect(),
            unset,
            end: end.then(|| self.now.plus(fixture::IDLE)),
            ..fixture::change(self.birth, 0)
        }
    }

    async fn commit(&mut self, id: CommitId, effect: Effect) -> Ending {
        let expected = self.model.commit(id, self.now, &effect);
        let record = Draft::new(r#"{"action":"write"}"#).unwrap();
        let commit =
            cloakroom::store::Commit { id, handle: self.handle, now: self.now, effect: effect.clone(), record };
        for home in self.homes {
            let outcome = home.store.commit(commit.clone()).await.unwrap();
            assert_eq!(Ending::from(outcome), expected, "{effect:?}");
            self.compare(home).await;
        }
        self.revision = self.model.life.as_ref().map_or(1, |life| life.revision);
        self.asked.push((id, effect));
        expected
    }

    async fn touch(&mut self) {
        let life = self.model.life.as_mut();
        let life = life.filter(|life| life.birth == self.birth && life.tombstone.is_none() && !life.is_over(self.now));
        for home in self.homes {
            let touched = home.store.touch(self.handle, self.birth, self.now).await.unwrap();
            assert_eq!(touched, life.is_some());
        }
        if let Some(life) = life {
            life.last_active = life.last_active.max(self.now);
        }
    }

    /// What a home holds is what the model holds, where that is not over and may have been swept.
    async fn compare(&self, home: &Home) {
        let Some(life) = self.model.life.as_ref().filter(|life| !life.is_over(self.now) && !life.remains) else {
            return;
        };
        match home.entry(self.handle).await {
            Some(Entry::Living(read)) => {
                assert_eq!((read.birth, read.revision, read.seq), (life.birth, life.revision, life.seq));
                assert_eq!((read.last_active, life.tombstone), (life.last_active, None));
                assert_eq!(read.proof.token(), life.token.as_ref());
                for (field, (set, at)) in &life.fields {
                    assert_eq!(read.fields.contains_key(FIELDS[*field]), *set);
                    assert_eq!(read.changed_at(FIELDS[*field]), *at);
                }
            }
            Some(Entry::Revoked(read)) => {
                assert_eq!((read.birth, read.seq, Some(read.until)), (life.birth, life.seq, life.tombstone));
            }
            None => panic!("nothing stands"),
        }
    }
}

async fn run(homes: &[Home], steps: &[Step]) {
    let birth = Birth::random().unwrap();
    let (now, model) = (homes[0].now(), Model::default());
    let mut run = Run { homes, handle: fixture::handle(), now, birth, revision: 1, asked: Vec::new(), model };
    for step in steps {
        run.step(step).await;
    }
    let first = homes[0].trail(run.handle).await;
    for home in homes {
        assert_eq!(home.trail(run.handle).await, first);
    }
}

#[test]
fn every_home_decides_as_the_rules_say() {
    // One file and one server for all cases, each under a handle of its own: opening costs more than a case.
    let runtime = Runtime::new().unwrap();
    let homes = [Home::memory(), Home::embedded(), runtime.block_on(Home::redis())];
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let judged = TestRunner::new(config).run(&vec(step(), 1..40), |steps| {
        runtime.block_on(run(&homes, &steps));
        Ok(())
    });
    judged.unwrap();
}
