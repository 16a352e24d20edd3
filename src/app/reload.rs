//! Another configuration in place of the one in force, while exchanges go on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::audit::Audit;
use crate::config::{self, Config, Diagnostics, Severity};
use crate::drain::Drain;
use crate::exchange::Exchanges;
use crate::in_force::InForce;
use crate::keyring;
use crate::listener::Terms;
use crate::readiness::Readiness;
use crate::telemetry::{Metrics, Reload, Tracer, TracingError, change_logs};

use super::examine::{Examined, examine};
use super::keyring_path;
use super::restart::awaits_restart;
use super::watch::Watch;

/// How often the configuration's files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The check that says what became of the last change.
const CHECK: &str = "configuration";

/// Everything of a running sidecar that another configuration replaces.
pub struct Replaceable {
    /// What it was started with.
    pub started: Config,
    pub exchanges: InForce<Exchanges>,
    pub listeners: Vec<(String, InForce<Terms>)>,
    pub desk: Desk,
    pub audit: Audit,
    pub keys: Arc<Mutex<keyring::Watch>>,
    pub shutdown: InForce<config::Shutdown>,
    pub readiness: Readiness,
    pub metrics: Metrics,
    pub collector: Collector,
}

/// Where spans are sent, and what sends them to another collector than that of the start.
pub struct Collector {
    url: Option<String>,
    sending: JoinSet<()>,
}

impl Collector {
    pub fn of(section: &config::Tracing) -> Self {
        Self { url: section.otlp.clone(), sending: JoinSet::new() }
    }
}

/// The admin and status listeners' routers, and what they answer from.
pub struct Desk {
    admin: Arc<Admin>,
    pub all: InForce<Router>,
    pub status: InForce<Router>,
}

impl Desk {
    pub fn new(admin: Admin) -> Self {
        let admin = Arc::new(admin);
        let (all, status) = (admin::admin_router(admin.clone()), admin::status_router(admin.clone()));
        Self { admin, all: InForce::new(all), status: InForce::new(status) }
    }

    fn replace(&mut self, admin: Admin) {
        self.admin = Arc::new(admin);
        self.all.replace(admin::admin_router(self.admin.clone()));
        self.status.replace(admin::status_router(self.admin.clone()));
    }
}

/// Asks for the configuration to be read anew, whether or not its files have changed.
#[derive(Debug, Clone, Default)]
pub struct ReloadNow(Arc<Notify>);

impl ReloadNow {
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

/// Takes on the configuration's file when it changes and when that is asked for, until the drain begins.
pub async fn follow(mut parts: Replaceable, mut watch: Watch, now: ReloadNow, drain: Drain) {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            () = now.0.notified() => true,
            () = drain.begun() => break,
        };
        if asked || watch.has_changed() {
            parts.reload(&mut watch);
        }
    }
    // The last spans are sent when the drain is over.
    while parts.collector.sending.join_next().await.is_some() {}
}

impl Replaceable {
    /// Reads the file and takes it on, or says why not; then everything is as it was.
    fn reload(&mut self, watch: &mut Watch) {
        watch.reading();
        let before = self.exchanges.current();
        match examine(watch.path(), Some(&before.rooms)) {
            Ok(examined) => {
                watch.refers_to(examined.referred.clone());
                report(&examined.warnings);
                match self.take_on(examined) {
                    Ok(awaiting) => self.tell_applied(&awaiting),
                    Err(reason) => self.tell_refused(reason),
                }
            }
            Err(refused) => {
                if !refused.referred.is_empty() {
                    watch.refers_to(refused.referred);
                }
                report(&refused.diagnostics);
                self.tell_refused(summary(&refused.diagnostics));
            }
        }
    }

    /// Puts a configuration in force. What may fail comes first, so that one that cannot be taken on changes nothing.
    ///
    /// Gives the keys that await a restart.
    fn take_on(&mut self, examined: Examined) -> Result<Vec<String>, String> {
        let Examined { config, rooms, schema, terms, .. } = examined;
        let sinks = self.audit.prepare(&config.audit.sinks).map_err(|error| error.to_string())?;
        let before = self.exchanges.current();
        let tracer = self.tracer(&before, &config.tracing).map_err(|error| error.to_string())?;
        rooms.policies.count_in(&self.metrics);
        let sessions = Arc::new(before.sessions.under(schema, &config));
        let admin = self.desk.admin.under(sessions.clone(), &config);
        self.audit.replace(sinks);
        self.exchanges.replace(Exchanges { rooms: Arc::new(rooms), sessions, tracer, ..Exchanges::clone(&before) });
        self.desk.replace(admin);
        for (listener, terms) in config.listeners.iter().zip(terms) {
            if let Some((_, in_force)) = self.listeners.iter().find(|(address, _)| *address == listener.address) {
                in_force.replace(terms);
            }
        }
        // Beside the database, it stays with the one that is open.
        if let Some(path) = config.keyring.path.clone().or_else(|| keyring_path(&self.started)) {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.follow(path, config.keyring.activate_after.0);
        }
        self.shutdown.replace(config.shutdown.clone());
        change_logs(&config.log);
        Ok(awaits_restart(&self.started, &config))
    }

    /// Has spans be sent as another configuration says; whoever sent them elsewhere ends with the last exchange of before.
    fn tracer(&mut self, before: &Exchanges, section: &config::Tracing) -> Result<Tracer, TracingError> {
        if section.otlp == self.collector.url {
            return Ok(before.tracer.sampling(section.sample));
        }
        let (tracer, exporting) = Tracer::open(section, &self.started.environment, &self.metrics)?;
        self.collector.url = section.otlp.clone();
        while self.collector.sending.try_join_next().is_some() {}
        if let Some(exporting) = exporting {
            self.collector.sending.spawn(exporting.run(before.drain.clone()));
        }
        Ok(tracer)
    }

    fn tell_applied(&self, awaiting: &[String]) {
        if awaiting.is_empty() {
            tracing::info!(target: "cloakroom::config", "the new configuration is in force");
            self.readiness.holds(CHECK);
        } else {
            let keys = awaiting.join(", ");
            tracing::warn!(target: "cloakroom::config", keys, "the new configuration is in force, but for what needs a restart");
            self.readiness.holds_but(CHECK, format!("a restart is needed for: {keys}"));
        }
        self.metrics.reloaded(Reload::Applied);
    }

    fn tell_refused(&self, reason: String) {
        tracing::error!(target: "cloakroom::config", reason, "the new configuration was refused; the one before stays in force");
        self.readiness.holds_but(CHECK, format!("the new configuration was refused: {reason}"));
        self.metrics.reloaded(Reload::Refused);
    }
}

/// One line of the log for each problem.
fn report(diagnostics: &Diagnostics) {
    for problem in diagnostics.iter() {
        let place = format!("{}:{}:{}", problem.file, problem.line, problem.column);
        let (path, help, message) = (&*problem.path, problem.help.as_deref(), &*problem.message);
        match problem.severity {
            Severity::Error => tracing::error!(target: "cloakroom::config", place, path, help, "{message}"),
            Severity::Warning => tracing::warn!(target: "cloakroom::config", place, path, help, "{message}"),
        }
    }
}

/// The first error with its place, and how many there are.
fn summary(diagnostics: &Diagnostics) -> String {
    let errors: Vec<_> = diagnostics.iter().filter(|problem| problem.severity == Severity::Error).collect();
    let Some(first) = errors.first() else { return "it has no rooms".into() };
    let more = match errors.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    format!("{}:{}:{}: {}{more}", first.file, first.line, first.column, first.message)
}
