//! `cloakroom session`: sessions of a running sidecar, over its admin API.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgGroup, Args, Subcommand};
use http::Method;
use serde_json::{Map, Value as Json, json};

use crate::admin::place;
use crate::handle::{FIELD_HANDLE_PREFIX, Handle};

use super::client::{Client, ClientError, Target, segment};
use super::{Output, USAGE, fail, visible};

#[derive(Debug, Args)]
pub struct SessionArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Creates a session, and prints the id that its client is to have
    Create {
        /// Values of fields. A value that is JSON is taken as such, any other as a string
        #[arg(value_name = "FIELD=VALUE", value_parser = assignment)]
        fields: Vec<Assignment>,
        /// How long it lives without activity, such as 30m
        #[arg(long, value_name = "DURATION")]
        idle: Option<String>,
        /// How long it lives at most, such as 12h
        #[arg(long, value_name = "DURATION")]
        absolute: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Shows a session, sensitive values as their handles
    Get {
        #[arg(value_parser = handle)]
        handle: Handle,
        #[command(flatten)]
        asked: Asked,
    },
    /// Sets fields of a session, and shows it
    Set {
        #[arg(value_parser = handle)]
        handle: Handle,
        /// Values of fields; null unsets one. A value that is JSON is taken as such, any other as a string
        #[arg(value_name = "FIELD=VALUE", value_parser = assignment, required = true)]
        fields: Vec<Assignment>,
        /// Only if the session is at this revision
        #[arg(long, value_name = "REVISION")]
        if_match: Option<u64>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Revokes a session, a user's sessions and older logins, or a token; done also if it is gone already
    Revoke {
        #[command(flatten)]
        revoked: Revoked,
        #[command(flatten)]
        asked: Asked,
    },
    /// Lists a user's living sessions, oldest first
    List {
        /// The value of the field that says whose session it is
        user: String,
        /// Only those whom tokens of this issuer made
        #[arg(long)]
        issuer: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
}

/// One of the three.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("revoked").required(true)))]
struct Revoked {
    /// One session
    #[arg(value_parser = handle, group = "revoked")]
    handle: Option<Handle>,
    /// All sessions of that user, and tokens of older logins
    #[arg(long, group = "revoked")]
    user: Option<String>,
    /// Only those whom tokens of this issuer made
    #[arg(long, requires = "user")]
    issuer: Option<String>,
    /// Only what is older, in Unix seconds or RFC 3339; now
    #[arg(long, value_name = "TIME", requires = "user")]
    not_before: Option<String>,
    /// One token, by its id
    #[arg(long, group = "revoked", requires = "exp")]
    jti: Option<String>,
    /// When that token expires, in Unix seconds or RFC 3339
    #[arg(long, value_name = "TIME", requires = "jti")]
    exp: Option<String>,
}

#[derive(Debug, Args)]
struct Asked {
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A field and the value that it is to have.
#[derive(Debug, Clone)]
struct Assignment {
    field: String,
    value: Json,
}

pub fn handle(text: &str) -> Result<Handle, &'static str> {
    Handle::parse(text).ok_or("a session's handle is ses_ and 22 characters")
}

fn assignment(text: &str) -> Result<Assignment, &'static str> {
    let (field, value) = text.split_once('=').ok_or("it is FIELD=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Json::String(value.to_owned()));
    if field.is_empty() { Err("the field has no name") } else { Ok(Assignment { field: field.to_owned(), value }) }
}

pub fn run(args: &SessionArgs) -> ExitCode {
    if let Some(twice) = args.command.fields().and_then(clash) {
        anstream::eprintln!("cloakroom: '{}' is given twice", visible(twice));
        return ExitCode::from(USAGE);
    }
    match done(&args.command, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

impl Command {
    fn fields(&self) -> Option<&[Assignment]> {
        match self {
            Self::Create { fields, .. } | Self::Set { fields, .. } => Some(fields),
            Self::Get { .. } | Self::Revoke { .. } | Self::List { .. } => None,
        }
    }
}

/// A field that stands twice, or that stands within another.
fn clash(fields: &[Assignment]) -> Option<&str> {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let pairs = fields.iter().enumerate().flat_map(|(at, one)| fields.iter().take(at).map(move |other| (one, other)));
    let mut clashing = pairs.filter(|(a, b)| within(&a.field, &b.field) || within(&b.field, &a.field));
    clashing.next().map(|(one, _)| one.field.as_str())
}

fn nested(fields: &[Assignment]) -> Json {
    let mut object = Map::new();
    for Assignment { field, value } in fields {
        place(&mut object, field, value.clone());
    }
    Json::Object(object)
}

fn done(command: &Command, out: &mut impl Write) -> Result<(), ClientError> {
    match command {
        Command::Create { fields, idle, absolute, asked } => {
            let lifetime: Map<String, Json> = [("idle", idle), ("absolute", absolute)]
                .into_iter()
                .filter_map(|(name, given)| Some((name.to_owned(), json!(given.as_ref()?))))
                .collect();
            let body = json!({ "fields": nested(fields), "lifetime": lifetime });
            let made = asked.target.client()?.ask(Method::POST, "/v1/sessions", Some(&body))?;
            asked.output.put(out, &made, |out| created(out, &made))?;
        }
        Command::Get { handle, asked } => {
            let session = asked.target.client()?.ask(Method::GET, &path(*handle), None)?;
            asked.output.put(out, &session, |out| shown(out, &session))?;
        }
        Command::Set { handle, fields, if_match, asked } => {
            let body = json!({ "fields": nested(fields) });
            let session = asked.target.client()?.ask_at(Method::PATCH, &path(*handle), Some(&body), *if_match)?;
            asked.output.put(out, &session, |out| shown(out, &session))?;
        }
        Command::Revoke { revoked, asked } => {
            let told = revoke(&asked.target.client()?, revoked)?;
            let name = told.as_str().map(visible).unwrap_or_default();
            asked.output.put(out, &json!({ "revoked": told }), |out| writeln!(out, "{name} is revoked"))?;
        }
        Command::List { user, issuer, asked } => {
            let listed = list(&asked.target.client()?, user, issuer.as_deref())?;
            asked.output.put(out, &listed, |out| listing(out, &listed))?;
        }
    }
    Ok(())
}

pub fn path(handle: Handle) -> String {
    format!("/v1/sessions/{handle}")
}

/// Has it revoked, and says what.
fn revoke(client: &Client, revoked: &Revoked) -> Result<Json, ClientError> {
    let Revoked { handle, user, issuer, not_before, jti, exp } = revoked;
    if let Some(handle) = handle {
        client.ask(Method::DELETE, &path(*handle), None)?;
        return Ok(json!(handle));
    }
    let time = |text: &Option<String>| text.as_ref().map(|text| text.parse::<u64>().map_or(json!(text), Json::from));
    let members = [
        ("user", user.as_ref().map(|user| json!(user))),
        ("issuer", issuer.as_ref().map(|issuer| json!(issuer))),
        ("not_before", time(not_before)),
        ("jti", jti.as_ref().map(|jti| json!(jti))),
        ("exp", time(exp)),
    ];
    let body: Map<_, _> = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    client.ask(Method::POST, "/v1/revocations", Some(&Json::Object(body)))?;
    Ok(json!(user.as_ref().or(jti.as_ref())))
}

fn list(client: &Client, user: &str, issuer: Option<&str>) -> Result<Json, ClientError> {
    let query = issuer.map(|issuer| format!("?issuer={}", segment(issuer))).unwrap_or_default();
    client.ask(Method::GET, &format!("/v1/users/{}/sessions{query}", segment(user)), None)
}

fn text(json: &Json, name: &str) -> String {
    match json.get(name) {
        Some(Json::String(text)) => visible(text),
        Some(Json::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn created(out: &mut impl Write, made: &Json) -> io::Result<()> {
    writeln!(out, "session     {}", text(made, "session"))?;
    writeln!(out, "session id  {}  (the client's credential, shown only here)", text(made, "session_id"))?;
    writeln!(out, "expires     {}", text(made, "expires_at"))?;
    writeln!(out, "set-cookie  {}", text(made, "set_cookie"))
}

fn shown(out: &mut impl Write, session: &Json) -> io::Result<()> {
    writeln!(out, "session      {}", text(session, "session"))?;
    writeln!(out, "revision     {}, schema {}", text(session, "revision"), text(session, "schema"))?;
    writeln!(out, "created      {}", text(session, "created_at"))?;
    writeln!(out, "last active  {}", text(session, "last_active_at"))?;
    writeln!(out, "expires      {}", text(session, "expires_at"))?;
    let mut fields = Vec::new();
    flatten("", session.get("fields").unwrap_or(&Json::Null), &mut fields);
    if !fields.is_empty() {
        writeln!(out)?;
    }
    fields.iter().try_for_each(|(path, value)| writeln!(out, "{path} = {value}"))
}

/// Fields by their dotted paths, as they can be given back; a sensitive value is its bare handle.
fn flatten(group: &str, json: &Json, fields: &mut Vec<(String, String)>) {
    let bare = |name: &str, inner: &Json| match inner.as_str() {
        Some(text) if name == "handle" && text.starts_with(FIELD_HANDLE_PREFIX) => Some(visible(text)),
        _ => None,
    };
    match json {
        Json::Object(members) => {
            for (name, inner) in members {
                match bare(name, inner) {
                    Some(handle) => fields.push((group.to_owned(), handle)),
                    None if group.is_empty() => flatten(name, inner, fields),
                    None => flatten(&format!("{group}.{name}"), inner, fields),
                }
            }
        }
        Json::Null if group.is_empty() => {}
        value => fields.push((visible(group), visible(&value.to_string()))),
    }
}

fn listing(out: &mut impl Write, listed: &Json) -> io::Result<()> {
    let sessions = listed.get("sessions").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    for session in sessions {
        let (handle, revision) = (text(session, "session"), text(session, "revision"));
        let (active, expires) = (text(session, "last_active_at"), text(session, "expires_at"));
        writeln!(out, "{handle}  revision {revision:<5} last active {active}  expires {expires}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Vec<Assignment> {
        words.iter().map(|word| assignment(word).unwrap()).collect()
    }

    #[test]
    fn values_are_json_where_they_parse_and_strings_where_not() {
        let fields = given(&["step=4", "note=a=b", "code=\"4\"", "draft=null", "ui.theme=dark", "ui.tags=[\"a\",1]"]);
        let expected = json!({
            "step": 4, "note": "a=b", "code": "4", "draft": null, "ui": { "theme": "dark", "tags": ["a", 1] },
        });
        assert_eq!(nested(&fields), expected);
        assert!(assignment("step").is_err() && assignment("=4").is_err());
    }

    #[test]
    fn a_field_may_be_given_once() {
        assert_eq!(clash(&given(&["a=1", "b=2", "a=3"])), Some("a"));
        assert_eq!(clash(&given(&["a.b=1", "a=2"])), Some("a"));
        assert_eq!(clash(&given(&["a=1", "ab=2", "c.a=3", "c.b=4"])), None);
    }

    #[test]
    fn a_session_is_shown_field_by_field() {
        let fields = json!({ "email": { "handle": "hdl_x" }, "ui": { "theme": "da\u{9b}rk" }, "step": 4 });
        let mut out = Vec::new();
        shown(&mut out, &json!({ "session": "ses_x", "revision": 2, "fields": fields })).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("revision     2, schema -\n"), "{out}");
        assert!(out.ends_with("\nemail = hdl_x\nui.theme = \"da\\u{9b}rk\"\nstep = 4\n"), "{out}");
    }
}
