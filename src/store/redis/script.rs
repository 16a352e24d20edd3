//! The scripts that run on the server, and what they are asked.

use redis::Cmd;

use super::layout;
use crate::clock::Time;
use crate::handle::UserKey;
use crate::json::Object;
use crate::store::apply::REMEMBERED;
use crate::store::{Change, Commit, Effect, Growth, Record, TrailBounds};

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

/// A commit as JSON, as its script reads it. What the script only keeps is text, so that no digit is lost.
pub(super) fn asked(commit: &Commit, bounds: TrailBounds) -> String {
    let mut json = Object::begin(r#"{"id":""#, ASKED);
    json.word("", &commit.id.text());
    json.number(r#","now":"#, commit.now.0);
    json.number(r#","keep":"#, bounds.keep.into());
    json.number(r#","retain":"#, bounds.retain.as_millis() as u64);
    json.number(r#","remember":"#, REMEMBERED as u64);
    json.number(r#","look_back":"#, LOOK_BACK as u64);
    let (effect, birth, stands_until) = match &commit.effect {
        Effect::Create(_) => ("create", None, None),
        Effect::Replace(asked) => ("replace", Some(asked.birth), None),
        Effect::Change(change) => ("change", Some(change.base.birth), change.end),
        Effect::Revoke { birth, until } => ("revoke", *birth, Some(*until)),
        Effect::Note { birth } => ("note", Some(*birth), None),
        Effect::Reseal { birth, .. } => ("reseal", Some(*birth), None),
    };
    json.word(r#","effect":""#, effect);
    if let Some(birth) = birth {
        json.word(r#","birth":""#, &birth.text());
    }
    if let Some(until) = stands_until {
        time(&mut json, r#","stands_until":""#, until);
    }
    match &commit.effect {
        Effect::Create(record) => put_record(&mut json, record),
        Effect::Replace(asked) => {
            put_record(&mut json, &asked.record);
            // The last record of the session in whose place this one comes.
            json.text(r#","ended":""#, &asked.ended.0);
        }
        Effect::Change(change) => put_change(&mut json, change),
        Effect::Reseal { values, .. } => {
            let values = values.iter().map(|value| [&*value.path, &value.before, &value.after]);
            put_lists(&mut json, r#","values":["#, values);
        }
        Effect::Revoke { .. } | Effect::Note { .. } => {}
    }
    json.put("}");
    json.into_text()
}

fn put_record(json: &mut Object, record: &Record) {
    json.put(r#","hash":["#);
    for (at, word) in layout::encode(record).iter().enumerate() {
        json.text(if at == 0 { "\"" } else { ",\"" }, word);
    }
    json.number(r#"],"revision":"#, record.revision);
    json.number(r#","seq":"#, record.seq);
    put_user(json, record.user);
    if let Some(login) = record.proof.token().and_then(|token| token.login) {
        json.number(r#","login":"#, login);
    }
}

fn put_change(json: &mut Object, change: &Change) {
    json.number(r#","base":"#, change.base.revision);
    let schema = change.schema.map(u64::from);
    for (before, value) in [
        (r#","own":"#, change.base.own),
        (r#","if_match":"#, change.if_match),
        (r#","schema":"#, schema),
        (r#","claims_at":"#, change.claims_at),
    ] {
        value.into_iter().for_each(|value| json.number(before, value));
    }
    put_lists(json, r#","set":["#, change.set.iter().map(|(path, value)| [&**path, value]));
    json.put(r#","unset":["#);
    for (at, path) in change.unset.iter().enumerate() {
        json.text(if at == 0 { "\"" } else { ",\"" }, path);
    }
    json.put("]");
    if let Some(user) = change.user {
        put_user(json, user);
    }
    if let Some(rotate) = &change.rotate {
        json.word(r#","rotate":{"current":""#, &rotate.current.text());
        json.word(r#","next":""#, &rotate.next.text());
        time(json, r#","grace_until":""#, rotate.grace_until);
        json.put("}");
    }
    if let Some(Growth { from, at, to, most }) = change.growth {
        for (before, value) in
            [(r#","growth":{"from":"#, from), (r#","at":"#, at), (r#","to":"#, to), (r#","most":"#, most)]
        {
            json.number(before, value);
        }
        json.put("}");
    }
}

/// Lists of strings, in a list.
fn put_lists<'a, const N: usize>(json: &mut Object, before: &str, lists: impl Iterator<Item = [&'a str; N]>) {
    json.put(before);
    for (at, list) in lists.enumerate() {
        for (n, word) in list.into_iter().enumerate() {
            let before = match (n, at) {
                (0, 0) => "[\"",
                (0, _) => ",[\"",
                _ => ",\"",
            };
            json.text(before, word);
        }
        json.put("]");
    }
    json.put("]");
}

/// Nobody, if empty.
fn put_user(json: &mut Object, user: Option<UserKey>) {
    match user {
        Some(user) => json.word(r#","user":""#, &user.text()),
        None => json.word(r#","user":""#, ""),
    }
}

fn time(json: &mut Object, before: &str, time: Time) {
    json.word(before, itoa::Buffer::new().format(time.0));
}
