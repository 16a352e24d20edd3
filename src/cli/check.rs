//! `cloakroom check` and `cloakroom schema`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::app;
use crate::config::{self, Config, Diagnostics};

use super::{FAILED, Output, colours, fail};

#[derive(clap::Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(long, short, env = "CLOAKROOM_CONFIG")]
    config: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Also refuses a configuration in which nothing listens on this port, to which services lead
    #[arg(long, value_name = "PORT")]
    serves: Option<u16>,
}

pub fn run(args: &CheckArgs) -> ExitCode {
    let (diagnostics, unserved) = match examine(&args.config) {
        Ok((config, warnings)) => (warnings, args.serves.filter(|port| !serves(&config, *port))),
        Err(problems) => (problems, None),
    };
    let failed = diagnostics.has_errors() || unserved.is_some();
    if let Some(port) = unserved {
        let path = args.config.display();
        fail(format!(
            "{path}: no listener has port {port}, to which services lead; address: ${{env:CLOAKROOM_LISTEN}} does"
        ));
    }
    match args.output {
        Output::Json => {
            let _ = writeln!(std::io::stdout(), "{}", diagnostics.to_json());
        }
        Output::Text if diagnostics.is_empty() && !failed => {
            let _ = writeln!(std::io::stdout(), "{}: no problems", args.config.display());
        }
        Output::Text => show(&diagnostics),
    }
    if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
}

fn serves(config: &Config, port: u16) -> bool {
    let ports = config.listeners.iter().filter_map(|listener| listener.address.rsplit(':').next());
    ports.filter_map(|text| text.parse().ok()).any(|listening: u16| listening == port)
}

/// Prints diagnostics to standard error.
pub fn show(diagnostics: &Diagnostics) {
    let _ = write!(std::io::stderr(), "{}", diagnostics.render(colours()));
}

/// Reads a configuration and has every room look at its part; warnings are given beside it.
pub fn examine(path: &Path) -> Result<(Config, Diagnostics), Diagnostics> {
    match app::examine(path, None) {
        Ok(examined) => Ok((examined.config, examined.warnings)),
        Err(refused) => Err(refused.diagnostics),
    }
}

pub fn schema() -> ExitCode {
    match serde_json::to_string_pretty(&config::json_schema()) {
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}
