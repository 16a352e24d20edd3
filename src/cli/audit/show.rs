//! A trail as people read it: a day, a record, and a line for each field that changed.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anstyle::Style;
use serde_json::Value as Json;

use crate::cli::client::{Client, Target};
use crate::cli::{Output, visible};
use crate::clock::Time;
use crate::handle::Handle;

use super::{AuditError, CAME, GONE, QUIET, bare, moment, newest};

/// How often a trail that is followed is looked at.
const PULSE: Duration = Duration::from_secs(1);

const NAME: Style = Style::new().bold();

/// Which records are shown, and what of them.
#[derive(Debug, Default, clap::Args)]
pub struct Filter {
    /// Only what is no older: a time, or how long ago, such as 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Time>,
    /// Only changes of this field, or of those below it
    #[arg(long, value_name = "FIELD")]
    field: Option<String>,
    /// Only so many, the newest
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

impl Filter {
    fn reaches(&self, record: &Json) -> bool {
        let Some(since) = self.since else { return true };
        // What says no time is shown: somebody has altered it.
        record.get("at").and_then(Json::as_str).and_then(Time::parse).is_none_or(|at| at >= since)
    }

    /// Leaves of a record what is wanted; none if that is nothing.
    fn pick(&self, mut record: Json) -> Option<Json> {
        let Some(wanted) = &self.field else { return Some(record) };
        let changes = record.get_mut("changes")?.as_array_mut()?;
        changes.retain(|change| {
            let field = change.get("field").and_then(Json::as_str).unwrap_or_default();
            field.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        (!changes.is_empty()).then_some(record)
    }

    /// Newest first becomes oldest first, and what is not wanted is left out.
    fn shown(&self, newest: Vec<Json>) -> Vec<Json> {
        let picked = newest.into_iter().filter_map(|record| self.pick(record));
        let mut shown: Vec<Json> = picked.take(self.limit.unwrap_or(usize::MAX)).collect();
        shown.reverse();
        shown
    }
}

pub fn show(
    handle: Handle,
    filter: &Filter,
    follow: bool,
    target: &Target,
    output: Output,
    out: &mut impl Write,
) -> Result<bool, AuditError> {
    let client = target.client()?;
    let mut page = Page::default();
    let mut last = None;
    loop {
        let (newer, records) = since(&client, handle, filter, last.as_ref())?;
        for record in &records {
            match output {
                Output::Json => writeln!(out, "{record}")?,
                Output::Text => write!(out, "{}", page.told(record))?,
            }
        }
        last = newer.or(last);
        if follow {
            out.flush()?;
            std::thread::sleep(PULSE);
        } else {
            if output == Output::Text {
                write!(out, "{}", page.end())?;
            }
            out.flush()?;
            return Ok(true);
        }
    }
}

/// The newest record, and those that are to be shown after `last`, oldest first; all of them if that one was trimmed
/// in between.
fn since(
    client: &Client,
    handle: Handle,
    filter: &Filter,
    last: Option<&Json>,
) -> Result<(Option<Json>, Vec<Json>), AuditError> {
    let records = newest(client, handle, |record| last != Some(record) && filter.reaches(record))?;
    Ok((records.first().cloned(), filter.shown(records)))
}

/// What was shown so far.
#[derive(Default)]
struct Page {
    day: String,
    /// Records by what they did.
    counts: BTreeMap<String, usize>,
}

impl Page {
    /// One record: a line that says when, what and who, and one for each field, below the day that it is of.
    fn told(&mut self, record: &Json) -> String {
        let text = |name: &str| bare(record.get(name));
        let (base, revision) = (text("base"), text("revision"));
        let revision = if base == revision { format!("revision {revision}") } else { format!("{base} -> {revision}") };
        let at = text("at");
        let (day, time) = at.trim_end_matches('Z').split_once('T').unwrap_or(("-", &at));
        let mut lines = String::new();
        if day != self.day {
            let gap = if self.day.is_empty() { "" } else { "\n" };
            lines.push_str(&format!("{gap}{NAME}{day}{NAME:#}\n"));
            self.day = day.to_owned();
        }
        *self.counts.entry(text("action")).or_default() += 1;
        lines.push_str(&format!(
            "  {QUIET}{time}{QUIET:#}  #{:<4} {NAME}{:<11}{NAME:#} {revision:<12} {}\n",
            text("seq"),
            text("action"),
            who(record.get("actor").unwrap_or(&Json::Null)),
        ));
        lines.push_str(&changes(record));
        lines
    }

    /// How much it was.
    fn end(&self) -> String {
        let total: usize = self.counts.values().sum();
        let counts = self.counts.iter().map(|(action, count)| format!("{count} {action}"));
        let of = counts.collect::<Vec<_>>().join(", ");
        match total {
            0 => format!("{QUIET}no records{QUIET:#}\n"),
            1 => format!("\n{QUIET}1 record: {of}{QUIET:#}\n"),
            _ => format!("\n{QUIET}{total} records: {of}{QUIET:#}\n"),
        }
    }
}

fn changes(record: &Json) -> String {
    let changes = record.get("changes").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let width = changes.iter().map(|change| bare(change.get("field")).len()).max().unwrap_or(0);
    let mut lines = String::new();
    for change in changes {
        let (before, after) = (value(change.get("before")), value(change.get("after")));
        let field = bare(change.get("field"));
        let what = match bare(change.get("op")).as_str() {
            "set" | "unset" => format!("{GONE}{before}{GONE:#} -> {CAME}{after}{CAME:#}"),
            "reseal" => format!("{after} sealed anew"),
            "resolve" => format!("{after} resolved"),
            other => format!("{other} {after}"),
        };
        lines.push_str(&format!("      {field:width$}  {what}\n"));
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

/// A value: a fingerprint stands bare, anything else as JSON.
fn value(json: Option<&Json>) -> String {
    match json {
        Some(Json::String(text)) if text.starts_with("fp:") => visible(text),
        Some(Json::Null) | None => "(none)".to_owned(),
        Some(other) => visible(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::plain;
    use super::*;

    #[test]
    fn a_record_is_shown_as_a_difference_below_its_day() {
        let record = json!({
            "at": "2026-11-23T08:40:11.123Z", "action": "write", "seq": 41, "base": 17, "revision": 18,
            "actor": { "kind": "backend", "route": "chat", "request_id": "r-1" },
            "changes": [
                { "field": "ui.theme", "op": "set", "before": "light", "after": "da\u{1b}rk" },
                { "field": "draft", "op": "unset", "before": "fp:3f2a", "after": null },
            ],
        });
        let own = "  08:40:11.123  #41   write       17 -> 18     backend chat request r-1\n      \
                   ui.theme  \"light\" -> \"da\\u001brk\"\n      draft     fp:3f2a -> (none)\n";
        let mut page = Page::default();
        assert_eq!(plain(&page.told(&record)), format!("2026-11-23\n{own}"));
        assert_eq!(plain(&page.told(&record)), own);
        let next = plain(&page.told(&json!({ "at": "2026-11-24T00:00:00.000Z", "action": "revoke" })));
        assert!(next.starts_with("\n2026-11-24\n  00:00:00.000  #-    revoke"), "{next}");
        assert_eq!(plain(&page.end()), "\n3 records: 1 revoke, 2 write\n");
    }

    #[test]
    fn a_resolution_says_who_and_why() {
        let record = json!({
            "at": "t", "action": "resolve", "seq": 2, "base": 1, "revision": 1,
            "actor": { "kind": "caller", "name": "billing", "purpose": "invoice\n7" },
            "changes": [{ "field": "email", "op": "resolve", "before": "fp:1", "after": "fp:1" }],
        });
        let shown = plain(&Page::default().told(&record));
        let expected =
            "-\n  t  #2    resolve     revision 1   caller billing (invoice\\n7)\n      email  fp:1 resolved\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn one_field_s_history_is_picked_out() {
        let change = |field: &str| json!({ "field": field, "op": "set", "before": null, "after": 1 });
        let record = |fields: &[&str]| json!({ "changes": fields.iter().map(|f| change(f)).collect::<Vec<_>>() });
        let filter = Filter { field: Some("ui".into()), limit: Some(2), ..Filter::default() };
        let newest = vec![record(&["ui.theme", "step"]), record(&["uix"]), record(&["ui"]), record(&["ui.last"])];
        assert_eq!(filter.shown(newest), [record(&["ui"]), record(&["ui.theme"])]);
    }
}
