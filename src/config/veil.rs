//! Keeps secrets out of the lines that are shown and out of the sentences about them.

use std::ops::Range;

use zeroize::Zeroizing;

use super::diagnostic::Excerpt;
use super::document::{Kind, Node, Origin};
use super::finding::cut_short;
use super::lines::Lines;

const HIDDEN: &str = "…";

/// What must not be shown.
#[derive(Debug, Default)]
pub(super) struct Veil {
    /// Bytes of the text.
    spans: Vec<Range<usize>>,
    /// What came by reference, longest first.
    values: Vec<Zeroizing<String>>,
}

impl Veil {
    /// Hides what stands under a key that sounds like a secret, and the passwords in URLs.
    pub fn over(root: &Node, text: &str, mut values: Vec<Zeroizing<String>>) -> Self {
        let cut: Vec<_> = values.iter().filter_map(|v| cut_short(v)).map(|v| Zeroizing::new(v.to_owned())).collect();
        values.extend(cut);
        values.retain(|v| !v.trim().is_empty());
        values.sort_by_key(|v| std::cmp::Reverse(v.len()));
        let mut veil = Self { spans: Vec::new(), values };
        veil.search(root, text);
        veil
    }

    /// Hides by looks alone, for text that is no YAML.
    pub fn over_lines(text: &str, lines: &Lines) -> Self {
        let mut veil = Self::default();
        let mut open = Open::Nothing;
        for number in 1..=lines.number(text.len()) {
            let range = lines.range(number);
            let line = text.get(range.clone()).unwrap_or_default();
            open = veil.line(line, range.start, open);
        }
        veil
    }

    /// Hides every scalar below this node that is written out.
    pub fn hide(&mut self, node: &Node) {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.origin == Origin::Reference => {}
            Kind::Scalar(_) | Kind::Refused => self.spans.push(node.span.clone()),
            Kind::List { items, .. } => items.iter().for_each(|i| self.hide(i)),
            Kind::Map { entries, .. } => entries.iter().for_each(|e| self.hide(&e.value)),
        }
    }

    fn search(&mut self, node: &Node, text: &str) {
        match &node.kind {
            Kind::Scalar(_) | Kind::Refused => {
                let raw = text.get(node.span.clone()).unwrap_or_default();
                self.spans.extend(password(raw, node.span.start));
            }
            Kind::List { items, .. } => items.iter().for_each(|i| self.search(i, text)),
            Kind::Map { entries, .. } => {
                for entry in entries {
                    if secretive(&entry.key) {
                        self.hide(&entry.value);
                    }
                    self.search(&entry.value, text);
                }
            }
        }
    }

    /// Hides what looks secret on this line; returns what is left open for the next.
    fn line(&mut self, line: &str, start: usize, open: Open) -> Open {
        let indent = line.len() - line.trim_start().len();
        let goes_on = match open {
            Open::Nothing => false,
            Open::Quote(..) => true,
            Open::Block(column) => indent > column || (indent == column && line.trim_start().starts_with('-')),
        };
        if line.trim().is_empty() {
            return open;
        }
        if goes_on {
            self.spans.push(start + indent..start + line.len());
            return match open {
                Open::Quote(quote, column) if line.contains(quote) => Open::Block(column),
                _ => open,
            };
        }
        self.spans.extend(password(line, start));
        let Some((column, value)) = secretive_value(line) else { return Open::Nothing };
        self.spans.push(start + value..start + line.len());
        let written = line.get(value..).unwrap_or_default();
        match written.chars().next() {
            Some(quote @ ('"' | '\'')) if written.matches(quote).count() < 2 => Open::Quote(quote, column),
            _ => Open::Block(column),
        }
    }

    /// A sentence without anything that came by reference.
    pub fn conceal(&self, sentence: &str) -> String {
        let mut clear = sentence.to_owned();
        for value in &self.values {
            if clear.contains(value.as_str()) {
                clear = without(&clear, value);
            }
        }
        clear
    }

    /// The line that the span begins on, with `…` for what must not be shown, cut to what is near the span.
    pub fn excerpt(&self, text: &str, lines: &Lines, span: &Range<usize>) -> Excerpt {
        let line = lines.range(lines.number(span.start));
        let from = span.start.min(line.end);
        let to = span.end.clamp(from, line.end);
        let mut shown = Shown { text, out: String::new(), from, to, marked: None..None };
        let mut at = line.start;
        for hidden in self.hidden(&line) {
            shown.copy(at..hidden.start.max(at));
            shown.hide(hidden.start.max(at)..hidden.end.max(at));
            at = hidden.end.max(at);
        }
        shown.copy(at..line.end);
        shown.finish()
    }

    fn hidden(&self, line: &Range<usize>) -> Vec<Range<usize>> {
        let meets = |s: &&Range<usize>| s.start < line.end && s.end > line.start;
        let clip = |s: &Range<usize>| s.start.max(line.start)..s.end.min(line.end);
        let mut hidden: Vec<_> = self.spans.iter().filter(meets).map(clip).collect();
        hidden.sort_by_key(|s| (s.start, s.end));
        hidden
    }
}

/// Where a secret may go on, in text that is read by looks alone.
#[derive(Debug, Clone, Copy)]
enum Open {
    Nothing,
    /// On every line that is indented further than this column.
    Block(usize),
    /// Up to this quote, whatever the indentation.
    Quote(char, usize),
}

/// The columns of the first key on this line that sounds like a secret, and of its value.
fn secretive_value(line: &str) -> Option<(usize, usize)> {
    line.match_indices(':').find_map(|(colon, _)| {
        let before = line.get(..colon)?;
        let column = before.rfind(['{', ',', '[', ' ', '\t']).map_or(0, |at| at + 1);
        let key = before.get(column..)?.trim_matches(['"', '\'']);
        let after = line.get(colon + 1..)?;
        secretive(key).then(|| (column, line.len() - after.trim_start().len()))
    })
}

/// A line on its way to being shown, and where the mark goes in it.
struct Shown<'t> {
    text: &'t str,
    out: String,
    from: usize,
    to: usize,
    marked: Range<Option<usize>>,
}

impl Shown<'_> {
    fn copy(&mut self, part: Range<usize>) {
        let base = self.out.len();
        self.mark(&part, |at| base + (at - part.start));
        self.out.push_str(self.text.get(part).unwrap_or_default().trim_end_matches('\r'));
    }

    fn hide(&mut self, part: Range<usize>) {
        if part.is_empty() {
            return;
        }
        let base = self.out.len();
        let end = base + HIDDEN.len();
        self.mark(&part, |at| if at == part.start { base } else { end });
        if self.from > part.start && self.from < part.end {
            self.marked.start = Some(base);
        }
        self.out.push_str(HIDDEN);
    }

    fn mark(&mut self, part: &Range<usize>, place: impl Fn(usize) -> usize) {
        if self.marked.start.is_none() && (part.start..=part.end).contains(&self.from) {
            self.marked.start = Some(place(self.from));
        }
        if (part.start..=part.end).contains(&self.to) {
            self.marked.end = Some(place(self.to));
        }
    }

    fn finish(self) -> Excerpt {
        const BEFORE: usize = 80;
        const LONGEST: usize = 240;
        let length = self.out.len();
        let start = self.marked.start.unwrap_or(length).min(length);
        let end = self.marked.end.unwrap_or(length).clamp(start, length);
        if length <= LONGEST {
            return Excerpt { line: self.out, marked: start..end };
        }
        let left = self.out.floor_char_boundary(start.saturating_sub(BEFORE));
        let right = self.out.floor_char_boundary(left + LONGEST).max(start);
        let line = self.out.get(left..right).unwrap_or_default().to_owned();
        Excerpt { marked: start - left..end.min(right) - left, line }
    }
}

/// True of keys whose values are secrets, also where they are misspelt or not known at all.
pub(super) fn secretive(key: &str) -> bool {
    const ENDINGS: [&str; 10] =
        ["token", "tokens", "secret", "secrets", "password", "passwd", "pwd", "passphrase", "private_key", "api_key"];
    const WHOLE: [&str; 3] = ["keys", "k", "apikey"];
    const LONGEST: usize = 64;
    let key = key.to_lowercase().replace('-', "_");
    ENDINGS.iter().any(|e| key.ends_with(e))
        || WHOLE.contains(&key.as_str())
        || (key.len() <= LONGEST
            && ["token", "secret", "password", "client_secret"]
                .iter()
                .any(|s| strsim::damerau_levenshtein(&key, s) < 2))
}

/// Whether a password in a URL is written out.
pub(super) fn shows_password(raw: &str) -> bool {
    let shown = password(raw, 0).filter(|range| !range.is_empty());
    shown.is_some_and(|range| raw.get(..range.start).is_some_and(|before| before.ends_with(':')))
}

/// The password in a URL, or the user where there is no password.
fn password(raw: &str, start: usize) -> Option<Range<usize>> {
    let begin = raw.find("://")? + 3;
    let end = raw.rfind('@').filter(|at| *at > begin)?;
    let user = raw.get(begin..end)?;
    let secret = user.find(':').map_or(begin, |colon| begin + colon + 1);
    let shown = raw.get(secret..end)?;
    let reference = shown.starts_with("${") && shown.ends_with('}') && shown.matches('}').count() == 1;
    (!reference).then_some(start + secret..start + end)
}

/// The sentence with every occurrence of the value hidden; a short value counts only where it is a word.
fn without(sentence: &str, value: &str) -> String {
    const SHORT: usize = 4;
    let mut out = String::new();
    let mut rest = sentence;
    while let Some(at) = rest.find(value) {
        let (before, from) = rest.split_at(at);
        let after = from.get(value.len()..).unwrap_or_default();
        let part_of_word = before.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
        out.push_str(before);
        out.push_str(if value.len() < SHORT && part_of_word { value } else { HIDDEN });
        rest = after;
    }
    out.push_str(rest);
    out
}
