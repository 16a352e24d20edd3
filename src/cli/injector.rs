//! `cloakroom injector`: the Kubernetes admission webhook, until it is told to end.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin;
use crate::clock::Clock;
use crate::config::{self, Injector, Problems};
use crate::drain::Drain;
use crate::in_force::InForce;
use crate::injector::{
    ACCOUNT, Api, Certificate, Figures, Policy, RenewalError, Wanted, keep, router, serve, status_router,
};
use crate::readiness::Readiness;
use crate::telemetry;

use super::{FAILED, check, fail};

/// How often the certificate's files are looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct InjectorArgs {
    #[command(subcommand)]
    command: Option<Command>,
    /// The injector's own configuration file
    #[arg(long, short, required = true)]
    config: Option<PathBuf>,
    /// Lists that file's problems, and is done
    #[arg(long)]
    check: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Makes and renews the webhook's certificate, from within the cluster
    Certificate(CertificateArgs),
}

#[derive(clap::Args)]
struct CertificateArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Where the service account's token is, and who vouches for the API server
    #[arg(long, value_name = "FOLDER", default_value = ACCOUNT)]
    account: PathBuf,
}

pub fn run(args: &InjectorArgs) -> ExitCode {
    match (&args.command, &args.config) {
        (Some(Command::Certificate(args)), _) => certificate(args),
        (None, Some(config)) => serve_webhook(config, args.check),
        (None, None) => fail("--config FILE is needed"),
    }
}

fn certificate(args: &CertificateArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let kept = Api::of_pod(&args.account).map_err(RenewalError::from);
    let kept = kept.and_then(|api| runtime.block_on(keep(&api, &args.wanted, Clock::system().now())));
    match kept {
        Ok(done) => {
            let _ = writeln!(std::io::stdout(), "{done}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

fn serve_webhook(path: &Path, check_only: bool) -> ExitCode {
    let Some(config) = examine(path) else { return ExitCode::from(FAILED) };
    if check_only {
        let _ = writeln!(std::io::stdout(), "{}: no problems", path.display());
        return ExitCode::SUCCESS;
    }
    let Some(policy) = Policy::compile(&config) else { return fail("the configuration is not sound") };
    let _logs = match telemetry::start_logs(&config.log) {
        Ok(flush) => flush,
        Err(error) => return fail(error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(webhook(&config, policy)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

/// The file, if nothing is worse than a warning; whatever is wrong is shown.
fn examine(path: &Path) -> Option<Injector> {
    let inspected = match config::inspect_injector_file(path) {
        Ok(inspected) => inspected,
        Err(problems) => {
            check::show(&problems);
            return None;
        }
    };
    let diagnostics = inspected.source.diagnose(Problems::default());
    check::show(&diagnostics);
    inspected.config.filter(|_| !diagnostics.has_errors())
}

async fn webhook(config: &Injector, policy: Policy) -> std::io::Result<()> {
    let mut ends = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let (listener, status) = (listen(&config.address).await?, listen(&config.status.address).await?);
    let (readiness, figures, drain) = (Readiness::default(), Figures::default(), Drain::default());
    let certificate = Certificate::of(&config.tls, readiness.clone());
    let (address, status_address) = (listener.local_addr()?, status.local_addr()?);
    let health = InForce::new(status_router(readiness.clone(), figures.clone()));
    let health = tokio::spawn(admin::serve(status, health, drain.clone()));
    let follow = tokio::spawn(follow(certificate.clone(), drain.clone()));
    let webhook = tokio::spawn(serve(listener, certificate, router(policy, figures), drain.clone()));
    tracing::info!(target: "cloakroom", %address, status = %status_address, "the injector listens");
    either(&mut ends).await;
    tracing::info!(target: "cloakroom", "ending");
    readiness.draining();
    tokio::select! {
        () = tokio::time::sleep(config.shutdown.grace.0) => {}
        () = either(&mut ends) => {}
    }
    drain.finish(config.shutdown.drain.0).await;
    for task in [health, follow, webhook] {
        let _ = task.await;
    }
    Ok(())
}

async fn either([one, other]: &mut [Signal; 2]) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

async fn listen(address: &str) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// Takes on the certificate when it changes.
async fn follow(certificate: Certificate, drain: Drain) {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = ticks.tick() => certificate.look(),
            () = drain.begun() => return,
        }
    }
}
