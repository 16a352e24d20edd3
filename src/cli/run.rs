//! `cloakroom run`: the sidecar, until it is told to end.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::app::{self, Running};
use crate::clock::Clock;
use crate::telemetry;

use super::{FAILED, check, fail};

#[derive(clap::Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, short, env = "CLOAKROOM_CONFIG")]
    config: PathBuf,
}

pub fn run(args: &RunArgs) -> ExitCode {
    let config = match check::examine(&args.config) {
        Ok((config, warnings)) => {
            check::show(&warnings);
            config
        }
        Err(problems) => {
            check::show(&problems);
            return ExitCode::from(FAILED);
        }
    };
    let _logs = telemetry::start_logs(&config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    runtime.block_on(async {
        match app::start(&config, Clock::system()).await {
            Ok(running) => serve(running).await,
            Err(error) => fail(error),
        }
    })
}

/// Serves until a signal ends it.
pub async fn serve(running: Running) -> ExitCode {
    for address in &running.proxy {
        tracing::info!(target: "cloakroom", %address, "listening");
    }
    let (admin, status) = (running.admin, running.status);
    tracing::info!(target: "cloakroom", %admin, %status, "admin and status listen");
    match wait_for_the_end(&running).await {
        Ok(()) => {
            running.shut_down().await;
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

/// Waits for a signal to end, then goes on accepting for the grace. A second signal ends the process at once.
async fn wait_for_the_end(running: &Running) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                tracing::warn!(target: "cloakroom", "reload is not supported yet; restart to take on a new configuration");
            }
        }
    }
    tracing::info!(target: "cloakroom", "ending");
    running.begin_ending();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(i32::from(FAILED));
    });
    tokio::time::sleep(running.grace()).await;
    Ok(())
}
