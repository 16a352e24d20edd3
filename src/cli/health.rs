//! `cloakroom health`: for container health checks, where no other client is at hand.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::{Method, StatusCode};
use serde_json::Value as Json;

use crate::config;

use super::client::{Client, ClientError};
use super::{FAILED, fail, visible};

#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// The status listener [default: the configuration's, else 127.0.0.1:9901]
    #[arg(long, value_name = "HOST:PORT")]
    status: Option<String>,
    /// Asks whether it can serve, not only whether it runs
    #[arg(long)]
    ready: bool,
    /// The configuration that says where the listener is
    #[arg(long, short, value_name = "FILE", env = "CLOAKROOM_CONFIG")]
    config: Option<PathBuf>,
}

pub fn run(args: &HealthArgs) -> ExitCode {
    match ask(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => fail(error),
    }
}

fn ask(args: &HealthArgs) -> Result<bool, ClientError> {
    let address = args.status.clone().unwrap_or_else(|| configured(args.config.as_deref()));
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = Client::new(&address, None).send(Method::GET, path, None, None)?;
    if answer.status == StatusCode::OK {
        return Ok(true);
    }
    let report = serde_json::from_slice(&answer.body).unwrap_or_default();
    anstream::eprintln!("cloakroom: {path} says {}{}", answer.status, reasons(&report));
    Ok(false)
}

/// The address in a configuration. One with problems, which a sidecar may have refused to take on, must not have the
/// sidecar that runs on look dead.
fn configured(path: Option<&Path>) -> String {
    let read = path.and_then(|path| config::inspect_file(path).ok()).and_then(|inspected| inspected.config);
    read.map_or_else(|| config::Status::default().address, |config| config.status.address)
}

fn reasons(report: &Json) -> String {
    let checks = report.get("checks").and_then(Json::as_object);
    let failing = checks.into_iter().flatten().filter(|(_, check)| check.get("ready") == Some(&Json::Bool(false)));
    let told = failing.map(|(name, check)| {
        let reason = check.get("reason").and_then(Json::as_str).unwrap_or("not ready");
        format!("; {}: {}", visible(name), visible(reason))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_fails_is_told() {
        let store = json!({ "ready": false, "reason": "timed out" });
        let report = json!({ "ready": false, "checks": { "configuration": { "ready": true }, "store": store } });
        assert_eq!(reasons(&report), "; store: timed out");
        assert_eq!(reasons(&Json::Null), "");
    }
}
