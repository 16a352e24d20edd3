//! `${env:NAME}` and `${file:PATH}` in values.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::document::{Kind, Node, Origin, Scalar};
use super::finding::{Finding, quoted};
use super::pointer::Pointer;

/// Looks up an environment variable; of the process when it runs, of the test when it is tested.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Larger than any token, key or certificate that a reference may stand for.
const FILE_SIZE: u64 = 64 << 10;

/// Puts what is referred to in the place of every reference below this node.
///
/// A reference that leads nowhere becomes a finding, and its scalar is refused. What came by reference
/// is in no message; it is returned so that later ones can be kept clear of it too.
pub(super) fn resolve(
    root: &mut Node,
    text: &str,
    folder: &Path,
    environment: Environment<'_>,
    findings: &mut Vec<Finding>,
) -> Resolved {
    let mut resolver = Resolver { text, folder, environment, findings, known: HashMap::new(), path: Pointer::root() };
    resolver.node(root);
    let named = |reference: &String| reference.strip_prefix("${file:")?.strip_suffix('}').map(|path| folder.join(path));
    let files = resolver.known.keys().filter_map(named).collect();
    Resolved { values: resolver.known.into_values().filter_map(Result::ok).collect(), files }
}

/// What the references of a file have led to.
pub(super) struct Resolved {
    pub values: Vec<Zeroizing<String>>,
    /// Every file that is referred to, whether or not it could be read.
    pub files: Vec<PathBuf>,
}

struct Resolver<'a> {
    text: &'a str,
    folder: &'a Path,
    environment: Environment<'a>,
    findings: &'a mut Vec<Finding>,
    /// Each reference is followed once, so that a file that changes meanwhile is the same everywhere.
    known: HashMap<String, Result<Zeroizing<String>, String>>,
    path: Pointer,
}

impl Resolver<'_> {
    fn node(&mut self, node: &mut Node) {
        match &mut node.kind {
            Kind::Scalar(scalar) if scalar.text.contains("${") => {
                if !self.scalar(scalar, &node.span) {
                    node.kind = Kind::Refused;
                }
            }
            Kind::List { items, .. } => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.path.push(&index.to_string());
                    self.node(item);
                    self.path.pop();
                }
            }
            Kind::Map { entries, .. } => {
                for entry in entries {
                    self.path.push(&entry.key);
                    self.node(&mut entry.value);
                    self.path.pop();
                }
            }
            Kind::Scalar(_) | Kind::Refused => {}
        }
    }

    /// Replaces the references in this text; false if one of them leads nowhere.
    fn scalar(&mut self, scalar: &mut Scalar, span: &Range<usize>) -> bool {
        let mut out = String::new();
        let mut sound = true;
        let mut written = false;
        let mut rest = scalar.text.as_str();
        while let Some(start) = rest.find("${") {
            let (before, from) = rest.split_at(start);
            written |= !before.is_empty();
            out.push_str(before);
            let reference = from.find('}').and_then(|end| from.get(..=end)).unwrap_or(from);
            match self.follow(reference) {
                Ok(value) => out.push_str(&value),
                Err(message) => {
                    sound = false;
                    self.report(reference, span, message);
                }
            }
            rest = from.get(reference.len()..).unwrap_or_default();
        }
        written |= !rest.is_empty();
        out.push_str(rest);
        scalar.text = out;
        scalar.origin = if written { Origin::Mixed } else { Origin::Reference };
        sound
    }

    fn follow(&mut self, reference: &str) -> Result<Zeroizing<String>, String> {
        if let Some(known) = self.known.get(reference) {
            return known.clone();
        }
        let found = read(reference, self.folder, self.environment);
        self.known.insert(reference.into(), found.clone());
        found
    }

    fn report(&mut self, reference: &str, span: &Range<usize>, message: String) {
        let within = self.text.get(span.clone()).and_then(|raw| raw.find(reference));
        let at = match within {
            Some(offset) => span.start + offset..span.start + offset + reference.len(),
            None => span.clone(),
        };
        let mut finding = Finding::error(at, message).at_path(self.path.to_string());
        if !reference.starts_with("${env:") && !reference.starts_with("${file:") {
            finding = finding.help("a reference is ${env:NAME} or ${file:PATH}");
        }
        self.findings.push(finding);
    }
}

fn read(reference: &str, folder: &Path, environment: Environment<'_>) -> Result<Zeroizing<String>, String> {
    let inner = reference
        .strip_prefix("${")
        .and_then(|r| r.strip_suffix('}'))
        .ok_or_else(|| "this reference has no closing brace".to_owned())?;
    match inner.split_once(':') {
        Some(("env", name)) => variable(name, environment),
        Some(("file", path)) => file(path, folder),
        _ => Err("this is no reference that is known here".into()),
    }
}

fn variable(name: &str, environment: Environment<'_>) -> Result<Zeroizing<String>, String> {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.bytes().all(letters) {
        return Err(format!("{} cannot be the name of an environment variable", quoted(name)));
    }
    environment(name).map(Zeroizing::new).ok_or_else(|| format!("the environment variable {} is not set", quoted(name)))
}

/// The file's text without its last line feed, which editors and `kubectl` add.
fn file(path: &str, folder: &Path) -> Result<Zeroizing<String>, String> {
    let refused = |reason: String| format!("the file {} cannot be read: {reason}", quoted(path));
    if path.is_empty() {
        return Err("this reference names no file".into());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let opened = File::open(folder.join(path)).map_err(|e| refused(reason(&e)))?;
    opened.take(FILE_SIZE + 1).read_to_end(&mut bytes).map_err(|e| refused(reason(&e)))?;
    if bytes.len() as u64 > FILE_SIZE {
        return Err(refused(format!("it is larger than {} KiB", FILE_SIZE >> 10)));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("it is not UTF-8 text".into()))?;
    let line = text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t));
    Ok(Zeroizing::new(line.to_owned()))
}

/// What the system says, without its error number.
pub(super) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
