//! `cloakroom keys`: makes, rotates and lists the keys of a keyring file.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::clock::Time;
use crate::config;
use crate::keyring::{self, Keyring, KeyringError};

use super::Output;
use super::reseal::{self, ResealArgs, ResealError};

/// The keyring file and its keys.
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a keyring file, which must not exist yet.
    Generate(Target),
    /// Add a sealing key. What is sealed already stays readable, handles stay the same.
    Rotate(Target),
    /// List the sealing keys, newest first.
    List {
        #[command(flatten)]
        target: Target,
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Seal with the active key what older keys sealed, through a running sidecar, and show what rests on each key.
    Reseal(ResealArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The keyring file; activate_after is then taken to be its default, 10m.
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// The configuration that says where the keyring is.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where a configuration keeps its keyring.
#[derive(Debug, Clone)]
pub struct Location {
    pub path: PathBuf,
    pub activate_after: Duration,
}

/// Why a command on the keyring did nothing, or could not say what it did.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(transparent)]
    Config(Box<dyn Error + Send + Sync>),
    #[error(transparent)]
    Reseal(#[from] ResealError),
    #[error("the result could not be written: {0}")]
    Output(#[from] io::Error),
}

/// Reads from a configuration file where the keyring is.
pub type Locate<'a> = &'a dyn Fn(&Path) -> Result<Location, Box<dyn Error + Send + Sync>>;

/// Runs one of the commands and writes its result to `out`, uncoloured.
pub fn run(args: &KeysArgs, locate: Locate<'_>, now: Time, out: &mut impl Write) -> Result<(), KeysError> {
    match &args.command {
        Command::Generate(target) => generate(&target.location(locate)?, now, out),
        Command::Rotate(target) => rotate(&target.location(locate)?, now, out),
        Command::List { target, output } => list(&target.location(locate)?, *output, now, out),
        Command::Reseal(args) => Ok(reseal::run(args, out)?),
    }
}

impl Target {
    fn location(&self, locate: Locate<'_>) -> Result<Location, KeysError> {
        match (&self.keyring, &self.config) {
            (Some(path), _) => Ok(Location::at(path)),
            (None, Some(config)) => locate(config).map_err(KeysError::Config),
            (None, None) => Err(KeysError::Config("either --keyring or --config is needed".into())),
        }
    }
}

impl Location {
    fn at(path: &Path) -> Self {
        Self { path: path.into(), activate_after: config::Keyring::default().activate_after.0 }
    }
}

fn generate(at: &Location, now: Time, out: &mut impl Write) -> Result<(), KeysError> {
    Keyring::create(&at.path, now)?;
    writeln!(out, "{}: made, with mode 0600 and one sealing key", at.path.display())?;
    Ok(())
}

fn rotate(at: &Location, now: Time, out: &mut impl Write) -> Result<(), KeysError> {
    let id = keyring::rotate(&at.path, now)?;
    writeln!(out, "{}: {id} added", at.path.display())?;
    writeln!(out, "It seals from {} on, once every sidecar has the file.", now.plus(at.activate_after))?;
    writeln!(out, "Then `cloakroom keys reseal` moves what older keys sealed.")?;
    Ok(())
}

#[derive(Serialize)]
struct Listing<'a> {
    sealing_keys: Vec<Listed<'a>>,
}

#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    created_at: String,
    active: bool,
}

fn list(at: &Location, output: Output, now: Time, out: &mut impl Write) -> Result<(), KeysError> {
    let keyring = Keyring::load(&at.path, at.activate_after)?;
    let active = keyring.active(now);
    let listed = |(id, created_at): (_, Time)| Listed { id, created_at: created_at.to_string(), active: id == active };
    let listing = Listing { sealing_keys: keyring.sealing_key_ids().map(listed).collect() };
    match output {
        Output::Text => table(&listing, out)?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &listing).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

fn table(listing: &Listing<'_>, out: &mut impl Write) -> io::Result<()> {
    let width = listing.sealing_keys.iter().map(|key| key.id.len()).max().unwrap_or_default();
    for key in &listing.sealing_keys {
        let role = if key.active { "seals and opens" } else { "opens" };
        writeln!(out, "{:width$}  {}  {role}", key.id, key.created_at)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        keys: KeysArgs,
    }

    const NOW: Time = Time(1_795_421_702_000);

    fn keys(words: &[&str], locate: Locate<'_>, now: Time) -> Result<String, KeysError> {
        let line = Line::try_parse_from(std::iter::once(&"keys").chain(words)).unwrap();
        let mut out = Vec::new();
        run(&line.keys, locate, now, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn nowhere(_: &Path) -> Result<Location, Box<dyn Error + Send + Sync>> {
        Err("no configuration here".into())
    }

    #[test]
    fn keys_are_made_rotated_and_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring.json");
        let file = ["--keyring", path.to_str().unwrap()];
        let at = |command: &str, more: &[&str], minutes: u64| {
            let words = [&[command], &file[..], more].concat();
            keys(&words, &nowhere, NOW.plus(Duration::from_secs(60 * minutes)))
        };
        at("generate", &[], 0).unwrap();
        let rotated = at("rotate", &[], 1).unwrap();
        assert!(rotated.contains("k2 added") && rotated.contains("from 2026-11-23T08:26:02Z on"), "{rotated}");
        let young = "k2  2026-11-23T08:16:02Z  opens\nk1  2026-11-23T08:15:02Z  seals and opens\n";
        assert_eq!(at("list", &[], 10).unwrap(), young);
        let listed: serde_json::Value = serde_json::from_str(&at("list", &["--output", "json"], 11).unwrap()).unwrap();
        let expected = serde_json::json!({ "sealing_keys": [
            { "id": "k2", "created_at": "2026-11-23T08:16:02Z", "active": true },
            { "id": "k1", "created_at": "2026-11-23T08:15:02Z", "active": false },
        ]});
        assert_eq!(listed, expected);
    }

    #[test]
    fn generate_leaves_an_existing_keyring_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring.json");
        let words = ["generate", "--keyring", path.to_str().unwrap()];
        keys(&words, &nowhere, NOW).unwrap();
        let before = std::fs::read(&path).unwrap();
        let refused = keys(&words, &nowhere, NOW);
        assert!(matches!(refused, Err(KeysError::Keyring(KeyringError::Exists { .. }))));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn no_command_prints_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring.json");
        let file = ["--keyring", path.to_str().unwrap()];
        let commands = [vec!["generate"], vec!["rotate"], vec!["list"], vec!["list", "--output", "json"]];
        let printed: String =
            commands.iter().map(|words| keys(&[&words[..], &file].concat(), &nowhere, NOW).unwrap()).collect();
        let held: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let secrets = [&held["name_key"], &held["sealing_keys"][0]["secret"], &held["sealing_keys"][1]["secret"]];
        for secret in secrets {
            assert!(!printed.contains(secret.as_str().unwrap()));
        }
    }

    #[test]
    fn the_configuration_says_where_the_keyring_is_and_when_keys_seal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring.json");
        let locate = |config: &Path| {
            assert_eq!(config, Path::new("cloakroom.yaml"));
            Ok(Location { path: path.clone(), activate_after: Duration::ZERO })
        };
        let config = ["--config", "cloakroom.yaml"];
        keys(&[&["generate"], &config[..]].concat(), &locate, NOW).unwrap();
        keys(&[&["rotate"], &config[..]].concat(), &locate, NOW).unwrap();
        let listed = keys(&[&["list"], &config[..]].concat(), &locate, NOW).unwrap();
        assert!(listed.starts_with("k2  2026-11-23T08:15:02Z  seals and opens\n"), "{listed}");
        let failed = keys(&[&["list"], &config[..]].concat(), &nowhere, NOW);
        assert_eq!(failed.unwrap_err().to_string(), "no configuration here");
    }

    #[test]
    fn exactly_one_file_is_named() {
        for words in [&["keys", "list"][..], &["keys", "list", "--keyring", "a", "--config", "b"]] {
            assert!(Line::try_parse_from(words).is_err(), "{words:?}");
        }
    }
}
