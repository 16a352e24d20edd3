//! `cloakroom audit`: a session's trail, and whether it is whole.

mod copy;
mod show;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value as Json;

use crate::clock::{Clock, Time};
use crate::handle::Handle;

use super::client::{Client, ClientError, Target};
use super::session::{handle, path};
use super::{FAILED, Output, fail, visible};

/// Records that are asked for at once.
const PAGE: usize = 1000;

const QUIET: Style = Style::new().dimmed();
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
        #[command(flatten)]
        filter: show::Filter,
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
        /// A sink's copy of the records, to hold the trail against: what was renumbered or cut off shows too
        #[arg(long, value_name = "FILE")]
        copy: Option<PathBuf>,
        #[command(flatten)]
        target: Target,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

/// Why it could not be done; one line each.
#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{} cannot be read: {error}", path.display())]
    Copy { path: PathBuf, error: io::Error },
}

impl From<io::Error> for AuditError {
    fn from(error: io::Error) -> Self {
        Self::Client(error.into())
    }
}

pub fn run(args: &AuditArgs) -> ExitCode {
    let out = &mut anstream::stdout().lock();
    let done = match &args.command {
        Command::Show { handle, filter, follow, target, output } => {
            show::show(*handle, filter, *follow, target, *output, out)
        }
        Command::Verify { handle, copy, target, output } => verify(*handle, copy.as_ref(), target, *output, out),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        // Whoever reads it has read enough.
        Err(AuditError::Client(ClientError::Output(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

/// Records of a trail, newest first, for as long as they are `wanted`.
fn newest(client: &Client, handle: Handle, mut wanted: impl FnMut(&Json) -> bool) -> Result<Vec<Json>, ClientError> {
    let (mut records, mut after) = (Vec::new(), String::new());
    loop {
        let mut page = client.ask(Method::GET, &format!("{}/audit?limit={PAGE}{after}", path(handle)), None)?;
        let Some(Json::Array(found)) = page.get_mut("records").map(Json::take) else { break };
        let before = records.len() + found.len();
        records.extend(found.into_iter().take_while(&mut wanted));
        match page.get("next").and_then(Json::as_u64) {
            Some(next) if records.len() == before => after = format!("&after={next}"),
            _ => break,
        }
    }
    Ok(records)
}

fn verify(
    handle: Handle,
    copy: Option<&PathBuf>,
    target: &Target,
    output: Output,
    out: &mut impl Write,
) -> Result<bool, AuditError> {
    let client = target.client()?;
    let mut verdict = client.ask(Method::GET, &format!("{}/audit/verify", path(handle)), None)?;
    let mut whole = verdict.get("whole") == Some(&Json::Bool(true));
    if let Some(path) = copy {
        let copy = copy::read(path, handle).map_err(|error| AuditError::Copy { path: path.clone(), error })?;
        let differences = copy::compare(&newest(&client, handle, |_| true)?, &copy);
        whole &= differences.is_empty();
        let compared = serde_json::json!({ "records": copy.len(), "findings": differences });
        verdict.as_object_mut().map(|verdict| verdict.insert("copy".into(), compared));
    }
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
    let copy = verdict.get("copy");
    for findings in [verdict.get("findings"), copy.and_then(|copy| copy.get("findings"))] {
        for finding in findings.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default() {
            writeln!(out, "  {}", found(finding))?;
        }
    }
    if verdict.get("end_checked") == Some(&Json::Bool(false)) {
        writeln!(out, "the session's record is gone: whether records are missing at the end cannot be told")?;
    }
    match copy.map(|copy| bare(copy.get("records"))) {
        Some(compared) => writeln!(out, "{QUIET}compared with {compared} records of a copy{QUIET:#}"),
        None if whole => writeln!(
            out,
            "{QUIET}somebody who writes to the store and numbers its records anew is found with --copy only{QUIET:#}"
        ),
        None => Ok(()),
    }
}

fn found(finding: &Json) -> String {
    let part = |name: &str| bare(finding.get(name));
    match part("finding").as_str() {
        "altered" => format!("record {} is not what was written", part("seq")),
        "unreadable" => format!("the record {} before the newest cannot be read", part("position")),
        "unknown_key" => format!("record {} was signed under key {}, which is not held", part("seq"), part("key")),
        "missing" if part("from") == part("to") => format!("record {} is gone", part("from")),
        "missing" => format!("records {} to {} are gone", part("from"), part("to")),
        "out_of_place" => format!("record {} stands where another belongs", part("seq")),
        "cut_off" => format!("{} records were written, and {} is the last", part("last_written"), part("last_kept")),
        "not_kept" => format!("record {} of {} stands in the copy alone", part("seq"), part("at")),
        "differs" => format!("record {} of {} differs from its copy", part("seq"), part("at")),
        other => format!("{other}: {}", visible(&finding.to_string())),
    }
}

/// A string without its quotes.
fn bare(json: Option<&Json>) -> String {
    match json {
        Some(Json::String(text)) => visible(text),
        Some(other) => visible(&other.to_string()),
        None => "-".to_owned(),
    }
}

/// A moment in RFC 3339, or so long ago.
fn moment(text: &str) -> Result<Time, &'static str> {
    let ago = humantime::parse_duration(text).ok().map(|length| Clock::system().now().minus(length));
    Time::parse(text).or(ago).ok_or("it is a time such as 2026-11-23T08:00:00Z, or how long ago, such as 2h or 7d")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    pub(super) fn plain(styled: &str) -> String {
        anstream::adapter::strip_str(styled).to_string()
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

    #[test]
    fn moments_are_times_or_lengths() {
        assert_eq!(moment("2026-11-23T08:15:02Z"), Ok(Time(1_795_421_702_000)));
        let hour = Clock::system().now().since(moment("1h").unwrap());
        assert!((3_590..=3_610).contains(&hour.as_secs()), "{hour:?}");
        assert!(moment("yesterday").is_err());
    }
}
