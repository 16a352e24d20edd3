//! Dialling the server, and what a new connection is told before it is used.

use std::sync::Arc;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError,
    Value,
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::link::{Line, said};

/// When the system looks whether a silent peer is still there, how often, and when it gives one up.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Commands that may wait to be written to a connection.
const QUEUE: usize = 1024;

/// What the server tells without being asked.
pub(super) enum Told {
    /// These keys have changed.
    Changed(Vec<Vec<u8>>),
    /// Any key may have.
    ChangedAll,
}

pub(super) type Ear = Arc<dyn Fn(Told) + Send + Sync>;

/// What no later attempt can mend; one sentence about the server or the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store.url: {0}")]
pub struct Unusable(pub(super) String);

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
            Self::Unreachable(reason) | Self::Unusable(Unusable(reason)) => reason,
        }
    }
}

/// Dials one server.
#[derive(Clone)]
pub(super) struct Dialer {
    client: Client,
    timeout: Duration,
}

impl Dialer {
    pub fn new(url: &str, timeout: Duration) -> Result<Self, Unusable> {
        // The library's words may quote the URL, password and all.
        let unreadable = |_| Unusable("this is not a URL of a Redis server".into());
        let info = url.into_connection_info().map_err(unreadable)?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(USER_TIMEOUT);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        Ok(Self { client: Client::open(info).map_err(unreadable)?, timeout })
    }

    /// A connection that has answered, under a name that the server's list of clients shows.
    ///
    /// With an ear, the server tells what changes among the keys that are read on it.
    pub async fn dial(&self, name: &str, number: u64, ear: Option<Ear>) -> Result<Line, NoLine> {
        let tracked = ear.is_some();
        let (connection, broken) = self.connect(ear).await?;
        let line = Line::new(connection, number, broken);
        let deadline = Instant::now() + self.timeout;
        let mut set_name = redis::cmd("CLIENT");
        set_name.arg("SETNAME").arg(format!("cloakroom-{name}"));
        // A name is a courtesy, and may be forbidden.
        let _ = line.ask(&set_name, deadline).await;
        let mut first = redis::cmd("CLIENT");
        first.arg("TRACKING").arg("ON");
        let commands = tracked.then_some(first).into_iter().chain([redis::cmd("PING")]);
        for command in commands {
            line.ask(&command, deadline).await.map_err(refused)?;
        }
        Ok(line)
    }

    async fn connect(
        &self,
        ear: Option<Ear>,
    ) -> Result<(redis::aio::MultiplexedConnection, CancellationToken), NoLine> {
        let broken = CancellationToken::new();
        let ended = broken.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            // Each call has a deadline of its own.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE)
            .set_push_sender(move |push: PushInfo| {
                hear(push, ear.as_ref(), &ended);
                Ok::<(), redis::aio::SendError>(())
            });
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        match timeout(self.timeout, connecting).await {
            Ok(Ok(connection)) => Ok((connection, broken)),
            Ok(Err(error)) => Err(no_line(&error)),
            Err(_) => Err(NoLine::Unreachable("it does not answer".into())),
        }
    }
}

/// Runs on the connection's own task, before any later answer is given out.
fn hear(push: PushInfo, ear: Option<&Ear>, ended: &CancellationToken) {
    match (push.kind, ear) {
        (PushKind::Disconnection, _) => ended.cancel(),
        (PushKind::Invalidate, Some(ear)) => ear(match push.data.into_iter().next() {
            Some(Value::Array(keys)) => Told::Changed(keys.into_iter().filter_map(bytes).collect()),
            _ => Told::ChangedAll,
        }),
        _ => {}
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

fn refused(failure: super::link::Failure) -> NoLine {
    match failure {
        super::link::Failure::Refused(error) => no_line(&error),
        super::link::Failure::NoLine(_) | super::link::Failure::Unanswered => {
            NoLine::Unreachable("it does not answer".into())
        }
    }
}

fn no_line(error: &RedisError) -> NoLine {
    let detail = error.detail().unwrap_or_default();
    let unusable = |reason: &str| NoLine::Unusable(Unusable(reason.to_owned()));
    match (error.kind(), error.code().unwrap_or_default()) {
        (ErrorKind::RESP3NotSupported, _) => unusable("the server is too old: Redis 6 or Valkey is needed, for RESP3"),
        (_, "NOAUTH") => unusable("the server asks for a password"),
        (ErrorKind::AuthenticationFailed, _) | (_, "WRONGPASS") => {
            unusable("the server refuses the user or the password")
        }
        (_, "NOPERM") => unusable("the server refuses CLIENT TRACKING or PING to this user"),
        _ if detail.contains("DB index") => unusable("the server has no database of that number"),
        (ErrorKind::Io, _) => NoLine::Unreachable(io_reason(error)),
        _ => NoLine::Unreachable(format!("it answered {}", said(error))),
    }
}

fn io_reason(error: &RedisError) -> String {
    if error.is_connection_refusal() {
        "the connection was refused".into()
    } else if error.is_timeout() {
        "it does not answer".into()
    } else {
        "the connection failed".into()
    }
}
