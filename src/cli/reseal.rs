//! `cloakroom keys reseal` and what rests on each key: over the admin API of a running sidecar.

use std::io::{self, Write};
use std::time::Duration;

use http::Method;
use serde_json::Value as Json;

use super::client::{Client, ClientError, Target};
use super::{Output, visible};

/// How often a running sweep is asked about.
const PULSE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct ResealArgs {
    /// Starts the sweep, or shows how far it is, and does not wait for its end
    #[arg(long)]
    no_wait: bool,
    /// Starts nothing: only shows what rests on each key
    #[arg(long)]
    status: bool,
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Why a sweep did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the sweep was broken off; the sidecar's log says why, and another goes on from there")]
    Stopped,
}

/// Starts the sweep if need be, and writes what rests on each key.
pub fn run(args: &ResealArgs, out: &mut impl Write) -> Result<(), ResealError> {
    let client = args.target.client()?;
    if !args.status {
        client.ask(Method::POST, "/v1/keys/reseal", None)?;
    }
    let keys = if args.no_wait || args.status { listed(&client)? } else { ended(&client)? };
    args.output.put(out, &keys, |out| shown(out, &keys)).map_err(ClientError::from)?;
    if stage(&keys) == "stopped" { Err(ResealError::Stopped) } else { Ok(()) }
}

fn listed(client: &Client) -> Result<Json, ClientError> {
    client.ask(Method::GET, "/v1/keys", None)
}

fn ended(client: &Client) -> Result<Json, ClientError> {
    loop {
        let keys = listed(client)?;
        if stage(&keys) != "running" {
            return Ok(keys);
        }
        std::thread::sleep(PULSE);
    }
}

fn stage(keys: &Json) -> &str {
    keys.pointer("/sweep/state").and_then(Json::as_str).unwrap_or_default()
}

fn shown(out: &mut impl Write, keys: &Json) -> io::Result<()> {
    let part = |json: &Json, name: &str| match json.get(name) {
        Some(Json::String(text)) => visible(text),
        Some(other) => other.to_string(),
        None => "not in the keyring".to_owned(),
    };
    for key in keys.get("keys").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default() {
        let role = if key.get("active") == Some(&Json::Bool(true)) { "  seals" } else { "" };
        let (id, created) = (part(key, "id"), part(key, "created_at"));
        let (values, records) = (part(key, "values"), part(key, "records"));
        writeln!(out, "{id:<8} {created:<20}  {values:>8} values  {records:>8} audit records{role}")?;
    }
    if keys.get("complete") == Some(&Json::Bool(false)) {
        writeln!(out, "the store is too large to be counted at once: these are the first sessions' figures")?;
    }
    let sweep = keys.get("sweep").unwrap_or(&Json::Null);
    let figures = ["sessions", "resealed", "skipped"].map(|name| part(sweep, name));
    let [sessions, resealed, skipped] = figures;
    let state = visible(stage(keys));
    writeln!(out, "sweep {state}: {sessions} sessions looked at, {resealed} values sealed anew, {skipped} skipped")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_shown_with_what_rests_on_them() {
        let k2 =
            json!({ "id": "k2", "created_at": "2026-11-23T08:16:02Z", "active": true, "values": 12, "records": 3 });
        let k1 = json!({ "id": "k1", "active": false, "values": 0, "records": 40 });
        let sweep = json!({ "state": "done", "sessions": 9, "resealed": 12, "skipped": 0 });
        let mut out = Vec::new();
        shown(&mut out, &json!({ "keys": [k2, k1], "complete": true, "sweep": sweep })).unwrap();
        let expected = "k2       2026-11-23T08:16:02Z        12 values         3 audit records  seals\n\
                        k1       not in the keyring           0 values        40 audit records\n\
                        sweep done: 9 sessions looked at, 12 values sealed anew, 0 skipped\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
