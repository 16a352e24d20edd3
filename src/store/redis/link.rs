//! Connections to the server that are dialled, watched, and dialled again.
//!
//! A link is where callers ask; a line is one connection of it. A line with a command that was not answered in
//! time is never used again, so that no answer can be taken for another's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::pipe::{Broken, Echo, Pipe};
use crate::config::ServerAddress;
use crate::store::StoreError;

/// How old a proof may be before nothing is believed that was not asked for.
pub(super) const PROVEN_FOR: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Line {
    pipe: Pipe,
    /// No two lines of a store have the same; 0 is none's.
    pub number: u64,
    /// Why the server does not tell on this line what has changed, where it was asked to.
    pub untold: Option<Arc<str>>,
    broken: CancellationToken,
}

impl Line {
    /// The token is cancelled when the connection ends, and ends it.
    pub fn new(pipe: Pipe, number: u64, broken: CancellationToken) -> Self {
        Self { pipe, number, untold: None, broken }
    }

    /// Asks once. A line that does not answer by the deadline is broken off.
    pub async fn ask(&self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let answer = self.ask_raw(command, None, deadline).await?;
        self.judged(value(&answer))
    }

    /// The same, for an answer that is not read here.
    pub async fn ask_raw(&self, command: &Cmd, echo: Option<Echo>, deadline: Instant) -> Result<Bytes, Failure> {
        let asked = timeout_at(deadline, self.pipe.ask(command, echo)).await;
        self.judged(match asked {
            Ok(Ok(answer)) => unless_refused(answer),
            Ok(Err(Broken)) | Err(_) => Err(Failure::Unanswered),
        })
    }

    /// Asks all of these with nothing in between; the first that is refused stands for all.
    pub async fn ask_all(&self, commands: &[&Cmd], deadline: Instant) -> Result<Vec<Value>, Failure> {
        let answers = self.ask_all_raw(commands, deadline).await?;
        self.judged(answers.iter().map(|answer| value(answer)).collect())
    }

    /// The same, for answers that are not read here.
    pub async fn ask_all_raw(&self, commands: &[&Cmd], deadline: Instant) -> Result<Vec<Bytes>, Failure> {
        let asked = timeout_at(deadline, self.pipe.ask_all(commands)).await;
        self.judged(match asked {
            Ok(Ok(answers)) => answers.into_iter().map(unless_refused).collect(),
            Ok(Err(Broken)) | Err(_) => Err(Failure::Unanswered),
        })
    }

    fn judged<T>(&self, answer: Result<T, Failure>) -> Result<T, Failure> {
        if answer.as_ref().is_err_and(Failure::ends_the_line) {
            self.break_off();
        }
        answer
    }

    /// Has the server tell of what is published there, if it will.
    pub async fn subscribe(&self, channel: &str, deadline: Instant) {
        let mut command = redis::cmd("SUBSCRIBE");
        command.arg(channel);
        let _ = timeout_at(deadline, self.pipe.ask_by_push(&command)).await;
    }

    pub fn break_off(&self) {
        self.broken.cancel();
    }

    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }
}

fn unless_refused(answer: Bytes) -> Result<Bytes, Failure> {
    if matches!(answer.first(), Some(b'-' | b'!')) {
        value(&answer)?;
    }
    Ok(answer)
}

/// What an answer says, if it does not say no. One that cannot be read is none.
pub(super) fn value(answer: &[u8]) -> Result<Value, Failure> {
    let value = redis::parse_redis_value(answer).map_err(|_| Failure::Unanswered)?;
    value.extract_error().map_err(Failure::Refused)
}

/// Why there is no answer, or none that says yes.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was sent.
    NoLine(StoreError),
    /// It may have been sent, and done; nobody knows.
    Unanswered,
    /// The server did nothing of it.
    Refused(RedisError),
}

impl Failure {
    /// A server that is no primary any more, or not yet ready, is better dialled anew.
    fn ends_the_line(&self) -> bool {
        use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
        match self {
            Self::NoLine(_) => false,
            Self::Unanswered => true,
            Self::Refused(error) => {
                matches!(error.kind(), ErrorKind::Server(ReadOnly | BusyLoading | MasterDown))
                    || error.code() == Some("NOAUTH")
            }
        }
    }

    /// What the server said, where that is one of its own kinds of errors.
    pub fn said(&self) -> Option<ServerErrorKind> {
        match self {
            Self::Refused(error) => match error.kind() {
                ErrorKind::Server(kind) => Some(kind),
                _ => None,
            },
            Self::NoLine(_) | Self::Unanswered => None,
        }
    }

    /// Where the server says that the question belongs; itself, where it names no host.
    pub fn elsewhere(&self, asked: &ServerAddress) -> Option<ServerAddress> {
        let Self::Refused(error) = self else { return None };
        let (address, _) = error.redirect_node()?;
        let address = if address.starts_with(':') { format!("{}{address}", asked.host) } else { address.to_owned() };
        let (host, port) = address.rsplit_once(':')?;
        Some(ServerAddress { host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? })
    }

    /// Whether what stands under a key is not what belongs there.
    pub fn is_wrong_type(&self) -> bool {
        let Self::Refused(error) = self else { return false };
        error.code() == Some("WRONGTYPE") || error.detail().is_some_and(|detail| detail.contains("WRONGTYPE"))
    }
}

impl From<Failure> for StoreError {
    /// The server's words stay out of it but for their code: they may quote what they were about.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoLine(error) => error,
            Failure::Unanswered => Self::Timeout,
            Failure::Refused(error) => Self::Unavailable(format!("the server answered {}", said(&error))),
        }
    }
}

/// The code of a server's error.
pub(super) fn said(error: &RedisError) -> String {
    error.code().unwrap_or("an error").to_owned()
}

#[derive(Clone)]
enum State {
    /// No line yet, and no reason why not.
    Dialling,
    Open(Arc<Line>),
    Down(Arc<str>),
}

/// A place to ask, whatever becomes of the connection.
pub(super) struct Link {
    state: watch::Sender<State>,
    /// What the proof's age is counted from.
    start: Instant,
    /// The number of the line that is open; 0 if none is.
    open: AtomicU64,
    /// When the last proof was asked for, in milliseconds since the start.
    proven: AtomicU64,
    /// The last line that was proven, and when; kept when it breaks. Held while the two above change together.
    last: Mutex<(u64, Instant)>,
    told: Notify,
}

impl Link {
    pub fn new() -> Self {
        let start = Instant::now();
        Self {
            state: watch::Sender::new(State::Dialling),
            start,
            open: AtomicU64::new(0),
            proven: AtomicU64::new(0),
            last: Mutex::new((0, start)),
            told: Notify::new(),
        }
    }

    /// Has everybody ask on this line from now on.
    pub fn open(&self, line: &Arc<Line>) {
        self.go(State::Open(line.clone()), line.number);
    }

    /// Has everybody wait for the next line.
    pub fn redial(&self) {
        self.go(State::Dialling, 0);
    }

    /// Has nobody wait any more.
    pub fn fail(&self, reason: String) {
        self.go(State::Down(reason.into()), 0);
    }

    fn go(&self, state: State, open: u64) {
        {
            let _held = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            self.open.store(open, Ordering::Release);
            self.proven.store(0, Ordering::Release);
        }
        self.state.send_replace(state);
        self.told.notify_waiters();
    }

    /// Takes an answer as the proof that the line had told everything when it was asked.
    pub fn prove(&self, line: &Line, asked_at: Instant) {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if self.open.load(Ordering::Acquire) != line.number || line.broken.is_cancelled() {
                return;
            }
            // From 1 on: 0 says that there is no proof.
            self.proven.fetch_max(self.millis(asked_at) + 1, Ordering::AcqRel);
            *last = (line.number, asked_at);
        }
        self.told.notify_waiters();
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the link is known to have told everything up to at most a second ago.
    pub fn is_proven(&self, now: Instant) -> bool {
        let proven = self.proven.load(Ordering::Acquire);
        proven > 0 && self.millis(now) < proven.saturating_add(PROVEN_FOR.as_millis() as u64)
    }

    /// When that line was last proven to have told everything, if it is the last that was.
    pub fn last_proven(&self, line: u64) -> Option<Instant> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (last.0 == line).then_some(last.1)
    }

    /// The number of the line that is open; 0 if none is.
    pub fn open_line(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// Ready once the link is proven to be up to date; fails at once where the server cannot be reached.
    pub async fn proven(&self, deadline: Instant) -> Result<(), StoreError> {
        loop {
            let told = self.told.notified();
            if self.is_proven(Instant::now()) {
                return Ok(());
            }
            if let State::Down(reason) = &*self.state.borrow() {
                return Err(StoreError::Unavailable(reason.to_string()));
            }
            timeout_at(deadline, told).await.map_err(|_| StoreError::Timeout)?;
        }
    }

    /// Why the server does not tell of changes on the open line, where it should.
    pub fn untold(&self) -> Option<Arc<str>> {
        self.open_now().and_then(|line| line.untold.clone())
    }

    /// The open line, if there is one now.
    pub fn open_now(&self) -> Option<Arc<Line>> {
        match &*self.state.borrow() {
            State::Open(line) if !line.broken.is_cancelled() => Some(line.clone()),
            _ => None,
        }
    }

    /// The open line, waited for only where one may come: not where dialling has failed.
    pub async fn line(&self, deadline: Instant) -> Result<Arc<Line>, StoreError> {
        let mut states = self.state.subscribe();
        loop {
            match &*states.borrow_and_update() {
                State::Open(line) if !line.broken.is_cancelled() => return Ok(line.clone()),
                State::Open(_) | State::Dialling => {}
                State::Down(reason) => return Err(StoreError::Unavailable(reason.to_string())),
            }
            match timeout_at(deadline, states.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(StoreError::Closed),
                Err(_) => return Err(StoreError::Timeout),
            }
        }
    }

    /// Ends the line that is open, so that a new one takes its place.
    pub fn renew(&self) {
        let state = self.state.borrow().clone();
        if let State::Open(line) = state {
            self.redial();
            line.break_off();
        }
    }
}
