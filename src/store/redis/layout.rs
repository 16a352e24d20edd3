//! The keys of an environment, and a session's hash.
//!
//! A field stands under its path, everything else under names that no path can have: they begin with `@`.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};

use crate::clock::Time;
use crate::handle::{Birth, CommitId, Handle, SecretHash, UserKey};
use crate::store::{Entry, Past, PreviousSecret, Proof, Recent, Record, Stored, TokenProof, Tombstone};

const BIRTH: &str = "@birth";
const SCHEMA: &str = "@schema";
const REVISION: &str = "@revision";
const SEQ: &str = "@seq";
const SIZE: &str = "@size";
const SECRET: &str = "@secret";
const PREVIOUS: &str = "@previous";
const PREVIOUS_UNTIL: &str = "@previous_until";
const ISSUER: &str = "@issuer";
const SUBJECT: &str = "@subject";
const LOGIN: &str = "@login";
const CLAIMS_AT: &str = "@claims_at";
const YIELDS: &str = "@yields";
const AFTER: &str = "@after";
const AFTER_UNTIL: &str = "@after_until";
const USER: &str = "@user";
const CREATED_AT: &str = "@created_at";
const LAST_ACTIVE: &str = "@last_active";
const ENDS_AT: &str = "@ends_at";
const IDLE: &str = "@idle";
const TOUCH_INTERVAL: &str = "@touch_interval";
const RECENT: &str = "@recent";
const REVOKED_AT: &str = "@revoked_at";
const UNTIL: &str = "@until";
/// What begins the name of a field's revision, kept for fields that were unset too.
const REVISION_OF: &str = "@revision:";

/// The keys of one environment. No environment's name has a colon, so that no two meet.
#[derive(Debug)]
pub(super) struct Keys(String);

impl Keys {
    pub fn new(environment: &str) -> Self {
        Self(environment.to_owned())
    }

    pub fn session(&self, handle: Handle) -> String {
        self.of_session("sessions", &handle.text())
    }

    pub fn trail(&self, handle: Handle) -> String {
        self.of_session("audit", &handle.text())
    }

    /// The session's key, its trail's, and that of what outlives a session that came after a revocation; in one slot.
    pub fn all(&self, handle: Handle) -> [String; 3] {
        let text = handle.text();
        let name: &str = &text;
        ["sessions", "audit", "revoked"].map(|kind| self.of_session(kind, name))
    }

    fn of_session(&self, kind: &str, name: &str) -> String {
        // Not by formatting, which takes five times as much.
        [&self.0, ":", kind, ":{", name, "}"].concat()
    }

    pub fn user(&self, user: UserKey) -> String {
        format!("{}:users:{user}", self.0)
    }

    /// In a slot of its own, which the braces choose.
    pub fn limit(&self, key: &str) -> String {
        format!("{}:limits:{{{key}}}", self.0)
    }

    pub fn feed(&self) -> String {
        format!("{}:revocations", self.0)
    }

    /// Keys that are tried before anything is served, and removed again: no handle looks like their tag.
    pub fn probes(&self, tag: &str) -> [String; 4] {
        ["sessions", "audit", "users", "revocations"].map(|name| format!("{}:{name}:{{{tag}}}", self.0))
    }

    /// A pattern for the keys of all sessions.
    pub fn every_session(&self) -> String {
        format!("{}:sessions:{{ses_*}}", self.0)
    }

    /// The session whose key this is.
    pub fn handle_in(&self, key: &str) -> Option<Handle> {
        let key = key.strip_prefix(&self.0)?;
        Handle::parse(key.strip_prefix(":sessions:{")?.strip_suffix('}')?)
    }
}

/// A new session's names and values, one after the other.
pub(super) fn encode(record: &Record) -> Vec<String> {
    let mut pairs = Pairs(Vec::new());
    for (path, stored) in &record.fields {
        pairs.put(path, &*stored.json);
        pairs.put(&format!("{REVISION_OF}{path}"), stored.revision);
    }
    for (path, revision) in &record.unset {
        pairs.put(&format!("{REVISION_OF}{path}"), revision);
    }
    pairs.put(BIRTH, record.birth);
    pairs.put(SCHEMA, record.schema);
    match &record.proof {
        Proof::Secret { hash, previous } => {
            pairs.put(SECRET, hash.text());
            if let Some(before) = previous {
                pairs.put(PREVIOUS, before.hash.text());
                pairs.put(PREVIOUS_UNTIL, before.until.0);
            }
        }
        Proof::Token(token) => pairs.put_token(token),
    }
    if let Some(user) = record.user {
        pairs.put(USER, user);
    }
    if let Some(size) = record.size {
        pairs.put(SIZE, size);
    }
    pairs.put(CREATED_AT, record.created_at.0);
    pairs.put(LAST_ACTIVE, record.last_active.0);
    pairs.put(ENDS_AT, record.ends_at.0);
    pairs.put(IDLE, record.idle);
    pairs.put(TOUCH_INTERVAL, record.touch_interval);
    pairs.0
}

struct Pairs(Vec<String>);

impl Pairs {
    fn put(&mut self, name: &str, value: impl ToString) {
        self.0.extend([name.to_owned(), value.to_string()]);
    }

    fn put_token(&mut self, token: &TokenProof) {
        self.put(ISSUER, &token.issuer);
        self.put(SUBJECT, &token.subject);
        self.put(CLAIMS_AT, token.claims_at);
        if let Some(login) = token.login {
            self.put(LOGIN, login);
        }
        if token.yields {
            self.put(YIELDS, 1);
        }
        if let Some(past) = token.after {
            self.put(AFTER, past.at.0);
            self.put(AFTER_UNTIL, past.until.0);
        }
    }
}

/// What a session's hash says, its names and values in turn; none if it is not one that cloakroom wrote.
pub(super) fn decode(texts: &[&str]) -> Option<Entry> {
    let hash = Hash(texts.as_chunks().0);
    match hash.has(REVOKED_AT) {
        true => tombstone(&hash).map(Entry::Revoked),
        false => record(&hash).map(|record| Entry::Living(record.into())),
    }
}

fn tombstone(hash: &Hash) -> Option<Tombstone> {
    Some(Tombstone {
        birth: Birth::parse(hash.text(BIRTH)?)?,
        revoked_at: hash.time(REVOKED_AT)?,
        until: hash.time(UNTIL)?,
        over_at: None,
        yields: hash.has(YIELDS),
        seq: hash.number(SEQ)?,
        recent: hash.recent()?,
    })
}

fn record(hash: &Hash) -> Option<Record> {
    let user = match hash.text(USER) {
        Some(text) => Some(UserKey::parse(text)?),
        None => None,
    };
    let (proof, recent) = (hash.proof()?, hash.recent()?);
    let mut record = Record {
        birth: Birth::parse(hash.text(BIRTH)?)?,
        schema: hash.text(SCHEMA)?.parse().ok()?,
        revision: hash.number(REVISION)?,
        seq: hash.number(SEQ)?,
        size: hash.number(SIZE),
        proof,
        user,
        created_at: hash.time(CREATED_AT)?,
        last_active: hash.time(LAST_ACTIVE)?,
        ends_at: hash.time(ENDS_AT)?,
        idle: hash.number(IDLE)?,
        touch_interval: hash.number(TOUCH_INTERVAL)?,
        fields: BTreeMap::new(),
        unset: BTreeMap::new(),
        recent,
    };
    hash.fields_into(&mut record)?;
    Some(record)
}

/// Some thirty pairs, of which each is looked for about once: a look over them costs less than a table.
struct Hash<'a>(&'a [[&'a str; 2]]);

impl Hash<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|[known, _]| *known == name).map(|[_, text]| *text)
    }

    fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    fn time(&self, name: &str) -> Option<Time> {
        self.number(name).map(Time)
    }

    fn secret(&self, name: &str) -> Option<SecretHash> {
        SecretHash::deserialize(StrDeserializer::<Error>::new(self.text(name)?)).ok()
    }

    fn proof(&self) -> Option<Proof> {
        if let (Some(issuer), Some(subject)) = (self.text(ISSUER), self.text(SUBJECT)) {
            return self.token(issuer, subject).map(Proof::Token);
        }
        let previous = match self.text(PREVIOUS) {
            Some(_) => Some(PreviousSecret { hash: self.secret(PREVIOUS)?, until: self.time(PREVIOUS_UNTIL)? }),
            None => None,
        };
        Some(Proof::Secret { hash: self.secret(SECRET)?, previous })
    }

    fn token(&self, issuer: &str, subject: &str) -> Option<TokenProof> {
        let after = match self.text(AFTER) {
            Some(_) => Some(Past { at: self.time(AFTER)?, until: self.time(AFTER_UNTIL)? }),
            None => None,
        };
        Some(TokenProof {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            login: self.text(LOGIN).map_or(Some(None), |text| text.parse().ok().map(Some))?,
            claims_at: self.text(CLAIMS_AT).map_or(Some(0), |text| text.parse().ok())?,
            yields: self.has(YIELDS),
            after,
        })
    }

    fn recent(&self) -> Option<VecDeque<Recent>> {
        let one = |text: &str| {
            let mut parts = text.split(':');
            let id = CommitId::parse(parts.next()?)?;
            Some(Recent { id, revision: parts.next()?.parse().ok()?, seq: parts.next()?.parse().ok()? })
        };
        self.text(RECENT).unwrap_or_default().split_ascii_whitespace().map(one).collect()
    }

    /// A value without a revision was put there by somebody else, and counts as never changed.
    fn fields_into(&self, record: &mut Record) -> Option<()> {
        for [path, json] in self.0.iter().filter(|[name, _]| !name.starts_with('@')) {
            record.fields.insert((*path).into(), Stored { json: (*json).into(), revision: 0 });
        }
        for [name, text] in self.0 {
            let Some(path) = name.strip_prefix(REVISION_OF) else { continue };
            let revision = text.parse().ok()?;
            match record.fields.get_mut(path) {
                Some(stored) => stored.revision = revision,
                None => drop(record.unset.insert(path.into(), revision)),
            }
        }
        Some(())
    }
}
