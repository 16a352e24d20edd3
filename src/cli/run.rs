//! `cloakroom run`: the sidecar, until it is told to end.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::app::{self, ConfigWatch, ReloadNow, Running};
use crate::clock::Clock;
use crate::telemetry;
use crate::together;

use super::{FAILED, check, fail};

#[derive(clap::Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, short, env = "CLOAKROOM_CONFIG")]
    config: PathBuf,
}

pub fn run(args: &RunArgs) -> ExitCode {
    let mut watch = ConfigWatch::new(args.config.clone());
    let config = match app::examine(&args.config, None) {
        Ok(examined) => {
            check::show(&examined.warnings);
            watch.refers_to(examined.referred);
            examined.config
        }
        Err(refused) => {
            check::show(&refused.diagnostics);
            return ExitCode::from(FAILED);
        }
    };
    let _logs = match telemetry::start_logs(&config.log) {
        Ok(flush) => flush,
        Err(error) => return fail(error),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    runtime.block_on(async {
        match app::start(&config, Clock::system()).await {
            Ok(mut running) => {
                let reload = running.follow(watch);
                serve(running, &reload).await
            }
            Err(error) => fail(error),
        }
    })
}

/// A thread for each processor that the process may use. One alone does without what several need to share their work.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let several = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    let mut builder = match several {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().on_thread_park(together::before_sleep).build()
}

/// Serves until a signal ends it.
pub async fn serve(running: Running, reload: &ReloadNow) -> ExitCode {
    for address in &running.proxy {
        tracing::info!(target: "cloakroom", %address, "listening");
    }
    let (admin, status) = (running.admin, running.status);
    tracing::info!(target: "cloakroom", %admin, %status, "admin and status listen");
    match wait_for_the_end(&running, reload).await {
        Ok(()) => {
            let in_time = running.shut_down().await;
            if in_time {
                tracing::info!(target: "cloakroom", "ended");
            } else {
                tracing::warn!(target: "cloakroom", "ended; what was still open after shutdown.drain was cut off");
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

/// Waits for a signal to end, then goes on accepting for the grace. A second signal ends the process at once.
async fn wait_for_the_end(running: &Running, reload: &ReloadNow) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload.ask(),
        }
    }
    let (grace, drain) = (running.grace(), running.patience());
    tracing::info!(target: "cloakroom", ?grace, ?drain, "ending: not ready any more, and draining after the grace");
    running.begin_ending();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(i32::from(FAILED));
    });
    tokio::time::sleep(grace).await;
    Ok(())
}
