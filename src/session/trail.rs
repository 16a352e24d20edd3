//! Audit records: who changed what and when, never the content.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use crate::clock::Time;
use crate::handle::{CommitId, Handle, UserKey};
use crate::headers;
use crate::keyring::Keyring;
use crate::store::Draft;

use super::delta::Delta;
use super::vault::Plain;

/// The room that a record has at first, in bytes; more is made where it is needed.
const RECORD: usize = 1 << 10;

/// What a commit is called in the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Create,
    Claims,
    Write,
    Migrate,
    Rotate,
    Revoke,
    AdminWrite,
    Resolve,
    Reseal,
    /// For the sinks only: what was found when the session was read.
    Load,
}

/// Who caused a commit. Its members are in the order of their names, as in all that a mac covers.
#[derive(Debug, Clone, Serialize)]
pub struct Actor {
    pub kind: ActorKind,
    /// The named caller of the admin API, where handles were resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Arc<str>>,
    #[serde(rename = "trace_id", skip_serializing_if = "Option::is_none", serialize_with = "trace_id")]
    pub traceparent: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserKey>,
}

fn trace_id<S: Serializer>(traceparent: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    traceparent.as_deref().map(headers::trace_id).serialize(serializer)
}

impl Actor {
    pub fn new(kind: ActorKind) -> Self {
        Self { kind, route: None, name: None, purpose: None, user: None, request_id: None, traceparent: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// A client whose token made its session, or brought it to what the token says.
    Client,
    /// An agent's write-back.
    Backend,
    /// The admin API.
    Admin,
    /// A named caller of the admin API.
    Caller,
    /// cloakroom itself: migrations, re-sealing.
    Cloakroom,
}

#[derive(Serialize)]
struct Change<'a> {
    after: Json,
    before: Json,
    field: &'a str,
    op: &'static str,
}

/// All of a record but `seq` and `revision`, which the store adds, and `mac`: what the mac covers, with its members in
/// the order of their names, so that it is written once and not read again to be sorted (45,000 instructions, callgrind).
#[derive(Serialize)]
struct Body<'a> {
    action: Action,
    actor: &'a Actor,
    at: String,
    base: u64,
    changes: Vec<Change<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<CommitId>,
    env: &'a str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    session: Handle,
}

/// What makes an audit record, apart from its changes.
pub struct Facts<'a> {
    pub keyring: Arc<Keyring>,
    pub environment: &'a str,
    pub session: Handle,
    pub at: Time,
    pub action: Action,
    /// The revision that the change was based on.
    pub base: u64,
    pub actor: &'a Actor,
}

impl Facts<'_> {
    /// The record of a commit, for the store to complete.
    pub fn draft(&self, commit: CommitId, deltas: &[Delta]) -> Option<Draft> {
        let changes = deltas.iter().map(|delta| self.change(delta)).collect();
        Draft::new(&self.sealed(self.body(Some(commit), None, changes))?)
    }

    /// The record of a commit that did something with sensitive values and left them what they are.
    pub fn draft_untouched(&self, commit: CommitId, op: &'static str, values: &[(&str, &Plain)]) -> Option<Draft> {
        let changes = values.iter().map(|&(field, plain)| {
            let same = self.fingerprint(field, plain);
            Change { field, op, before: same.clone(), after: same }
        });
        Draft::new(&self.sealed(self.body(Some(commit), None, changes.collect()))?)
    }

    /// The record of a write-back that was refused: for the sinks only.
    pub fn attempt(&self, outcome: &'static str) -> Option<String> {
        self.sealed(self.body(None, Some(outcome), Vec::new()))
    }

    /// The record of sealed values that were found not to open: for the sinks only.
    pub fn damaged(&self, fields: &[Arc<str>]) -> Option<String> {
        let changes = fields.iter().map(|field| Change { field, op: "damaged", before: Json::Null, after: Json::Null });
        self.sealed(self.body(None, Some("damaged"), changes.collect()))
    }

    fn body<'a>(
        &'a self,
        commit: Option<CommitId>,
        outcome: Option<&'static str>,
        changes: Vec<Change<'a>>,
    ) -> Body<'a> {
        Body {
            action: self.action,
            actor: self.actor,
            at: self.at.precise().to_string(),
            base: self.base,
            changes,
            commit,
            env: self.environment,
            key: self.keyring.active(self.at),
            outcome,
            session: self.session,
        }
    }

    fn change<'a>(&self, delta: &'a Delta) -> Change<'a> {
        let tell = |plain: &Option<Plain>| match plain {
            None => Json::Null,
            Some(plain) if delta.shown => serde_json::from_str(plain).unwrap_or(Json::Null),
            Some(plain) => self.fingerprint(&delta.path, plain),
        };
        Change {
            field: &delta.path,
            op: if delta.after.is_some() { "set" } else { "unset" },
            before: tell(&delta.before),
            after: tell(&delta.after),
        }
    }

    fn fingerprint(&self, field: &str, plain: &Plain) -> Json {
        Json::String(self.keyring.fingerprint(self.session, field, plain.as_bytes()))
    }

    fn sealed(&self, body: Body<'_>) -> Option<String> {
        let mut record = Vec::with_capacity(RECORD);
        serde_json::to_writer(&mut record, &body).ok()?;
        let mac = self.keyring.mac(&record, self.at).mac;
        record.pop();
        let mut record = String::from_utf8(record).ok()?;
        record.push_str(",\"mac\":\"");
        // Of base64url, with nothing that JSON would escape.
        record.push_str(&mac);
        record.push_str("\"}");
        Some(record)
    }
}

/// The bytes that a record's mac covers: its JSON without `seq`, `revision` and `mac`, members sorted by name at
/// every depth, no white space.
pub fn covered(record: &Json) -> Option<String> {
    let mut record = record.as_object()?.clone();
    for outside in ["seq", "revision", "mac"] {
        record.remove(outside);
    }
    let mut record = Json::Object(record);
    record.sort_all_objects();
    Some(record.to_string())
}
