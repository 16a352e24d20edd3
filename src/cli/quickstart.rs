//! `cloakroom quickstart`: the main job with nothing installed.

mod echo;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::net::TcpListener;

use crate::app::{self, ReloadNow, Running};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::handle::{Handle, NoEntropy};
use crate::listener::Bound;
use crate::session::{Actor, ActorKind};
use crate::structured::Value;
use crate::telemetry;

use super::{fail, run};

#[derive(clap::Args)]
pub struct QuickstartArgs {
    /// Where the proxy listens; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the admin API listens; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:9900")]
    admin: SocketAddr,
    /// The folder for the store and its keys; without it, a temporary one that is removed at the end
    #[arg(long)]
    path: Option<PathBuf>,
}

/// The demo's configuration; what differs from run to run is put in its place.
const CONFIGURATION: &str = include_str!("quickstart/cloakroom.yaml");

/// The demo's user.
const FIELDS: [(&str, &str); 5] = [
    ("user_id", "u-456"),
    ("auth_status", "authenticated"),
    ("email", "jane@example.org"),
    ("current_project_id", "proj-789"),
    ("ui_preferences.theme", "dark"),
];

/// Why the demo could not start; one line each.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the folder {} cannot be used: {error}", path.display())]
    Folder { path: PathBuf, error: std::io::Error },
    #[error("the demo's configuration is not sound:\n{0}")]
    Configuration(String),
    #[error(transparent)]
    Start(#[from] app::StartError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the demo's session could not be made: {0}")]
    Session(#[from] crate::session::CommitError),
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
}

pub fn run(args: &QuickstartArgs) -> ExitCode {
    let logs = config::Log { level: "warn,cloakroom::keyring=error".into(), format: config::LogFormat::Pretty };
    let _logs = match telemetry::start_logs(&logs) {
        Ok(flush) => flush,
        Err(error) => return fail(error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(demonstrate(args)) {
        Ok(code) => code,
        Err(error) => fail(error),
    }
}

async fn demonstrate(args: &QuickstartArgs) -> Result<ExitCode, Failed> {
    // Removed when this returns, unless the place was given.
    let temporary = tempfile::Builder::new().prefix("cloakroom-").tempdir()?;
    let folder = args.path.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder).map_err(|error| Failed::Folder { path: folder.to_owned(), error })?;
    let backend = TcpListener::bind("127.0.0.1:0").await?;
    let token = crate::handle::random_token()?;
    let config = configuration(args, folder, backend.local_addr()?, &token)?;
    tokio::spawn(echo::serve(backend));
    let running = app::start(&config, Clock::system()).await?;
    let (id, handle) = demo_session(&running).await?;
    let shown = Shown { running: &running, id: &id, handle, token: &token, folder };
    let _ = std::io::stdout().write_all(shown.text().as_bytes());
    Ok(run::serve(running, &ReloadNow::default()).await)
}

fn configuration(args: &QuickstartArgs, folder: &Path, backend: SocketAddr, token: &str) -> Result<Config, Failed> {
    let value = |name: &str| match name {
        "LISTEN" => Some(args.listen.to_string()),
        "ADMIN" => Some(args.admin.to_string()),
        "ADMIN_TOKEN" => Some(token.to_owned()),
        "BACKEND" => Some(backend.to_string()),
        _ => None,
    };
    config::parse(CONFIGURATION, &folder.join("quickstart.yaml"), &value)
        .map(|loaded| loaded.config)
        .map_err(|problems| Failed::Configuration(problems.render(false)))
}

async fn demo_session(running: &Running) -> Result<(String, Handle), Failed> {
    let sessions = running.sessions();
    let values = FIELDS.iter().filter_map(|(path, text)| {
        let (index, field) = sessions.schema.find(path)?;
        Some((index, field.fit(Value::text(text)).ok()?))
    });
    let actor = Actor::new(ActorKind::Admin);
    let created = sessions.create(&values.collect::<Vec<_>>(), sessions.lifetime(), &actor).await?;
    Ok((created.id.reveal().to_string(), created.id.handle()))
}

/// What the demo prints: where it listens, and what to try.
struct Shown<'a> {
    running: &'a Running,
    id: &'a str,
    handle: Handle,
    token: &'a str,
    folder: &'a Path,
}

impl Shown<'_> {
    fn text(&self) -> String {
        let proxy = self.running.proxy.first().map(Bound::to_string).unwrap_or_default();
        let (id, handle, admin) = (self.id, self.handle, self.running.admin);
        let agent = format!("http://{proxy}/agent");
        let bearer = format!("-H 'Authorization: Bearer {id}'");
        let lines = [
            (
                "The context that the agent sees: the e-mail address only as a handle, hdl_…",
                format!("curl -s {bearer} '{agent}'"),
            ),
            (
                "A write-back: the echo agent answers with the change that the query asks for",
                format!("curl -s {bearer} -G --data-urlencode 'set=current_project_id=\"proj-790\"' '{agent}'"),
            ),
            ("The changed context on the next request", format!("curl -s {bearer} '{agent}'")),
            (
                "A field that this route may not write: refused whole, 502 write-back-rejected",
                format!("curl -si {bearer} -G --data-urlencode 'set=user_id=\"u-1\"' '{agent}'"),
            ),
            (
                "A context that the client made up: stripped, the agent sees the real one",
                format!("curl -s {bearer} -H 'Cloakroom-Context: user_id=\"u-1\"' '{agent}'"),
            ),
            ("No credential: 401 credential-missing", format!("curl -si '{agent}'")),
            (
                "A credential that is none: 401 credential-invalid",
                format!("curl -si -H 'Authorization: Bearer cr_no-such-thing' '{agent}'"),
            ),
            (
                "The session's audit trail, newest first",
                format!(
                    "curl -s -H 'Authorization: Bearer {}' 'http://{admin}/v1/sessions/{handle}/audit'",
                    self.token
                ),
            ),
        ];
        let mut text = format!(
            "cloakroom listens on http://{proxy}, its admin API on http://{admin}.\n\
             Behind it stands an echo agent that shows what it receives. The store is in {}.\n",
            self.folder.display()
        );
        for (number, (what, line)) in (1..).zip(lines) {
            text.push_str(&format!("\n# {number}. {what}\n{line}\n"));
        }
        text.push_str("\nCtrl-C ends it.\n");
        text
    }
}
