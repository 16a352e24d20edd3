//! Audit records: who changed what and when, never the content.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::clock::Time;
use crate::handle::{CommitId, Handle, UserKey};
use crate::headers;
use crate::json::{Object, is_plain};
use crate::keyring::Keyring;
use crate::store::Draft;

use super::delta::Delta;
use super::vault::Plain;

/// The room that a record has at first, in bytes; more is made where it is needed.
const RECORD: usize = 1 << 10;

/// What a commit is called in the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Claims => "claims",
            Self::Write => "write",
            Self::Migrate => "migrate",
            Self::Rotate => "rotate",
            Self::Revoke => "revoke",
            Self::AdminWrite => "admin-write",
            Self::Resolve => "resolve",
            Self::Reseal => "reseal",
            Self::Load => "load",
        }
    }
}

/// Who caused a commit.
#[derive(Debug, Clone)]
pub struct Actor {
    pub kind: ActorKind,
    /// The named caller of the admin API, where handles were resolved.
    pub name: Option<Arc<str>>,
    pub purpose: Option<Arc<str>>,
    pub request_id: Option<Arc<str>>,
    pub route: Option<Arc<str>>,
    pub traceparent: Option<Arc<str>>,
    pub user: Option<UserKey>,
}

impl Actor {
    pub fn new(kind: ActorKind) -> Self {
        Self { kind, route: None, name: None, purpose: None, user: None, request_id: None, traceparent: None }
    }

    /// Its members in the order of their names, as in all that a mac covers.
    fn write(&self, json: &mut Object) {
        json.word(r#","actor":{"kind":""#, self.kind.name());
        let trace_id = self.traceparent.as_deref().map(headers::trace_id);
        for (before, value) in [
            (r#","name":""#, self.name.as_deref()),
            (r#","purpose":""#, self.purpose.as_deref()),
            (r#","request_id":""#, self.request_id.as_deref()),
            (r#","route":""#, self.route.as_deref()),
            (r#","trace_id":""#, trace_id),
        ] {
            value.into_iter().for_each(|value| json.text(before, value));
        }
        if let Some(user) = self.user {
            json.word(r#","user":""#, &user.text());
        }
        json.put("}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl ActorKind {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Admin => "admin",
            Self::Caller => "caller",
            Self::Cloakroom => "cloakroom",
        }
    }
}

/// What became of one field.
struct Change<'a> {
    field: &'a str,
    op: &'static str,
    before: Told,
    after: Told,
}

/// What is told of a value, as JSON.
type Told = Cow<'static, str>;

const NOTHING: Told = Cow::Borrowed("null");

/// What makes an audit record, apart from its changes.
pub struct Facts<'a> {
    pub keyring: Arc<Keyring>,
    pub environment: &'a str,
    /// None for what was asked for without one, and so was refused.
    pub session: Option<Handle>,
    pub at: Time,
    pub action: Action,
    /// The revision that the change was based on.
    pub base: u64,
    pub actor: &'a Actor,
}

impl Facts<'_> {
    /// The record of a commit, for the store to complete.
    pub fn draft(&self, commit: CommitId, deltas: &[Delta]) -> Option<Draft> {
        Draft::new(self.sealed(Some(commit), None, deltas.iter().map(|delta| self.change(delta))))
    }

    /// The record of a commit that did something with sensitive values and left them what they are.
    pub fn draft_untouched(&self, commit: CommitId, op: &'static str, values: &[(&str, &Plain)]) -> Option<Draft> {
        let changes = values.iter().map(|&(field, plain)| {
            let same = self.fingerprint(field, plain);
            Change { field, op, before: same.clone(), after: same }
        });
        Draft::new(self.sealed(Some(commit), None, changes))
    }

    /// The record of a write-back that was refused: for the sinks only.
    pub fn attempt(&self, outcome: &'static str) -> String {
        self.sealed(None, Some(outcome), std::iter::empty())
    }

    /// The record of sealed values that were found not to open: for the sinks only.
    pub fn damaged(&self, fields: &[Arc<str>]) -> String {
        let changes = fields.iter().map(|field| Change { field, op: "damaged", before: NOTHING, after: NOTHING });
        self.sealed(None, Some("damaged"), changes)
    }

    fn change<'a>(&self, delta: &'a Delta) -> Change<'a> {
        let tell = |plain: &Option<Plain>| match plain {
            None => NOTHING,
            Some(plain) if delta.shown => shown(plain),
            Some(plain) => self.fingerprint(&delta.path, plain),
        };
        Change {
            field: &delta.path,
            op: if delta.after.is_some() { "set" } else { "unset" },
            before: tell(&delta.before),
            after: tell(&delta.after),
        }
    }

    fn fingerprint(&self, field: &str, plain: &Plain) -> Told {
        let Some(session) = self.session else { return NOTHING };
        // Nothing in it needs escaping.
        ["\"", &self.keyring.fingerprint(session, field, plain.as_bytes()), "\""].concat().into()
    }

    /// All of a record but `seq` and `revision`, which the store adds.
    ///
    /// What the mac covers is written first and once, with its members in the order of their names: to read it again and
    /// sort it takes 45,000 instructions, and 7,000 by way of serde (callgrind); so it is 4,000.
    fn sealed<'a>(
        &self,
        commit: Option<CommitId>,
        outcome: Option<&'static str>,
        changes: impl Iterator<Item = Change<'a>>,
    ) -> String {
        let mut json = Object::begin(r#"{"action":""#, RECORD);
        json.word("", self.action.name());
        self.actor.write(&mut json);
        json.word(r#","at":""#, &self.at.precise().to_string());
        json.number(r#","base":"#, self.base);
        json.put(r#","changes":["#);
        for (at, change) in changes.enumerate() {
            let before = if at == 0 { r#"{"after":"# } else { r#",{"after":"# };
            [before, &change.after, r#","before":"#, &change.before].into_iter().for_each(|part| json.put(part));
            json.text(r#","field":""#, change.field);
            json.word(r#","op":""#, change.op);
            json.put("}");
        }
        json.put("]");
        if let Some(commit) = commit {
            json.word(r#","commit":""#, &commit.text());
        }
        json.text(r#","env":""#, self.environment);
        json.text(r#","key":""#, self.keyring.active(self.at));
        if let Some(outcome) = outcome {
            json.word(r#","outcome":""#, outcome);
        }
        if let Some(session) = self.session {
            json.word(r#","session":""#, &session.text());
        }
        json.put("}");
        let mut record = json.into_text();
        let mac = self.keyring.mac(record.as_bytes(), self.at).mac;
        record.pop();
        // Of base64url, with nothing that JSON would escape.
        [",\"mac\":\"", &mac, "\"}"].into_iter().for_each(|part| record.push_str(part));
        record
    }
}

/// A JSON text as it would be written again by whoever checks the record.
fn shown(json: &str) -> Told {
    if is_usual(json) {
        return json.to_owned().into();
    }
    serde_json::from_str::<Json>(json).map_or(NOTHING, |shown| shown.to_string().into())
}

/// Whether a JSON text can be written in no other way: a string without escapes, or a number of few digits.
fn is_usual(json: &str) -> bool {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(text) => is_plain(text),
        None => {
            (1..=15).contains(&json.len()) && json.bytes().all(|byte| byte.is_ascii_digit()) && !json.starts_with('0')
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_usual_would_be_written_the_same(json in "\"[a-z\\\\\"é\u{1}]{0,4}\"|[0-9.e-]{0,17}") {
            let again = serde_json::from_str::<Json>(&json).map(|json| json.to_string());
            if is_usual(&json) {
                proptest::prop_assert_eq!(again.unwrap(), json);
            }
        }
    }

    #[test]
    fn the_usual_is_told_from_the_rest() {
        for (json, usual) in [
            ("\"dark\"", true),
            ("\"\"", true),
            ("\"é\"", true),
            ("17", true),
            ("999999999999999", true),
            ("\"a\\u0062\"", false),
            ("\"", false),
            ("0", false),
            ("007", false),
            ("1e3", false),
            ("", false),
            ("[1]", false),
        ] {
            assert_eq!(is_usual(json), usual, "{json}");
        }
    }
}
