//! The command line: one file for each subcommand.

mod audit;
mod check;
mod client;
mod explain;
mod health;
mod injector;
mod keys;
mod quickstart;
mod reseal;
mod run;
mod session;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::clock::Clock;
use clap::{Parser, Subcommand, ValueEnum};

/// A sidecar that injects session context into requests, and writes back what changed.
#[derive(Parser)]
#[command(name = "cloakroom", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the main job with nothing installed: a demo session, an echo backend, and curl lines to try
    Quickstart(quickstart::QuickstartArgs),
    /// Runs the sidecar
    Run(run::RunArgs),
    /// Lists the configuration's problems, as an editor would show them
    Check(check::CheckArgs),
    /// Says what would be done with a request, and why
    Explain(explain::ExplainArgs),
    /// Creates, shows, changes and revokes sessions of a running sidecar
    Session(session::SessionArgs),
    /// Shows a session's audit trail, and whether it is whole
    Audit(audit::AuditArgs),
    /// Says whether a sidecar runs, or can serve; for container health checks
    Health(health::HealthArgs),
    /// Runs the Kubernetes admission webhook that adds sidecars to pods
    Injector(injector::InjectorArgs),
    /// Makes, rotates and lists the keys of a keyring
    Keys(keys::KeysArgs),
    /// Prints the configuration's JSON Schema, for editors
    Schema,
}

/// How a command's result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Output {
    /// Prints a result: as it is for programs, as `text` puts it for people.
    fn put<W: Write>(
        self,
        out: &mut W,
        result: &serde_json::Value,
        text: impl FnOnce(&mut W) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::Text => text(out),
            Self::Json => writeln!(out, "{result:#}"),
        }
    }
}

/// A command found something wrong, or could not do its work.
const FAILED: u8 = 1;
/// The command line is wrong; clap's own code for it.
const USAGE: u8 = 2;

/// Reads the arguments and does what they ask for: 0, 1 for a finding or a failure, 2 for wrong usage.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Session(args) => session::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Injector(args) => injector::run(&args),
        Command::Keys(args) => keys(&args),
        Command::Schema => check::schema(),
    }
}

fn keys(args: &keys::KeysArgs) -> ExitCode {
    let located = |config: &std::path::Path| {
        let (config, _) = check::examine(config).map_err(|problems| problems.render(colours()))?;
        let path = crate::app::keyring_path(&config).ok_or("this configuration keeps its keys in memory only")?;
        Ok(keys::Location { path, activate_after: config.keyring.activate_after.0 })
    };
    match keys::run(args, &located, Clock::system().now(), &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

/// One clear line, and exit code 1.
fn fail(cause: impl Display) -> ExitCode {
    anstream::eprintln!("cloakroom: {cause}");
    ExitCode::from(FAILED)
}

/// Whether to use colour on standard error.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A text from elsewhere as it may stand on a terminal: controls are escaped, so that it says nothing to it.
fn visible(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let (shown, escaped) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
            shown.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}
