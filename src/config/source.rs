use std::ops::Range;
use std::path::PathBuf;

use super::diagnostic::{Diagnostic, Diagnostics};
use super::document::{Entry, Node};
use super::finding::Finding;
use super::lines::Lines;
use super::pointer::{on_one_line, steps};
use super::shape::place;
use super::veil::Veil;
use super::{Problem, Problems, Severity};

/// The file behind a configuration: puts problems that rooms find on their lines.
#[derive(Debug)]
pub struct Source {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) lines: Lines,
    pub(super) root: Option<Node>,
    pub(super) veil: Veil,
    /// What the loader itself has found.
    pub(super) findings: Vec<Finding>,
    /// Paths whose values are stand-ins for what could not be read.
    pub(super) broken: Vec<String>,
    /// The files whose contents stand in values.
    pub(super) referred: Vec<PathBuf>,
}

impl Source {
    /// The files that `${file:PATH}` stands for in it: a change of theirs changes the configuration.
    pub fn referred(&self) -> &[PathBuf] {
        &self.referred
    }

    /// Everything that is wrong with the file, in the order of the lines: what the loader found, and these.
    ///
    /// A path that is not in the file, such as a default's, is placed at its closest ancestor that is. A
    /// problem with something that could not be read is dropped: that it could not be read is said already.
    pub fn diagnose(&self, problems: Problems) -> Diagnostics {
        let findings = self.findings.iter().cloned().chain(self.found(problems)).collect();
        Diagnostics::new(self.most(findings).into_iter().map(|f| self.place(f)).collect())
    }

    /// The first problems of more than anybody reads, errors before warnings, and a last one that counts the others.
    fn most(&self, mut findings: Vec<Finding>) -> Vec<Finding> {
        const MOST: usize = 500;
        let more = findings.len().saturating_sub(MOST);
        if more > 0 {
            findings.sort_by_key(|f| (f.severity == Severity::Warning, f.span.start));
            findings.truncate(MOST);
            let end = self.text.len();
            findings.push(Finding::error(end..end, format_args!("{more} more problems are not shown")));
        }
        findings
    }

    /// Keeps these problems along with what the loader has found.
    pub(super) fn absorb(&mut self, problems: Problems) {
        let found: Vec<Finding> = self.found(problems).collect();
        self.findings.extend(found);
    }

    /// Whether the value at this path was read as it stands, or is a default.
    pub(super) fn has(&self, path: &str) -> bool {
        !self.broken.iter().any(|b| b.len() <= path.len() && on_one_line(b, path))
    }

    fn found(&self, problems: Problems) -> impl Iterator<Item = Finding> {
        let holds = |p: &Problem| !self.broken.iter().any(|b| on_one_line(b, &p.path));
        problems.into_vec().into_iter().filter(holds).map(|p| self.find(p))
    }

    fn find(&self, problem: Problem) -> Finding {
        let span = self.root.as_ref().map_or(0..0, |root| span(root, &problem.path, problem.at_key));
        let Problem { path, severity, message, help, .. } = problem;
        Finding { span, path, severity, message, help }
    }

    fn place(&self, finding: Finding) -> Diagnostic {
        let line = self.lines.number(finding.span.start);
        let range = self.lines.range(line);
        let before = self.text.get(range.start..finding.span.start.min(range.end)).unwrap_or_default();
        Diagnostic {
            file: self.file.clone(),
            line,
            column: before.chars().count() + 1,
            severity: finding.severity,
            message: self.veil.conceal(&finding.message),
            help: finding.help.map(|h| self.veil.conceal(&h)),
            path: finding.path,
            excerpt: Some(self.veil.excerpt(&self.text, &self.lines, &finding.span)),
        }
    }
}

/// The bytes to mark for a problem at this path.
fn span(root: &Node, path: &str, at_key: bool) -> Range<usize> {
    let mut node = root;
    let mut key: Option<&Entry> = None;
    for step in steps(path) {
        let Some(child) = node.child(&step) else { return place(node, key) };
        key = node.entry(&step);
        node = child;
    }
    match key {
        Some(entry) if at_key => entry.key_span.clone(),
        _ => place(node, key),
    }
}

/// A report on a file of which nothing could be read.
pub(super) fn unreadable(file: &str, message: String) -> Diagnostics {
    Diagnostics::new(vec![Diagnostic {
        file: file.into(),
        line: 1,
        column: 1,
        severity: Severity::Error,
        message,
        help: None,
        path: String::new(),
        excerpt: None,
    }])
}
