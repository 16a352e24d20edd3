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
}

pub fn run(args: &CheckArgs) -> ExitCode {
    let diagnostics = match examine(&args.config) {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    };
    let failed = diagnostics.has_errors();
    match args.output {
        Output::Json => {
            let _ = writeln!(std::io::stdout(), "{}", diagnostics.to_json());
        }
        Output::Text if diagnostics.is_empty() => {
            let _ = writeln!(std::io::stdout(), "{}: no problems", args.config.display());
        }
        Output::Text => show(&diagnostics),
    }
    if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
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
