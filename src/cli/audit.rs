//! `cloakroom audit`: a session's trail, and whether it is whole.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value as Json;

use crate::handle::Handle;

use super::client::{Client, ClientError, Target};
use super::session::{handle, path};
use super::{FAILED, Output, fail, visible};

/// Records that are asked for at once.
const PAGE: usize = 1000;
/// How often a trail that is followed is looked at.
const PULSE: Duration = Duration::from_secs(1);

const QUIET: Style = Style::new().dimmed();
const NAME: Style = Style::new().bold();
const GONE: Style = AnsiColor::Red.on_default();
const CAME: Style = AnsiColor::Green.on_default();

#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows a session's trail, oldest record first
    Show {
        #[arg(value_parser = handle)]
        handle: Handle,
        /// Goes on showing what is added
        #[arg(long, short)]
        follow: bool,
        #[command(flatten)]
        target: Target,
        /// json prints one record a line
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Says whether a trail is whole, or what was altered, removed or cut off; exit code 1 then
    Verify {
        #[arg(value_parser = handle)]
        handle: Handle,
        #[command(flatten)]
        target: Target,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

pub fn run(args: &AuditArgs) -> ExitCode {
    let out = &mut anstream::stdout().lock();
    let done = match &args.command {
        Command::Show { handle, follow, target, output } => show(*handle, *follow, target, *output, out),
        Command::Verify { handle, target, output } => verify(*handle, target, *output, out),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => fail(error),
    }
}

fn show(
    handle: Handle,
    follow: bool,
    target: &Target,
    output: Output,
    out: &mut impl Write,
) -> Result<bool, ClientError> {
    let client = target.client()?;
    let mut last = None;
    loop {
        for record in since(&client, handle, last.as_ref())? {
            match output {
                Output::Json => writeln!(out, "{record}")?,
                Output::Text => write!(out, "{}", told(&record))?,
            }
            last = Some(record);
        }
        out.flush()?;
        if !follow {
            return Ok(true);
        }
        std::thread::sleep(PULSE);
    }
}

/// The records after `last`, oldest first; all of them if that one was trimmed in between.
fn since(client: &Client, handle: Handle, last: Option<&Json>) -> Result<Vec<Json>, ClientError> {
    let (mut records, mut after) = (Vec::new(), String::new());
    loop {
        let mut page = client.ask(Method::GET, &format!("{}/audit?limit={PAGE}{after}", path(handle)), None)?;
        let Some(Json::Array(found)) = page.get_mut("records").map(Json::take) else { break };
        let before = records.len() + found.len();
        records.extend(found.into_iter().take_while(|record| last != Some(record)));
        match page.get("next").and_then(Json::as_u64) {
            Some(next) if records.len() == before => after = format!("&after={next}"),
            _ => break,
        }
    }
    records.reverse();
    Ok(records)
}

/// One record: a line that says when, what and who, and one for each field.
fn told(record: &Json) -> String {
    let text = |name: &str| bare(record.get(name));
    let (base, revision) = (text("base"), text("revision"));
    let revision = if base == revision { format!("revision {revision}") } else { format!("{base} -> {revision}") };
    let mut lines = format!(
        "{QUIET}{}{QUIET:#}  #{:<4} {NAME}{:<11}{NAME:#} {revision:<12} {}\n",
        text("at"),
        text("seq"),
        text("action"),
        who(record.get("actor").unwrap_or(&Json::Null)),
    );
    let changes = record.get("changes").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let width = changes.iter().map(|change| bare(change.get("field")).len()).max().unwrap_or(0);
    for change in changes {
        let (before, after) = (value(change.get("before")), value(change.get("after")));
        let field = bare(change.get("field"));
        let what = match bare(change.get("op")).as_str() {
            "set" | "unset" => format!("{GONE}{before}{GONE:#} -> {CAME}{after}{CAME:#}"),
            "reseal" => format!("{after} sealed anew"),
            "resolve" => format!("{after} resolved"),
            other => format!("{other} {after}"),
        };
        lines.push_str(&format!("    {field:width$}  {what}\n"));
    }
    lines
}

fn who(actor: &Json) -> String {
    let part = |name: &str| actor.get(name).map(|value| bare(Some(value)));
    let mut words = vec![bare(actor.get("kind"))];
    words.extend(part("route").or_else(|| part("name")));
    words.extend(part("purpose").map(|purpose| format!("({purpose})")));
    words.extend(part("user").map(|user| format!("{QUIET}{user}{QUIET:#}")));
    words.extend(part("request_id").map(|id| format!("{QUIET}request {id}{QUIET:#}")));
    words.join(" ")
}

/// A string without its quotes.
fn bare(json: Option<&Json>) -> String {
    match json {
        Some(Json::String(text)) => visible(text),
        Some(other) => visible(&other.to_string()),
        None => "-".to_owned(),
    }
}

/// A value: a fingerprint stands bare, anything else as JSON.
fn value(json: Option<&Json>) -> String {
    match json {
        Some(Json::String(text)) if text.starts_with("fp:") => visible(text),
        Some(Json::Null) | None => "(none)".to_owned(),
        Some(other) => visible(&other.to_string()),
    }
}

fn verify(handle: Handle, target: &Target, output: Output, out: &mut impl Write) -> Result<bool, ClientError> {
    let verdict = target.client()?.ask(Method::GET, &format!("{}/audit/verify", path(handle)), None)?;
    let whole = verdict.get("whole") == Some(&Json::Bool(true));
    output.put(out, &verdict, |out| judged(out, whole, &verdict))?;
    Ok(whole)
}

fn judged(out: &mut impl Write, whole: bool, verdict: &Json) -> io::Result<()> {
    let records = bare(verdict.get("records"));
    if whole {
        writeln!(out, "{CAME}whole{CAME:#}: {records} records, each as it was written")?;
    } else {
        writeln!(out, "{GONE}not whole{GONE:#}: {records} records")?;
    }
    for finding in verdict.get("findings").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default() {
        writeln!(out, "  {}", found(finding))?;
    }
    if verdict.get("end_checked") == Some(&Json::Bool(false)) {
        writeln!(out, "the session's record is gone: whether records are missing at the end cannot be told")?;
    }
    Ok(())
}

fn found(finding: &Json) -> String {
    let part = |name: &str| bare(finding.get(name));
    match part("finding").as_str() {
        "altered" => format!("record {} is not what was written", part("seq")),
        "unreadable" => format!("the record {} before the newest cannot be read", part("position")),
        "unknown_key" => format!("record {} was signed under key {}, which is not held", part("seq"), part("key")),
        "missing" => format!("records {} to {} are gone", part("from"), part("to")),
        "out_of_place" => format!("record {} stands where another belongs", part("seq")),
        "cut_off" => format!("{} records were written, and {} is the last", part("last_written"), part("last_kept")),
        other => format!("{other}: {}", visible(&finding.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(styled: &str) -> String {
        anstream::adapter::strip_str(styled).to_string()
    }

    #[test]
    fn a_record_is_shown_as_a_difference() {
        let record = json!({
            "at": "2026-11-23T08:40:11.123Z", "action": "write", "seq": 41, "base": 17, "revision": 18,
            "actor": { "kind": "backend", "route": "chat", "request_id": "r-1" },
            "changes": [
                { "field": "ui.theme", "op": "set", "before": "light", "after": "da\u{1b}rk" },
                { "field": "draft", "op": "unset", "before": "fp:3f2a", "after": null },
            ],
        });
        let expected = "2026-11-23T08:40:11.123Z  #41   write       17 -> 18     backend chat request r-1\n    \
                        ui.theme  \"light\" -> \"da\\u001brk\"\n    draft     fp:3f2a -> (none)\n";
        assert_eq!(plain(&told(&record)), expected);
    }

    #[test]
    fn a_resolution_says_who_and_why() {
        let record = json!({
            "at": "t", "action": "resolve", "seq": 2, "base": 1, "revision": 1,
            "actor": { "kind": "caller", "name": "billing", "purpose": "invoice\n7" },
            "changes": [{ "field": "email", "op": "resolve", "before": "fp:1", "after": "fp:1" }],
        });
        let shown = plain(&told(&record));
        assert_eq!(shown, "t  #2    resolve     revision 1   caller billing (invoice\\n7)\n    email  fp:1 resolved\n");
    }

    #[test]
    fn findings_are_sentences() {
        let findings = json!([{ "finding": "altered", "seq": 3 }, { "finding": "missing", "from": 1, "to": 2 }]);
        let mut out = Vec::new();
        let verdict = json!({ "whole": false, "records": 4, "findings": findings, "end_checked": false });
        judged(&mut out, false, &verdict).unwrap();
        let told = plain(&String::from_utf8(out).unwrap());
        let expected =
            "not whole: 4 records\n  record 3 is not what was written\n  records 1 to 2 are gone\nthe session";
        assert!(told.starts_with(expected), "{told}");
    }
}
