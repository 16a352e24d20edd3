//! Dialling a server, and what a new connection is told before it is used.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, PushKind, RedisError, Value};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::frame;
use super::link::{Failure, Line, said, value};
use super::pipe::{Broken, Pipe};
use super::tls::{self, Distrust};
use crate::config::{self, ServerAddress, ServerUrl};
use crate::secret::Secret;
use crate::tls::Duplex;
use crate::together;

/// When the system looks whether a silent peer is still there, how often, and when it gives one up.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// What begins a word of the server's that keys have changed, before the keys.
const INVALIDATED: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

const SILENT: &str = "it does not answer";
const TOO_OLD: &str = "the server is too old: Redis 6 or Valkey is needed, for RESP3";

/// What the server tells without being asked.
pub(super) enum Told<'a> {
    /// These keys have changed.
    Changed(&'a [&'a str]),
    /// Any key may have.
    ChangedAll,
    /// Something was published.
    News,
}

pub(super) type Ear = Arc<dyn Fn(Told<'_>) + Send + Sync>;

/// What no later attempt can mend; one sentence about the server or the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Unusable {
    key: &'static str,
    reason: String,
}

impl Unusable {
    /// About what stands under a key of the configuration.
    pub(super) fn new(key: &'static str, reason: impl Into<String>) -> Self {
        Self { key, reason: reason.into() }
    }

    /// About a server.
    pub(super) fn server(reason: impl Into<String>) -> Self {
        Self::new("store.url", reason)
    }
}

/// Why there is no connection.
pub(super) enum NoLine {
    /// Not now.
    Unreachable(String),
    /// Not ever, with this configuration and this server.
    Unusable(Unusable),
}

impl NoLine {
    pub fn reason(self) -> String {
        match self {
            Self::Unreachable(reason) | Self::Unusable(Unusable { reason, .. }) => reason,
        }
    }
}

/// Dials servers, all by the same name and password.
#[derive(Clone)]
pub(super) struct Dialer {
    user: Option<String>,
    password: Option<Secret>,
    database: i64,
    tls: Option<TlsConnector>,
    pub timeout: Duration,
}

impl Dialer {
    pub fn new(url: &ServerUrl, config: &config::Store) -> Result<Self, Unusable> {
        let tls = match url.tls {
            true => Some(tls::connector(config.ca.as_deref()).map_err(|reason| Unusable::new("store.ca", reason))?),
            false => None,
        };
        let (user, password) = (url.user.clone(), url.password.clone());
        Ok(Self { user, password, database: url.database, tls, timeout: config.connect_timeout.0 })
    }

    /// The same for servers without databases, with or without the password.
    pub fn plain(&self, with_password: bool) -> Self {
        let password = self.password.clone().filter(|_| with_password);
        Self { password, database: 0, ..self.clone() }
    }

    /// A connection that has answered, under a name that the server's list of clients shows.
    ///
    /// With an ear, the server tells what changes among the keys that are read on it, where it can.
    pub async fn dial(
        &self,
        address: &ServerAddress,
        name: &str,
        number: u64,
        ear: Option<Ear>,
    ) -> Result<Line, NoLine> {
        let tracked = ear.is_some();
        let mut line = self.connect(address, number, ear).await?;
        let deadline = Instant::now() + self.timeout;
        let mut set_name = redis::cmd("CLIENT");
        set_name.arg("SETNAME").arg(format!("cloakroom-{name}"));
        // A name is a courtesy, and may be forbidden.
        let _ = line.ask(&set_name, deadline).await;
        if tracked {
            line.untold = track(&line, deadline).await?;
        }
        // Refused where the server is there and not ready yet.
        line.ask(&redis::cmd("PING"), deadline).await.map_err(refused)?;
        let answer = line.ask(&hello(), deadline).await.map_err(refused)?;
        if !is_primary(&answer) {
            return Err(NoLine::Unreachable("it is a replica, and takes no writes".into()));
        }
        Ok(line)
    }

    /// A connection that has taken the password.
    pub async fn connect(&self, address: &ServerAddress, number: u64, ear: Option<Ear>) -> Result<Line, NoLine> {
        let deadline = Instant::now() + self.timeout;
        let stream = self.open(address, deadline).await?;
        let broken = CancellationToken::new();
        let pipe = Pipe::open(stream, Box::new(move |said| hear(said, ear.as_ref())), broken.clone());
        self.introduce(&pipe, deadline).await?;
        Ok(Line::new(pipe, number, broken))
    }

    async fn open(&self, address: &ServerAddress, deadline: Instant) -> Result<Box<dyn Duplex>, NoLine> {
        let stream = timely(deadline, TcpStream::connect((address.host.as_str(), address.port)), SILENT).await?;
        let tuned = stream.and_then(|stream| tune(&stream).map(|()| stream)).map_err(|error| io(&error))?;
        let stream = together::Tcp::from(tuned);
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let nameless = |_| NoLine::Unusable(Unusable::server("no certificate can be for such a host"));
        let name = ServerName::try_from(address.host.clone()).map_err(nameless)?;
        let shaken = timely(deadline, tls.connect(name, stream), "it does not answer in TLS; redis:// is without");
        Ok(Box::new(shaken.await?.map_err(|error| io(&error))?))
    }

    /// Says who asks, and in which database.
    async fn introduce(&self, pipe: &Pipe, deadline: Instant) -> Result<(), NoLine> {
        let mut greeting = hello();
        if let Some(password) = &self.password {
            greeting.arg("AUTH").arg(self.user.as_deref().unwrap_or("default")).arg(password.reveal());
        }
        let mut choice = redis::cmd("SELECT");
        choice.arg(self.database);
        let steps = [Some(greeting), (self.database != 0).then_some(choice)];
        for step in steps.into_iter().flatten() {
            let answer = timely(deadline, pipe.ask(&step, None), SILENT).await?;
            // What it says of why is mostly lost with the connection.
            let hung_up = |Broken| NoLine::Unreachable("it hung up at once, as where maxclients is reached".into());
            value(&answer.map_err(hung_up)?).map_err(refused)?;
        }
        Ok(())
    }
}

async fn timely<T>(deadline: Instant, step: impl Future<Output = T>, otherwise: &str) -> Result<T, NoLine> {
    timeout_at(deadline, step).await.map_err(|_| NoLine::Unreachable(otherwise.into()))
}

/// A question that every server answers at once and to everybody, and by which it says what it is.
pub(super) fn hello() -> Cmd {
    let mut command = redis::cmd("HELLO");
    command.arg(3);
    command
}

/// Whether a server has not said that it is a replica; a proxy may say nothing.
pub(super) fn is_primary(hello: &Value) -> bool {
    !matches!(word(hello, "role").as_deref(), Some("replica" | "slave"))
}

/// Whether it is part of a cluster.
pub(super) fn is_in_cluster(hello: &Value) -> bool {
    word(hello, "mode").as_deref() == Some("cluster")
}

fn word(hello: &Value, name: &str) -> Option<String> {
    let text = |value: &Value| redis::from_redis_value_ref::<String>(value).ok();
    let pairs = hello.as_map_iter()?;
    pairs.into_iter().find(|(key, _)| text(key).as_deref() == Some(name)).and_then(|(_, value)| text(value))
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// How the server says that one key has changed.
pub(super) fn invalidation(key: &str) -> Vec<u8> {
    let mut length = itoa::Buffer::new();
    let of = [b"*1\r\n$", length.format(key.len()).as_bytes(), b"\r\n", key.as_bytes(), b"\r\n"];
    [INVALIDATED, &of.concat()].concat()
}

/// Runs on the connection's own task, before any later answer is given out.
fn hear(said: &[u8], ear: Option<&Ear>) {
    let Some(ear) = ear else { return };
    // Most of what is said is that one session has changed; as a value that takes 14,000 instructions (callgrind).
    if let Some(keys) = said.strip_prefix(INVALIDATED).and_then(frame::texts) {
        return ear(Told::Changed(&keys));
    }
    let Ok(Value::Push { kind, .. }) = redis::parse_redis_value(said) else { return };
    match kind {
        // Which ones it does not say, or not so that it is understood here.
        PushKind::Invalidate => ear(Told::ChangedAll),
        PushKind::Message => ear(Told::News),
        _ => {}
    }
}

/// Asks to be told of changes. Where that is refused, says in which word; nothing else is the worse for it.
async fn track(line: &Line, deadline: Instant) -> Result<Option<Arc<str>>, NoLine> {
    let mut command = redis::cmd("CLIENT");
    command.arg("TRACKING").arg("ON");
    match line.ask(&command, deadline).await {
        Ok(_) => Ok(None),
        Err(Failure::Refused(error)) if matches!(error.code(), Some("NOPERM" | "ERR")) => Ok(Some(said(&error).into())),
        Err(failure) => Err(refused(failure)),
    }
}

fn refused(failure: Failure) -> NoLine {
    match failure {
        Failure::Refused(error) => no_line(&error),
        Failure::NoLine(_) | Failure::Unanswered => NoLine::Unreachable(SILENT.into()),
    }
}

pub(super) fn no_line(error: &RedisError) -> NoLine {
    let detail = error.detail().unwrap_or_default();
    let unusable = |reason: &str| NoLine::Unusable(Unusable::server(reason));
    match (error.kind(), error.code().unwrap_or_default()) {
        (_, "NOPROTO") => unusable(TOO_OLD),
        _ if detail.contains("unknown command") && detail.contains("HELLO") => unusable(TOO_OLD),
        (_, "NOAUTH") => unusable("the server asks for a password"),
        (ErrorKind::AuthenticationFailed, _) | (_, "WRONGPASS") => {
            unusable("the server refuses the user or the password")
        }
        (_, "NOPERM") => unusable("this user lacks the permission for PING"),
        _ if detail.contains("DB index") => unusable("the server has no database of that number"),
        _ if detail.contains("max number of clients") => {
            NoLine::Unreachable("it takes no more clients: maxclients is reached".into())
        }
        _ => NoLine::Unreachable(format!("it answered {}", said(error))),
    }
}

fn io(error: &std::io::Error) -> NoLine {
    match Distrust::of(error) {
        Some(Distrust::Lasting(reason)) => return NoLine::Unusable(Unusable::server(reason)),
        Some(Distrust::Passing(reason)) => return NoLine::Unreachable(reason.into()),
        None => {}
    }
    let reason = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "the connection was refused",
        std::io::ErrorKind::TimedOut => "it does not answer",
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => "it hung up",
        _ if error.raw_os_error().is_none() => "its name leads nowhere",
        _ => "the connection failed",
    };
    NoLine::Unreachable(reason.into())
}
