//! The two forms that figures are written in.

use std::borrow::Cow;

/// How whoever asks wants the figures written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' own text, which everything reads.
    Prometheus,
    OpenMetrics,
}

const OPEN_METRICS: &str = "application/openmetrics-text";

impl Exposition {
    /// The form that an `Accept` field asks for: OpenMetrics where it is named and nothing else is preferred.
    pub fn of(accept: &str) -> Self {
        let mut best = (0.0, Self::Prometheus);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                OPEN_METRICS => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Prometheus,
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse().ok()).unwrap_or(1.0f32);
            if weight > best.0 || weight == best.0 && weight > 0.0 && form == Self::OpenMetrics {
                best = (weight, form);
            }
        }
        best.1
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Rewrites OpenMetrics into this form.
    pub fn write(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Prometheus => prometheus(&open_metrics),
        }
    }
}

/// The samples are the same in both; counters and infos are described by the names of their samples here.
fn prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut described: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        let written: Cow<'_, str> = match line.strip_prefix("# ") {
            None => line.into(),
            Some(comment) => match comment.split_once(' ') {
                Some(("HELP", rest)) => {
                    described = rest.split_once(' ');
                    continue;
                }
                Some(("TYPE", rest)) => {
                    let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                    let (suffix, kind) = match kind {
                        "counter" => ("_total", "counter"),
                        "info" => ("_info", "gauge"),
                        other => ("", other),
                    };
                    let help = described.take().filter(|(of, _)| *of == name).map_or("", |(_, help)| help);
                    format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}").into()
                }
                // Units stand in the names, and the text ends where it ends.
                _ => continue,
            },
        };
        text.push_str(&written);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_open_metrics_gets_it_and_nobody_else() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, form) in [
            ("", Exposition::Prometheus),
            ("*/*", Exposition::Prometheus),
            ("text/html", Exposition::Prometheus),
            ("text/plain", Exposition::Prometheus),
            (prometheus, Exposition::OpenMetrics),
            ("application/openmetrics-text", Exposition::OpenMetrics),
            ("Application/OpenMetrics-Text; q=1, */*", Exposition::OpenMetrics),
            ("application/openmetrics-text;q=0.1, text/plain", Exposition::Prometheus),
            ("application/openmetrics-text;q=0", Exposition::Prometheus),
        ] {
            assert_eq!(Exposition::of(accept), form, "{accept}");
        }
    }

    #[test]
    fn counters_and_infos_are_described_by_their_samples_names() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"y\"} 1\n# HELP i What.\n# TYPE i info\n\
                    i_info{v=\"1\"} 1\n# HELP d_seconds Time.\n# TYPE d_seconds histogram\n# UNIT d_seconds seconds\n\
                    d_seconds_sum 0.5\n# EOF\n";
        let expected = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"y\"} 1\n\
                        # HELP i_info What.\n# TYPE i_info gauge\ni_info{v=\"1\"} 1\n\
                        # HELP d_seconds Time.\n# TYPE d_seconds histogram\nd_seconds_sum 0.5\n";
        assert_eq!(prometheus(open), expected);
    }
}
