//! The command line: one file for each subcommand.

mod check;
mod keys;
mod quickstart;
mod run;

use std::fmt::Display;
use std::io::IsTerminal;
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

/// A command found something wrong, or could not do its work.
const FAILED: u8 = 1;

/// Reads the arguments and does what they ask for: 0, 1 for a finding or a failure, 2 for wrong usage.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
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
