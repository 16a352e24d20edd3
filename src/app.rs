//! The only assembly point: a configuration becomes parts, parts become tasks, and all of them end in order.

mod examine;
mod reload;
mod restart;
mod sockets;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::admin::{self, Admin};
use crate::audit::{Audit, SinkError};
use crate::clock::Clock;
use crate::config::{self, Config, Problems, StoreFailure, StoreKind};
use crate::drain::Drain;
use crate::exchange::{Exchanges, Rooms};
use crate::in_force::InForce;
use crate::keyring::{Keyring, KeyringError, LiveKeyring, Watch};
use crate::listener::{Bound, Terms};
use crate::readiness::Readiness;
use crate::session::{self, Live, Schema, Sessions};
use crate::store::{Counts, Embedded, Memory, OpenError, Redis, Store, StoreError, TrailBounds, Unusable};
use crate::telemetry::{Metrics, Observed, Tracer, TracingError};

pub use examine::{Examined, Refused, examine};
pub use reload::ReloadNow;
use reload::{Collector, Desk, Replaceable};
use sockets::Sockets;
pub use watch::Watch as ConfigWatch;

/// How often open exchanges are looked at: an end or a touch that is due is late by no more than this.
const PULSE: Duration = Duration::from_millis(250);
/// How often limits and idle connections are swept, and the store is looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// What has to hold before requests are wanted.
const CHECKS: [&str; 2] = ["configuration", "store"];

/// A running sidecar.
pub struct Running {
    /// Where the proxy listens, in the order of the file.
    pub proxy: Vec<Bound>,
    pub admin: SocketAddr,
    pub status: SocketAddr,
    pub exchanges: InForce<Exchanges>,
    pub metrics: Metrics,
    readiness: Readiness,
    drain: Drain,
    audit: Audit,
    store: Arc<dyn Store>,
    tasks: Vec<JoinHandle<()>>,
    shutdown: InForce<config::Shutdown>,
    /// None once another configuration may take its place.
    replaceable: Option<Replaceable>,
}

/// Why a sidecar could not start; one line each.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("the store {} cannot be opened: {error}", path.display())]
    Store { path: PathBuf, error: OpenError },
    #[error(transparent)]
    Redis(#[from] Unusable),
    #[error("the revocations could not be read: {0}")]
    Revocations(StoreError),
    #[error(transparent)]
    Audit(#[from] SinkError),
    #[error(transparent)]
    Tracing(#[from] TracingError),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: std::io::Error },
    #[error("the configuration is not sound: {0}")]
    Configuration(String),
}

/// Starts everything that a configuration asks for: sockets first, so that a taken port leaves nothing behind.
pub async fn start(config: &Config, clock: Clock) -> Result<Running, StartError> {
    start_through(config, clock, |store| store).await
}

/// The same with something between the sessions and their store, such as one that fails when it is told to.
pub async fn start_through(
    config: &Config,
    clock: Clock,
    between: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) -> Result<Running, StartError> {
    let metrics = Metrics::new();
    let (rooms, schema, terms) = compile(config)?;
    rooms.policies.count_in(&metrics);
    let sockets = Sockets::bind(config, terms).await?;
    let (drain, live) = (Drain::default(), Live::default());
    let keys = LiveKeyring::new(keyring(config, &clock)?);
    let store = between(open_store(config, &clock, &metrics).await?);
    let store: Arc<dyn Store> = Arc::new(Observed::new(store, &config.store, metrics.clone()));
    let audit = Audit::open(&config.audit.sinks, metrics.clone())?;
    let (tracer, exporting) = Tracer::open(&config.tracing, &config.environment, &metrics)?;
    let parts = session::Parts {
        store: store.clone(),
        schema,
        keys: keys.clone(),
        clock: clock.clone(),
        live: live.clone(),
        audit: audit.clone(),
        metrics: metrics.clone(),
    };
    let sessions = Arc::new(Sessions::new(parts, config));
    sessions.read_revocations().await.map_err(StartError::Revocations)?;
    let readiness = Readiness::awaiting(&CHECKS);
    let keeper = rooms.verifier.key_sets().keep(clock, readiness.clone(), drain.clone());
    let exchanges = InForce::new(Exchanges {
        rooms: Arc::new(rooms),
        sessions: sessions.clone(),
        store: store.clone(),
        metrics: metrics.clone(),
        tracer,
        drain: drain.clone(),
    });
    let parts = admin::Parts {
        sessions: sessions.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        drain: drain.clone(),
    };
    let desk = Desk::new(Admin::new(parts, config));
    let (proxy, admin, status) = sockets.addresses()?;
    let listeners = sockets.terms(config);
    let mut tasks = sockets.serve(&exchanges, &desk, &drain);
    tasks.push(tokio::spawn(keeper));
    tasks.push(tokio::spawn(pulse(exchanges.clone(), live, drain.clone())));
    let stale = config.store.on_failure == StoreFailure::Stale;
    tasks.push(tokio::spawn(sweep(exchanges.clone(), stale, readiness.clone(), drain.clone())));
    let path = keyring_path(config).unwrap_or_default();
    let watch = Arc::new(Mutex::new(Watch::new(path, config.keyring.activate_after.0)));
    tasks.push(tokio::spawn(follow_keys(watch.clone(), keys, drain.clone())));
    tasks.extend(exporting.map(|exporting| tokio::spawn(exporting.run(drain.clone()))));
    readiness.holds("configuration");
    metrics.config_valid.set(1);
    look_at_store(&sessions, false, &readiness).await;
    let shutdown = InForce::new(config.shutdown.clone());
    let replaceable = Replaceable {
        started: config.clone(),
        exchanges: exchanges.clone(),
        listeners,
        desk,
        audit: audit.clone(),
        keys: watch,
        shutdown: shutdown.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        collector: Collector::of(&config.tracing),
    };
    let replaceable = Some(replaceable);
    Ok(Running {
        proxy,
        admin,
        status,
        exchanges,
        metrics,
        readiness,
        drain,
        audit,
        store,
        tasks,
        shutdown,
        replaceable,
    })
}

fn compile(config: &Config) -> Result<(Rooms, Arc<Schema>, Vec<Terms>), StartError> {
    let mut problems = Problems::default();
    let rooms = Rooms::compile(config, &mut problems);
    let compiled = rooms.zip(Terms::compile(&config.listeners, &mut problems));
    compiled.map(|((rooms, schema), terms)| (rooms, schema, terms)).ok_or_else(|| {
        let first = problems.into_vec().into_iter().find(|problem| problem.severity == config::Severity::Error);
        let told = first.map_or_else(String::new, |problem| format!("{}: {}", problem.path, problem.message));
        StartError::Configuration(told)
    })
}

impl Running {
    /// Takes on the watched file from now on when it changes, and when that is asked for.
    pub fn follow(&mut self, watch: ConfigWatch) -> ReloadNow {
        let now = ReloadNow::default();
        if let Some(parts) = self.replaceable.take() {
            let following = reload::follow(parts, watch, now.clone(), self.drain.clone());
            self.tasks.push(tokio::spawn(following));
        }
        now
    }

    /// Sessions as the configuration in force has them.
    pub fn sessions(&self) -> Arc<Sessions> {
        self.exchanges.current().sessions.clone()
    }

    /// Ends in order: what is in flight may finish, its commits and audit copies are written, the store is closed.
    ///
    /// Says whether everything ended by itself.
    pub async fn shut_down(self) -> bool {
        let in_time = self.drain.finish(self.shutdown.current().drain.0).await;
        for task in self.tasks {
            let _ = task.await;
        }
        // The last of its owners: what waits for the disk is written before this returns.
        drop((self.exchanges, self.replaceable, self.store));
        self.audit.close();
        in_time
    }

    /// Tells whoever asks that no more work is wanted; what comes all the same is still served.
    pub fn begin_ending(&self) {
        self.readiness.draining();
    }

    /// How long what is in flight may then take.
    pub fn patience(&self) -> Duration {
        self.shutdown.current().drain.0
    }

    /// How long to go on accepting before [`Running::shut_down`], so that endpoints catch up.
    pub fn grace(&self) -> Duration {
        self.shutdown.current().grace.0
    }
}

/// Where the keyring is, if no place is given: beside the database.
pub fn keyring_path(config: &Config) -> Option<PathBuf> {
    let beside =
        || (config.store.kind == StoreKind::Embedded).then(|| config.store.path.with_extension("keyring.json"));
    config.keyring.path.clone().or_else(beside)
}

fn keyring(config: &Config, clock: &Clock) -> Result<Keyring, KeyringError> {
    let activate_after = config.keyring.activate_after.0;
    match (&config.keyring.path, keyring_path(config)) {
        (Some(path), _) => Keyring::load(path, activate_after),
        (None, Some(beside)) => {
            tracing::warn!(
                target: "cloakroom::keyring",
                path = %beside.display(),
                "the keyring lies beside the database that it protects; keyring.path puts it elsewhere",
            );
            // A new one beside an old database would open nothing in it, and rename every handle.
            if config.store.path.exists() {
                return Keyring::load(&beside, activate_after);
            }
            Keyring::load_or_create(&beside, activate_after, clock.now())
        }
        (None, None) => Keyring::ephemeral(clock.now()),
    }
}

async fn open_store(config: &Config, clock: &Clock, metrics: &Metrics) -> Result<Arc<dyn Store>, StartError> {
    let bounds = TrailBounds { keep: config.audit.keep, retain: config.audit.retain.0 };
    match config.store.kind {
        StoreKind::Memory => Ok(Arc::new(Memory::new(bounds))),
        StoreKind::Embedded => {
            let path = &config.store.path;
            let opened = Embedded::open(path, &config.environment, bounds, clock.clone());
            Ok(Arc::new(opened.map_err(|error| StartError::Store { path: path.clone(), error })?))
        }
        StoreKind::Redis => {
            let counts =
                Counts { damaged: metrics.store_damaged.clone(), unreplicated: metrics.store_unreplicated.clone() };
            let opened = Redis::open(&config.store, &config.environment, bounds, clock.clone(), counts);
            Ok(Arc::new(opened.await?))
        }
    }
}

/// Has open exchanges live and die with their sessions.
async fn pulse(exchanges: InForce<Exchanges>, live: Live, drain: Drain) {
    let mut ticks = tokio::time::interval(PULSE);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.over() => return,
        }
        let exchanges = exchanges.current();
        let due = live.tick(exchanges.sessions.now());
        if !due.is_empty() {
            // Beside the next look: a store that hangs must not keep sessions from ending.
            drain.spawn(async move {
                for (handle, birth) in due {
                    exchanges.touch_session(handle, birth).await;
                }
            });
        }
    }
}

/// Sweeps, and looks whether the store answers.
async fn sweep(exchanges: InForce<Exchanges>, stale: bool, readiness: Readiness, drain: Drain) {
    let mut ticks = tokio::time::interval(SWEEP);
    let mut has_answered = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.over() => return,
        }
        let exchanges = exchanges.current();
        exchanges.rooms.sweep();
        exchanges.sessions.sweep();
        give_back();
        look_at_backends(&exchanges.rooms, &readiness);
        has_answered |= look_at_store(&exchanges.sessions, stale && has_answered, &readiness).await;
    }
}

/// Has the allocator look at what it may give back to the system: it does so only when pieces of memory change hands, and
/// where nothing is asked none do. Without, what 600 connections let go when they rest stays, 14 KiB of each.
fn give_back() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
}

/// Says which backends take no connections: to know, not a reason to send requests elsewhere, where the same backend
/// would be down as well.
fn look_at_backends(rooms: &Rooms, readiness: &Readiness) {
    let down: Vec<&str> = rooms.upstreams.down().collect();
    match down.as_slice() {
        [] => readiness.holds("backends"),
        _ => readiness.holds_but("backends", format!("no connections are taken by {}", down.join(", "))),
    }
}

/// Whether the store answers. One that did before may be away for a while where stale sessions may be served.
async fn look_at_store(sessions: &Sessions, may_be_away: bool, readiness: &Readiness) -> bool {
    let answer = sessions.is_reachable().await;
    match &answer {
        Ok(()) => match sessions.store_remark() {
            None => readiness.holds("store"),
            Some(remark) => readiness.holds_but("store", remark),
        },
        Err(error) if may_be_away => readiness.holds_but("store", error.to_string()),
        Err(error) => readiness.fails("store", error.to_string()),
    }
    answer.is_ok()
}

/// Takes on the certificates of listeners when their files change.
async fn follow_files(listeners: Vec<InForce<Terms>>, drain: Drain) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => listeners.iter().for_each(|terms| terms.current().look()),
            () = drain.over() => return,
        }
    }
}

/// Takes on the keyring's file when it changes.
async fn follow_keys(watch: Arc<Mutex<Watch>>, keys: LiveKeyring, drain: Drain) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => watch.lock().unwrap_or_else(PoisonError::into_inner).look(&keys),
            () = drain.over() => return,
        }
    }
}
