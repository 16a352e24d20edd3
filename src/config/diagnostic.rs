//! Problems as an editor would show them, and as a machine reads them.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};
use serde_json::{Value, json};

use super::Severity;

/// One problem at its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub severity: Severity,
    pub message: String,
    pub help: Option<String>,
    /// JSON pointer to the value, such as `/routes/0/match/path`; empty for the whole file.
    pub path: String,
    pub(super) excerpt: Option<Excerpt>,
}

/// The offending line, with `…` for what must not be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub line: String,
    /// Bytes of `line`.
    pub marked: Range<usize>,
}

/// All problems of one file, in the order of their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    pub(super) fn new(mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|d| (d.line, d.column));
        let mut kept: Vec<Diagnostic> = Vec::with_capacity(diagnostics.len());
        for diagnostic in diagnostics {
            let place = (diagnostic.line, diagnostic.column);
            let here = kept.iter().rev().take_while(|k| (k.line, k.column) == place);
            if !here.into_iter().any(|k| k.message == diagnostic.message) {
                kept.push(diagnostic);
            }
        }
        Self(kept)
    }

    /// True if anything is worse than a warning.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// Every problem with its line and a mark under the place, a blank line between two.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let pictures: Vec<String> = self.0.iter().map(|d| d.picture(&renderer) + "\n").collect();
        pictures.join("\n")
    }

    /// `[{ "file", "line", "column", "severity", "message", "help", "path" }]`
    pub fn to_json(&self) -> Value {
        self.0.iter().map(Diagnostic::to_json).collect()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl Diagnostic {
    fn to_json(&self) -> Value {
        json!({
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "severity": self.severity.word(),
            "message": self.message,
            "help": self.help,
            "path": self.path,
        })
    }

    fn picture(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(normalize_untrusted_str(&self.message)));
        group = match &self.excerpt {
            Some(excerpt) => group.element(self.snippet(excerpt)),
            None => group.element(Origin::path(&self.file)),
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(normalize_untrusted_str(help)));
        }
        let picture = renderer.render(&[group]);
        self.excerpt.iter().fold(picture, |picture, excerpt| self.true_column(&picture, excerpt))
    }

    fn snippet<'d>(&'d self, excerpt: &'d Excerpt) -> Snippet<'d, Annotation<'d>> {
        let mark = AnnotationKind::Primary.span(excerpt.marked.clone());
        Snippet::source(&excerpt.line).path(&self.file).line_start(self.line).annotation(mark)
    }

    /// The renderer counts columns in the line that it shows; the file's differ where something is hidden before the mark.
    fn true_column(&self, picture: &str, excerpt: &Excerpt) -> String {
        let before = excerpt.line.get(..excerpt.marked.start).unwrap_or_default();
        let place = |column: usize| format!("{}:{}:{column}", normalize_untrusted_str(&self.file), self.line);
        picture.replacen(&place(before.chars().count() + 1), &place(self.column), 1)
    }
}
