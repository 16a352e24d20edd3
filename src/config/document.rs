//! Text into a tree whose every node knows where it stands.
//!
//! The reading is YAML 1.2's core schema, one document, no tags but `!!str`, no merge keys. Aliases are
//! copies, counted like everything else, so that a small file cannot stand for a large tree.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, StrInput, StructureStyle, Tag, options};

use super::finding::{Finding, quoted};
use super::lines::Lines;
use super::pointer::Pointer;

/// How deeply lists and mappings may lie in each other; the format itself needs eight levels.
const DEPTH: usize = 32;
/// How many values a file may stand for, aliases counted each time.
const NODES: usize = 50_000;

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Bytes in the text; of an alias, those of what it names.
    pub span: Range<usize>,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Scalar(Scalar),
    List {
        items: Vec<Node>,
        block: bool,
    },
    Map {
        entries: Vec<Entry>,
        block: bool,
    },
    /// Reported already: whatever is made of it, nothing more is said about it.
    Refused,
}

#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub text: String,
    /// Written without quotes, so that it may be a number, a boolean or null.
    pub plain: bool,
    pub origin: Origin,
}

/// Where a scalar's text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Written,
    /// Some of it by reference.
    Mixed,
    /// All of it by reference.
    Reference,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_span: Range<usize>,
    pub value: Node,
    /// The mapping has this key already. Kept for the sake of the secrets in it only.
    pub repeated: bool,
}

impl Node {
    /// The entry with this key, if this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        let Kind::Map { entries, .. } = &self.kind else { return None };
        entries.iter().find(|e| e.key == key && !e.repeated)
    }

    /// The value under this key of a mapping or index of a list.
    pub fn child(&self, step: &str) -> Option<&Node> {
        match &self.kind {
            Kind::List { items, .. } => items.get(step.parse::<usize>().ok()?),
            _ => self.entry(step).map(|e| &e.value),
        }
    }

    fn depth(&self) -> usize {
        match &self.kind {
            Kind::List { items, .. } => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Kind::Map { entries, .. } => 1 + entries.iter().map(|e| e.value.depth()).max().unwrap_or(0),
            Kind::Scalar(_) | Kind::Refused => 0,
        }
    }

    fn count(&self) -> usize {
        match &self.kind {
            Kind::List { items, .. } => 1 + items.iter().map(Node::count).sum::<usize>(),
            Kind::Map { entries, .. } => 1 + entries.iter().map(|e| e.value.count()).sum::<usize>(),
            Kind::Scalar(_) | Kind::Refused => 1,
        }
    }
}

/// Reads the one document in the text.
///
/// What is wrong but leaves the structure readable goes to `findings`.
///
/// # Errors
/// The first place at which this is no YAML, or more of it than a configuration can need.
pub(super) fn parse(text: &str, lines: &Lines, findings: &mut Vec<Finding>) -> Result<Node, Finding> {
    let options = options! {
        strict_indentation: true,
        disallow_directives: true,
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEPTH,
        block_nesting_limit: DEPTH,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    Builder { text, lines, parser, findings, anchors: HashMap::new(), path: Pointer::root(), left: NODES }.document()
}

struct Builder<'t, 'f> {
    text: &'t str,
    lines: &'f Lines,
    parser: Parser<'t, StrInput<'t>>,
    findings: &'f mut Vec<Finding>,
    anchors: HashMap<usize, Node>,
    path: Pointer,
    left: usize,
}

impl<'t> Builder<'t, '_> {
    fn document(mut self) -> Result<Node, Finding> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::StreamEnd => return Err(Finding::error(0..0, "the file is empty")),
                _ => {
                    let root = self.node(event, span)?;
                    self.end()?;
                    return Ok(root);
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Finding> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentEnd => {}
                _ => {
                    return Err(Finding::error(
                        bytes(span),
                        "a configuration is one document, and a second one begins here",
                    ));
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Finding> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.not_yaml(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn not_yaml(&self, error: &ScanError) -> Finding {
        let at = error.marker().byte_offset().unwrap_or(self.text.len());
        let finding = Finding::error(at..at, format_args!("this is not YAML: {}", error.kind()));
        match error.kind() {
            ErrorKind::RecursionLimitExceeded => too_deep(at..at),
            ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation => {
                finding.help("indent with spaces")
            }
            ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidMappingValueWhitespace => {
                finding.help("text that holds `: ` needs quotes; a key stands at the same column as its siblings")
            }
            ErrorKind::DirectiveDisallowed => finding.help("remove the line that begins with `%`"),
            _ if self.reference_at(at) => finding.help("inside `{ }` and `[ ]` a reference needs quotes"),
            _ => finding,
        }
    }

    /// Whether the brace here belongs to a reference that is not quoted.
    fn reference_at(&self, at: usize) -> bool {
        self.text.get(at..).is_some_and(|rest| rest.starts_with('{'))
            && self.text.get(..at).is_some_and(|t| t.ends_with('$'))
    }

    fn node(&mut self, event: Event<'t>, span: Span) -> Result<Node, Finding> {
        let at = bytes(span);
        self.left = self.left.checked_sub(1).ok_or_else(|| too_many(at.clone()))?;
        if self.path.depth() > DEPTH {
            return Err(too_deep(at));
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, self.scalar(text.into_owned(), style, tag, at)),
            Event::SequenceStart(style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), &at);
                (anchor, self.list(style, at)?)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), &at);
                (anchor, self.map(style, at)?)
            }
            Event::Alias(anchor) => return self.alias(anchor, at),
            _ => {
                self.report(Finding::error(at.clone(), "this alias names nothing before it"));
                return Ok(Node { span: at, kind: Kind::Refused });
            }
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, at: Range<usize>) -> Result<Node, Finding> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Finding::error(at, "this alias lies inside what it names"));
        };
        if self.path.depth() + node.depth() > DEPTH {
            return Err(too_deep(at));
        }
        self.left = self.left.checked_sub(node.count()).ok_or_else(|| too_many(at))?;
        Ok(node.clone())
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, tag: Option<Cow<'t, Tag>>, span: Range<usize>) -> Node {
        let forced_text = tag.as_deref().is_some_and(|t| t.is_yaml_core_schema_tag("str"));
        if !forced_text {
            self.refuse_tag(tag.as_deref(), &span);
        }
        // The parser gives an absent value as `~`.
        let text = if span.is_empty() && style == ScalarStyle::Plain { String::new() } else { text };
        let plain = style == ScalarStyle::Plain && !forced_text;
        Node { span, kind: Kind::Scalar(Scalar { text, plain, origin: Origin::Written }) }
    }

    fn list(&mut self, style: StructureStyle, start: Range<usize>) -> Result<Node, Finding> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                let kind = Kind::List { items, block: style == StructureStyle::Block };
                return Ok(Node { span: start.start..bytes(span).end, kind });
            }
            self.path.push(&items.len().to_string());
            items.push(self.node(event, span)?);
            self.path.pop();
        }
    }

    fn map(&mut self, style: StructureStyle, start: Range<usize>) -> Result<Node, Finding> {
        let mut entries = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                let kind = Kind::Map { entries, block: style == StructureStyle::Block };
                return Ok(Node { span: start.start..bytes(span).end, kind });
            }
            let (key, key_span) = self.key(event, span)?;
            self.path.push(&key);
            let first = lines.get(&key).copied();
            match first {
                Some(line) => self.report(repeated(&key, key_span.clone(), line)),
                None => drop(lines.insert(key.clone(), self.lines.number(key_span.start))),
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span)?;
            self.path.pop();
            entries.push(Entry { key, key_span, value, repeated: first.is_some() });
        }
    }

    fn key(&mut self, event: Event<'t>, span: Span) -> Result<(String, Range<usize>), Finding> {
        let at = bytes(span);
        match event {
            Event::Scalar(text, ..) => {
                self.left = self.left.checked_sub(1).ok_or_else(|| too_many(at.clone()))?;
                Ok((text.into_owned(), at))
            }
            _ => Err(Finding::error(at, "a key is plain text").help("aliases, lists and mappings cannot be keys here")),
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, at: &Range<usize>) {
        if tag.is_some() {
            self.report(
                Finding::error(at.clone(), "tags have no meaning here").help("remove the word that begins with `!`"),
            );
        }
    }

    fn report(&mut self, finding: Finding) {
        self.findings.push(finding.at_path(self.path.to_string()));
    }
}

fn repeated(key: &str, again: Range<usize>, line: usize) -> Finding {
    Finding::error(again, format_args!("{} is given twice", quoted(key))).help(format!("it is on line {line} already"))
}

fn too_deep(at: Range<usize>) -> Finding {
    Finding::error(at, format_args!("lists and mappings lie more than {DEPTH} deep in each other here"))
}

fn too_many(at: Range<usize>) -> Finding {
    Finding::error(at, format_args!("the file stands for more than {NODES} values")).help("aliases count each time")
}

/// Text input always has offsets.
fn bytes(span: Span) -> Range<usize> {
    span.byte_range().unwrap_or(0..0)
}
