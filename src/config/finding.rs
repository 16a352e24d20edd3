use std::fmt;
use std::ops::Range;

use super::Severity;

/// A problem whose place in the text is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// JSON pointer, as in [`super::Problem`].
    pub path: String,
    pub severity: Severity,
    pub message: String,
    pub help: Option<String>,
}

impl Finding {
    pub fn error(span: Range<usize>, message: impl fmt::Display) -> Self {
        Self { span, path: String::new(), severity: Severity::Error, message: message.to_string(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn at_path(mut self, path: String) -> Self {
        self.path = path;
        self
    }
}

/// A word of the file inside a sentence: in backticks, cut short, and without control characters.
pub(super) fn quoted(word: &str) -> String {
    let (shown, more) = cut_short(word).map_or((word, ""), |start| (start, "…"));
    let shown: String = shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("`{shown}{more}`")
}

/// The beginning of a word that is too long to be quoted whole.
pub(super) fn cut_short(word: &str) -> Option<&str> {
    const LONGEST: usize = 60;
    let (end, _) = word.char_indices().nth(LONGEST)?;
    word.get(..end)
}

/// The word of these that was most likely meant.
pub(super) fn meant<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let folded = word.to_lowercase().replace('-', "_");
    let near = |candidate: &str| {
        let distance = strsim::damerau_levenshtein(&folded, candidate);
        (distance <= (candidate.len() / 3).max(1)).then_some(distance)
    };
    known.into_iter().filter_map(|k| near(k).map(|d| (d, k))).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}
