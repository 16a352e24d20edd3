use std::process::ExitCode;

#[derive(clap::Args)]
pub struct QuickstartArgs {}

pub fn run(_: QuickstartArgs) -> ExitCode {
    ExitCode::SUCCESS
}
