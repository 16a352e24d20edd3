//! The only assembly point: a configuration becomes parts, parts become tasks, and all of them end in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::admin::{self, Admin};
use crate::audit::{Audit, SinkError};
use crate::clock::Clock;
use crate::config::{self, Config, Problems, StoreFailure, StoreKind};
use crate::drain::Drain;
use crate::exchange::{Exchanges, Rooms};
use crate::keyring::{Keyring, KeyringError, LiveKeyring, Watch};
use crate::listener::Listener;
use crate::readiness::Readiness;
use crate::session::{self, Live, Schema, Sessions};
use crate::store::{Embedded, Memory, OpenError, Redis, Store, StoreError, TrailBounds, Unusable};
use crate::telemetry::Metrics;

/// How often open exchanges are looked at: an end or a touch that is due is late by no more than this.
const PULSE: Duration = Duration::from_millis(250);
/// How often limits and idle connections are swept, and the store is looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// What has to hold before requests are wanted.
const CHECKS: [&str; 2] = ["configuration", "store"];

/// A running sidecar.
pub struct Running {
    /// Where the proxy listens, in the order of the file.
    pub proxy: Vec<SocketAddr>,
    pub admin: SocketAddr,
    pub status: SocketAddr,
    pub sessions: Arc<Sessions>,
    pub metrics: Metrics,
    readiness: Readiness,
    drain: Drain,
    audit: Audit,
    store: Arc<dyn Store>,
    tasks: Vec<JoinHandle<()>>,
    shutdown: config::Shutdown,
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
    let (rooms, schema) = compile(config)?;
    let sockets = Sockets::bind(config).await?;
    let (drain, metrics, live) = (Drain::default(), Metrics::new(), Live::default());
    let keys = LiveKeyring::new(keyring(config, &clock)?);
    let store = between(open_store(config, &clock).await?);
    let audit = Audit::open(&config.audit.sinks, metrics.clone())?;
    let parts = session::Parts {
        store: store.clone(),
        schema,
        keys: keys.clone(),
        clock,
        live: live.clone(),
        audit: audit.clone(),
    };
    let sessions = Arc::new(Sessions::new(parts, config));
    sessions.read_revocations().await.map_err(StartError::Revocations)?;
    let readiness = Readiness::awaiting(&CHECKS);
    let exchanges = Exchanges {
        rooms: Arc::new(rooms),
        sessions: sessions.clone(),
        store: store.clone(),
        metrics: metrics.clone(),
        drain: drain.clone(),
    };
    let (proxy, admin, status) = sockets.addresses()?;
    let mut tasks = sockets.serve(config, &exchanges, &readiness);
    tasks.push(tokio::spawn(pulse(exchanges.clone(), live, drain.clone())));
    let stale = config.store.on_failure == StoreFailure::Stale;
    tasks.push(tokio::spawn(sweep(exchanges, stale, readiness.clone(), drain.clone())));
    if let Some(path) = keyring_path(config) {
        let watch = Watch::new(path, config.keyring.activate_after.0);
        tasks.push(tokio::spawn(follow_keys(watch, keys, drain.clone())));
    }
    readiness.holds("configuration");
    look_at_store(&sessions, false, &readiness).await;
    let shutdown = config.shutdown.clone();
    Ok(Running { proxy, admin, status, sessions, metrics, readiness, drain, audit, store, tasks, shutdown })
}

fn compile(config: &Config) -> Result<(Rooms, Arc<Schema>), StartError> {
    let mut problems = Problems::default();
    Rooms::compile(config, &mut problems).ok_or_else(|| {
        let first = problems.into_vec().into_iter().find(|problem| problem.severity == config::Severity::Error);
        let told = first.map_or_else(String::new, |problem| format!("{}: {}", problem.path, problem.message));
        StartError::Configuration(told)
    })
}

/// Every address that is listened on, bound and not served yet.
struct Sockets {
    proxy: Vec<Listener>,
    admin: TcpListener,
    status: TcpListener,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            proxy: config.listeners.iter().map(bind).collect::<Result<_, _>>()?,
            admin: listen(&config.admin.address).await?,
            status: listen(&config.status.address).await?,
        })
    }

    fn addresses(&self) -> Result<(Vec<SocketAddr>, SocketAddr, SocketAddr), StartError> {
        let of = |address: std::io::Result<SocketAddr>| address.map_err(cannot_listen("a bound address"));
        let proxy = self.proxy.iter().map(|listener| of(listener.address())).collect::<Result<_, _>>()?;
        Ok((proxy, of(self.admin.local_addr())?, of(self.status.local_addr())?))
    }

    fn serve(self, config: &Config, exchanges: &Exchanges, readiness: &Readiness) -> Vec<JoinHandle<()>> {
        let drain = &exchanges.drain;
        let parts = admin::Parts {
            sessions: exchanges.sessions.clone(),
            metrics: exchanges.metrics.clone(),
            readiness: readiness.clone(),
            drain: drain.clone(),
        };
        let admin = Arc::new(Admin::new(parts, config));
        let (all, status) = (admin::admin_router(admin.clone()), admin::status_router(admin));
        let mut tasks = vec![
            tokio::spawn(admin::serve(self.admin, all, drain.clone())),
            tokio::spawn(admin::serve(self.status, status, drain.clone())),
        ];
        let proxies = self.proxy.into_iter().map(|listener| listener.serve(drain.clone(), exchanges.clone()));
        tasks.extend(proxies.map(tokio::spawn));
        tasks
    }
}

impl Running {
    /// Ends in order: what is in flight may finish, its commits and audit copies are written, the store is closed.
    ///
    /// Says whether everything ended by itself.
    pub async fn shut_down(self) -> bool {
        let in_time = self.drain.finish(self.shutdown.drain.0).await;
        for task in self.tasks {
            let _ = task.await;
        }
        // The last of its owners: what waits for the disk is written before this returns.
        drop((self.sessions, self.store));
        self.audit.close();
        in_time
    }

    /// Tells whoever asks that no more work is wanted; what comes all the same is still served.
    pub fn begin_ending(&self) {
        self.readiness.draining();
    }

    /// How long to go on accepting before [`Running::shut_down`], so that endpoints catch up.
    pub fn grace(&self) -> Duration {
        self.shutdown.grace.0
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

async fn open_store(config: &Config, clock: &Clock) -> Result<Arc<dyn Store>, StartError> {
    let bounds = TrailBounds { keep: config.audit.keep, retain: config.audit.retain.0 };
    match config.store.kind {
        StoreKind::Memory => Ok(Arc::new(Memory::new(bounds))),
        StoreKind::Embedded => {
            let path = &config.store.path;
            let opened = Embedded::open(path, &config.environment, bounds, clock.clone());
            Ok(Arc::new(opened.map_err(|error| StartError::Store { path: path.clone(), error })?))
        }
        StoreKind::Redis => Ok(Arc::new(Redis::open(&config.store, &config.environment, bounds, clock.clone()).await?)),
    }
}

fn bind(raw: &config::Listener) -> Result<Listener, StartError> {
    let refused = cannot_listen(&raw.address);
    let address = raw.address.parse().map_err(|_| refused(not_an_address()))?;
    Listener::bind(address, raw.limits.clone()).map_err(refused)
}

async fn listen(address: &str) -> Result<TcpListener, StartError> {
    let refused = cannot_listen(address);
    let parsed: SocketAddr = address.parse().map_err(|_| refused(not_an_address()))?;
    TcpListener::bind(parsed).await.map_err(refused)
}

fn cannot_listen(address: &str) -> impl Fn(std::io::Error) -> StartError {
    move |error| StartError::Listen { address: address.to_owned(), error }
}

fn not_an_address() -> std::io::Error {
    std::io::Error::other("it is not an address and a port")
}

/// Has open exchanges live and die with their sessions.
async fn pulse(exchanges: Exchanges, live: Live, drain: Drain) {
    let mut ticks = tokio::time::interval(PULSE);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.over() => return,
        }
        let due = live.tick(exchanges.sessions.now());
        if !due.is_empty() {
            // Beside the next look: a store that hangs must not keep sessions from ending.
            let exchanges = exchanges.clone();
            drain.spawn(async move {
                for (handle, birth) in due {
                    exchanges.touch_session(handle, birth).await;
                }
            });
        }
    }
}

/// Sweeps, and looks whether the store answers.
async fn sweep(exchanges: Exchanges, stale: bool, readiness: Readiness, drain: Drain) {
    let mut ticks = tokio::time::interval(SWEEP);
    let mut has_answered = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.over() => return,
        }
        exchanges.rooms.sweep();
        has_answered |= look_at_store(&exchanges.sessions, stale && has_answered, &readiness).await;
    }
}

/// Whether the store answers. One that did before may be away for a while where stale sessions may be served.
async fn look_at_store(sessions: &Sessions, may_be_away: bool, readiness: &Readiness) -> bool {
    let answer = sessions.is_reachable().await;
    match &answer {
        Ok(()) => readiness.holds("store"),
        Err(error) if may_be_away => readiness.holds_but("store", error.to_string()),
        Err(error) => readiness.fails("store", error.to_string()),
    }
    answer.is_ok()
}

/// Takes on the keyring's file when it changes.
async fn follow_keys(mut watch: Watch, keys: LiveKeyring, drain: Drain) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => watch.look(&keys),
            () = drain.over() => return,
        }
    }
}
