//! Text into a [`Config`], or into everything that is wrong with it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::diagnostic::Diagnostics;
use super::document::{self, Node};
use super::finding::Finding;
use super::lines::Lines;
use super::pointer::Pointer;
use super::reference::{self, Environment, reason};
use super::shape::Walk;
use super::source::{Source, unreadable};
use super::veil::Veil;
use super::{AuditSink, Config, Injector, Problems, Severity, clear, json_schema, unsupported, validate};

/// Far more than any configuration needs, and far less than memory holds.
const FILE_SIZE: u64 = 1 << 20;

/// A configuration without errors, and the file that it came from.
///
/// Warnings are kept by the source: [`Source::diagnose`] has them.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub source: Source,
}

/// A configuration that may have errors.
#[derive(Debug)]
pub struct Inspected<C = Config> {
    /// What could be read, with stand-ins for what could not; none where too little is left for a further
    /// check to mean anything. Only to be checked, never to be run.
    pub config: Option<C>,
    pub source: Source,
}

/// A kind of file that is read in this way.
pub(super) trait Form: DeserializeOwned {
    /// The place without which no further check means anything; empty for the file itself.
    const HEART: &str;
    fn schema() -> Value;
    /// Looks at the tree before it is typed.
    fn screen(root: &mut Node, text: &str, findings: &mut Vec<Finding>);
    /// Paths are relative to the file that names them, not to where the process was started.
    fn anchor(&mut self, folder: &Path);
    fn validate(&self, problems: &mut Problems);
}

impl Form for Config {
    const HEART: &str = "/session/schema/fields";

    fn schema() -> Value {
        json_schema()
    }

    fn screen(root: &mut Node, text: &str, findings: &mut Vec<Finding>) {
        clear::refuse(root, text, findings);
        unsupported::refuse(root, findings);
    }

    fn anchor(&mut self, folder: &Path) {
        anchor(self, folder);
    }

    fn validate(&self, problems: &mut Problems) {
        validate::validate(self, problems);
    }
}

impl Form for Injector {
    const HEART: &str = "";

    fn schema() -> Value {
        schemars::schema_for!(Self).to_value()
    }

    fn screen(_: &mut Node, _: &str, _: &mut Vec<Finding>) {}

    fn anchor(&mut self, folder: &Path) {
        for path in [&mut self.tls.certificate, &mut self.tls.key] {
            *path = folder.join(&*path).components().collect();
        }
    }

    fn validate(&self, problems: &mut Problems) {
        validate::injector::validate(self, problems);
    }
}

/// Reads a file, with the references to the environment of this process.
///
/// # Errors
/// Everything that is wrong with the file, warnings included, if anything is worse than a warning.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    inspect_file(path)?.loaded()
}

/// Reads a text as if it stood in the file at `path`.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: &Path, environment: Environment<'_>) -> Result<Loaded, Diagnostics> {
    inspect(text, path, environment).loaded()
}

/// Reads a file as far as it can be read, so that the rooms' problems are reported along with the loader's.
///
/// # Errors
/// The file cannot be read, is no UTF-8 or is larger than 1 MiB.
pub fn inspect_file(path: &Path) -> Result<Inspected, Diagnostics> {
    Ok(inspect(&read(path)?, path, &|name| std::env::var(name).ok()))
}

/// Reads the injector's file, whose problems are told in the same way.
///
/// # Errors
/// As [`inspect_file`].
pub fn inspect_injector_file(path: &Path) -> Result<Inspected<Injector>, Diagnostics> {
    Ok(inspect_injector(&read(path)?, path, &|name| std::env::var(name).ok()))
}

/// Reads a text as the injector's file.
pub fn inspect_injector(text: &str, path: &Path, environment: Environment<'_>) -> Inspected<Injector> {
    inspect_as(text, path, environment)
}

fn read(path: &Path) -> Result<String, Diagnostics> {
    let refused = |message: String| unreadable(&path.display().to_string(), message);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_SIZE + 1).read_to_end(&mut bytes))
        .map_err(|e| refused(format!("the configuration cannot be read: {}", reason(&e))))?;
    String::from_utf8(bytes).map_err(|_| refused("the configuration is not UTF-8 text".into()))
}

/// Reads a text as far as it can be read.
pub fn inspect(text: &str, path: &Path, environment: Environment<'_>) -> Inspected {
    inspect_as(text, path, environment)
}

fn inspect_as<C: Form>(text: &str, path: &Path, environment: Environment<'_>) -> Inspected<C> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut source = Source {
        file: path.display().to_string(),
        text: text.to_owned(),
        lines: Lines::of(text),
        root: None,
        veil: Veil::default(),
        findings: Vec::new(),
        broken: Vec::new(),
        referred: Vec::new(),
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let config = match tree::<C>(&mut source, folder, environment) {
        Ok(root) => typed(&mut source, root, folder),
        Err(finding) => {
            source.veil = Veil::over_lines(&source.text, &source.lines);
            source.findings.push(finding);
            None
        }
    };
    Inspected { config, source }
}

impl Inspected {
    fn loaded(self) -> Result<Loaded, Diagnostics> {
        let failed = self.source.findings.iter().any(|f| f.severity == Severity::Error);
        match self.config {
            Some(config) if !failed => Ok(Loaded { config, source: self.source }),
            _ => Err(self.source.diagnose(Problems::default())),
        }
    }
}

fn tree<C: Form>(source: &mut Source, folder: &Path, environment: Environment<'_>) -> Result<Node, Finding> {
    if source.text.len() as u64 > FILE_SIZE {
        return Err(Finding::error(0..0, "the configuration is larger than 1 MiB"));
    }
    let mut root = document::parse(&source.text, &source.lines, &mut source.findings)?;
    let resolved = reference::resolve(&mut root, &source.text, folder, environment, &mut source.findings);
    source.referred = resolved.files;
    source.veil = Veil::over(&root, &source.text, resolved.values);
    C::screen(&mut root, &source.text, &mut source.findings);
    Ok(root)
}

fn typed<C: Form>(source: &mut Source, root: Node, folder: &Path) -> Option<C> {
    let schema = C::schema();
    let definitions = schema.get("$defs").unwrap_or(&Value::Null);
    let mut walk = Walk {
        definitions,
        findings: &mut source.findings,
        veil: &mut source.veil,
        path: Pointer::root(),
        broken: Vec::new(),
    };
    let value = walk.value(&root, None, &schema);
    source.broken = walk.broken;
    source.root = Some(root);
    let mut config: C = deserialized(source, value)?;
    config.anchor(folder);
    let mut problems = Problems::default();
    config.validate(&mut problems);
    source.absorb(problems);
    source.has(C::HEART).then_some(config)
}

/// The walk leaves nothing for serde to refuse; should it ever, the place is known all the same.
fn deserialized<C: Form>(source: &mut Source, value: Value) -> Option<C> {
    match serde_path_to_error::deserialize::<_, C>(value) {
        Ok(config) => Some(config),
        Err(error) => {
            let mut pointer = Pointer::root();
            error.path().iter().for_each(|segment| pointer.push(&segment.to_string()));
            let mut problems = Problems::default();
            problems.error(pointer.to_string(), "this cannot be read as the configuration needs it");
            source.absorb(problems);
            None
        }
    }
}

/// Paths are relative to the file that names them, not to where the process was started.
fn anchor(config: &mut Config, folder: &Path) {
    let from_file = |path: &mut PathBuf| *path = folder.join(&*path).components().collect();
    let anchored = |path: &str| {
        let mut path = PathBuf::from(path);
        from_file(&mut path);
        path.display().to_string()
    };
    from_file(&mut config.store.path);
    config.store.ca.iter_mut().for_each(from_file);
    config.keyring.path.iter_mut().for_each(from_file);
    for issuer in config.identity.jwt.iter_mut().flatten() {
        issuer.jwks.file.iter_mut().for_each(from_file);
        issuer.jwks.ca.iter_mut().for_each(from_file);
    }
    for server in config.identity.introspection.iter_mut().flatten() {
        server.ca.iter_mut().for_each(from_file);
    }
    for listener in &mut config.listeners {
        if let Some(path) = listener.address.strip_prefix("unix:") {
            listener.address = format!("unix:{}", anchored(path));
        }
        if let Some(tls) = &mut listener.tls {
            [&mut tls.certificate, &mut tls.key].into_iter().chain(&mut tls.client_ca).for_each(from_file);
        }
    }
    for route in &mut config.routes {
        if let Some(path) = route.upstream.strip_prefix("unix:") {
            route.upstream = format!("unix:{}", anchored(path));
        }
        if let Some(tls) = &mut route.upstream_tls {
            [&mut tls.ca, &mut tls.certificate, &mut tls.key].into_iter().flatten().for_each(from_file);
        }
    }
    for sink in &mut config.audit.sinks {
        if let AuditSink::File(path) = sink {
            from_file(path);
        }
    }
}
