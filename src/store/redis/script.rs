//! The scripts that run on the server, and what they are asked.

use std::sync::Arc;

use redis::Cmd;
use serde::Serialize;

use super::layout;
use crate::clock::Time;
use crate::handle::{Birth, CommitId, SecretHash, UserKey};
use crate::store::apply::REMEMBERED;
use crate::store::{Change, Commit, Effect, Growth, Record, Replace, Resealed, TrailBounds};

/// Records of a trail that are looked through for a commit whose answer was lost: more than are written to one session
/// while anybody waits for an answer.
const LOOK_BACK: usize = 4096;

/// What a script is told last where it may have been called before with the same arguments.
const AGAIN: &str = "again";

/// The bytes of a command's short words: its name, the number of keys, `again`.
const SHORT: usize = 32;
/// The room that a commit has at first; more is made where it is needed.
const ASKED: usize = 1 << 10;

/// A script, called by its digest.
pub(super) struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, digest: redis::Script::new(text).get_hash().to_owned() }
    }

    pub fn call<'a>(&'a self, keys: &'a [&'a str], arguments: &'a [&'a str]) -> Call<'a> {
        Call { script: self, keys, arguments }
    }
}

/// A call of a script; by its text where the server does not know it, which has it know it from then on.
pub(super) struct Call<'a> {
    script: &'a Script,
    keys: &'a [&'a str],
    arguments: &'a [&'a str],
}

impl Call<'_> {
    /// The call as it is sent. A script that is asked again, since its answer was lost, is told so.
    pub fn command(&self, by_text: bool, again: bool) -> Cmd {
        let (name, script) = if by_text { ("EVAL", self.script.text) } else { ("EVALSHA", &*self.script.digest) };
        let words = || self.keys.iter().chain(self.arguments);
        let bytes: usize = words().map(|word| word.len()).sum();
        let mut command = Cmd::with_capacity(4 + words().count(), bytes + script.len() + SHORT);
        command.arg(name).arg(script).arg(self.keys.len()).arg(self.keys).arg(self.arguments);
        if again {
            command.arg(AGAIN);
        }
        command
    }
}

/// All scripts there are.
pub(super) struct Scripts {
    pub commit: Script,
    pub touch: Script,
    pub list: Script,
    pub revoke: Script,
    pub mark: Script,
    pub take: Script,
    pub probe: Script,
}

impl Scripts {
    pub fn new() -> Self {
        Self {
            commit: Script::new(include_str!("commit.lua")),
            touch: Script::new(include_str!("touch.lua")),
            list: Script::new(include_str!("list.lua")),
            revoke: Script::new(include_str!("revoke.lua")),
            mark: Script::new(include_str!("mark.lua")),
            take: Script::new(include_str!("take.lua")),
            probe: Script::new(include_str!("probe.lua")),
        }
    }
}

/// A commit, as its script reads it. What the script only keeps is text, so that no digit is lost.
#[derive(Serialize)]
struct Asked<'a> {
    id: CommitId,
    now: Time,
    keep: u32,
    retain: u128,
    remember: usize,
    look_back: usize,
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    birth: Option<Birth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_until: Option<String>,
    detail: Detail<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
    None {},
    Create(Box<CreateAsked<'a>>),
    Change(Box<ChangeAsked<'a>>),
    Reseal { values: Vec<[&'a str; 3]> },
}

#[derive(Serialize)]
struct CreateAsked<'a> {
    hash: Vec<String>,
    revision: u64,
    seq: u64,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<u64>,
    /// The last record of the session in whose place this one comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'a str>,
}

#[derive(Serialize)]
struct ChangeAsked<'a> {
    base: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    own: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_match: Option<u64>,
    set: &'a [(Arc<str>, Arc<str>)],
    unset: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims_at: Option<u64>,
    /// Nobody, if empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotate: Option<RotateAsked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    growth: Option<Growth>,
}

#[derive(Serialize)]
struct RotateAsked {
    current: SecretHash,
    next: SecretHash,
    grace_until: String,
}

/// The commit as JSON; none if it cannot be written so, which no commit is.
pub(super) fn asked(commit: &Commit, bounds: TrailBounds) -> Option<String> {
    let (effect, birth, stands_until, detail) = parts(&commit.effect);
    let asked = Asked {
        id: commit.id,
        now: commit.now,
        keep: bounds.keep,
        retain: bounds.retain.as_millis(),
        remember: REMEMBERED,
        look_back: LOOK_BACK,
        effect,
        birth,
        stands_until: stands_until.map(|time| time.0.to_string()),
        detail,
    };
    let mut text = Vec::with_capacity(ASKED);
    serde_json::to_writer(&mut text, &asked).ok()?;
    String::from_utf8(text).ok()
}

fn parts(effect: &Effect) -> (&'static str, Option<Birth>, Option<Time>, Detail<'_>) {
    match effect {
        Effect::Create(record) => ("create", None, None, create_asked(record, None)),
        Effect::Replace(asked) => {
            let Replace { birth, record, ended } = &**asked;
            ("replace", Some(*birth), None, create_asked(record, Some(&ended.0)))
        }
        Effect::Change(change) => ("change", Some(change.base.birth), change.end, change_asked(change)),
        Effect::Revoke { birth, until } => ("revoke", *birth, Some(*until), Detail::None {}),
        Effect::Note { birth } => ("note", Some(*birth), None, Detail::None {}),
        Effect::Reseal { birth, values } => {
            ("reseal", Some(*birth), None, Detail::Reseal { values: values.iter().map(resealed).collect() })
        }
    }
}

fn create_asked<'a>(record: &Record, ended: Option<&'a str>) -> Detail<'a> {
    Detail::Create(Box::new(CreateAsked {
        hash: layout::encode(record),
        revision: record.revision,
        seq: record.seq,
        user: user_text(record.user),
        login: record.proof.token().and_then(|token| token.login),
        ended,
    }))
}

fn resealed(value: &Resealed) -> [&str; 3] {
    [&value.path, &value.before, &value.after]
}

fn change_asked(change: &Change) -> Detail<'_> {
    let rotate = change.rotate.as_ref().map(|rotate| RotateAsked {
        current: rotate.current,
        next: rotate.next,
        grace_until: rotate.grace_until.0.to_string(),
    });
    Detail::Change(Box::new(ChangeAsked {
        base: change.base.revision,
        own: change.base.own,
        if_match: change.if_match,
        set: &change.set,
        unset: &change.unset,
        schema: change.schema,
        claims_at: change.claims_at,
        user: change.user.map(user_text),
        rotate,
        growth: change.growth,
    }))
}

fn user_text(user: Option<UserKey>) -> String {
    user.map(|user| user.to_string()).unwrap_or_default()
}
