//! From the backend's head to the client's: changes collected, checked and committed before a byte is passed on.

mod trailers;

use std::pin::Pin;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version, response};
use hyper::upgrade::OnUpgrade;
use tokio::task::{JoinError, JoinHandle};

use crate::config::{IdChoice, OnReject};
use crate::context::Stripped;
use crate::handle::SessionId;
use crate::headers::{self, Survey};
use crate::identity::{Assertion, Carrier};
use crate::limit::Permit;
use crate::respond::Refusal;
use crate::route::Route;
use crate::session::{Action, Actor, ActorKind, CommitError, Committed, LoadError, Presence, Session};
use crate::store::StoreError;
use crate::telemetry::{self, Place, Record, WriteBack};
use crate::upstream::{Answer, Reply, Sent, UpstreamError};
use crate::writeback::{Checker, Collected, Part, Wish};

pub use trailers::TrailerWriting;

use super::reply::{Held, Idle, Passing, ReplyBody};
use super::{Admitted, Exchanges, tunnel};

/// A response that may be passed on: its changes are committed.
pub struct Passage {
    head: response::Parts,
    reply: Reply,
    sent: Sent,
    presence: Option<Presence>,
    permit: Permit,
    trailers: TrailerWriting,
    idle: std::time::Duration,
    /// The client's side of a change of protocol.
    tunnel: Option<OnUpgrade>,
}

/// Who writes, for the commit and for its record.
#[derive(Clone)]
struct Writer {
    exchanges: Arc<Exchanges>,
    route: Arc<Route>,
    session: Option<Arc<Session>>,
    /// What the token says that decided, if one did.
    assertion: Option<Arc<Assertion>>,
    /// The revision that the head of the same response committed.
    own: Option<u64>,
    request_id: Arc<str>,
    traceparent: Arc<str>,
    place: Option<Place>,
}

/// What became of a write-back that was not refused.
struct Written {
    outcome: WriteBack,
    committed: Committed,
}

/// What a backend's head asks to be written back.
pub struct Due {
    collected: Collected,
    carrier: Option<Carrier>,
}

/// Takes the write-back out of an answer, and makes the response ready for the client.
pub fn open(
    exchanges: &Arc<Exchanges>,
    answer: Answer,
    admitted: Admitted,
    client: Option<OnUpgrade>,
    stripped: &Stripped,
    place: Option<Place>,
) -> Result<(Passage, Option<Due>), Refusal> {
    let Answer { mut head, reply, sent } = answer;
    let tunnel = upgraded(&head, client, stripped.upgrade.as_ref())?;
    let context = &exchanges.rooms.context;
    let found = Survey::of(&head.headers, |name| context.reserved().is_ours(name));
    let Admitted { route, session, assertion, carrier, presence, permit, preflight } = admitted;
    let due = found.void.then(|| Collected::take(&mut head.headers, &context.names, context.reserved()));
    let due = due.filter(|collected| !collected.is_empty() && !preflight);
    clean(&mut head, found, exchanges, tunnel.is_some());
    let passes = stripped.trailers;
    if found.trailer {
        filter_trailer_field(&mut head.headers, context.reserved(), passes);
    }
    let policy = exchanges.rooms.policies.of(&route);
    let (strict, idle) = (policy.on_reject == OnReject::Fail && head.status.as_u16() < 400, policy.idle);
    let sized = head.headers.contains_key(header::CONTENT_LENGTH);
    let writer = Writer {
        exchanges: exchanges.clone(),
        request_id: stripped.request_id.clone(),
        traceparent: stripped.trace.parent().clone(),
        route,
        session,
        assertion,
        own: None,
        place,
    };
    let trailers = TrailerWriting::new(writer, trailers::Terms { strict, passes, preflight, sized });
    let passage = Passage { head, reply, sent, presence, permit, trailers, idle, tunnel };
    Ok((passage, due.map(|collected| Due { collected, carrier })))
}

/// The client's side of a change of protocol. A backend that changes it unasked, or to another than was asked for, is no
/// backend to talk to.
fn upgraded(
    head: &response::Parts,
    client: Option<OnUpgrade>,
    asked: Option<&HeaderValue>,
) -> Result<Option<OnUpgrade>, Refusal> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(None);
    }
    let chosen = headers::only(&head.headers, &header::UPGRADE).ok().flatten();
    let same = |(chosen, asked): (&HeaderValue, &HeaderValue)| chosen.as_bytes().eq_ignore_ascii_case(asked.as_bytes());
    match client.filter(|_| head.version == Version::HTTP_11 && chosen.zip(asked).is_some_and(same)) {
        None => Err(UpstreamError::Unasked.into()),
        client => Ok(client),
    }
}

/// Removes what ends at this hop, and a cookie that would pass for the session's.
fn clean(head: &mut response::Parts, found: Survey, exchanges: &Exchanges, tunnels: bool) {
    let upgrade = if found.upgrade { head.headers.get(header::UPGRADE).cloned() } else { None };
    headers::remove_hop_by_hop(&mut head.headers, found);
    // No body follows these, whatever length they claim (RFC 9112, section 6.3).
    if matches!(head.status.as_u16(), 204 | 304) {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    if let Some(upgrade) = upgrade.filter(|_| tunnels) {
        head.headers.insert(header::UPGRADE, upgrade);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let Some(cookie) = exchanges.rooms.verifier.cookie().filter(|_| found.set_cookie) else { return };
    if head.headers.get_all(header::SET_COOKIE).iter().any(|line| cookie.is_set_by(line)) {
        let kept: Vec<HeaderValue> =
            head.headers.get_all(header::SET_COOKIE).iter().filter(|line| !cookie.is_set_by(line)).cloned().collect();
        head.headers.remove(header::SET_COOKIE);
        for line in kept {
            head.headers.append(header::SET_COOKIE, line);
        }
    }
}

/// Tells the client of a new id, or that its own is void.
fn announce(
    exchanges: &Exchanges,
    head: &mut response::Parts,
    route: &Route,
    carrier: Option<Carrier>,
    committed: &Committed,
) {
    let cookie = exchanges.rooms.verifier.cookie();
    if let Some(id) = &committed.new_id {
        let says_cookie =
            exchanges.rooms.permissions.start(route.index).is_none_or(|start| start.id == IdChoice::Cookie);
        let by_cookie = carrier.map_or(says_cookie, |carrier| carrier == Carrier::Cookie);
        hand_over(exchanges, &mut head.headers, id, by_cookie);
        head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    } else if committed.ended
        && carrier == Some(Carrier::Cookie)
        && let Some(clear) = cookie.and_then(|cookie| cookie.clear())
    {
        head.headers.append(header::SET_COOKIE, clear);
    }
}

fn hand_over(exchanges: &Exchanges, headers: &mut HeaderMap, id: &SessionId, by_cookie: bool) {
    let text = id.reveal();
    match exchanges.rooms.verifier.cookie().filter(|_| by_cookie).and_then(|cookie| cookie.set(&text)) {
        Some(cookie) => {
            headers.append(header::SET_COOKIE, cookie);
        }
        None => {
            if let Ok(mut value) = HeaderValue::from_str(&text) {
                value.set_sensitive(true);
                headers.insert(&exchanges.rooms.context.names.session_id, value);
            }
        }
    }
}

/// Leaves our names out of `Trailer`, and the field altogether where the client takes none.
fn filter_trailer_field(headers: &mut HeaderMap, reserved: &headers::Reserved, passes: bool) {
    let ours = |token: &str| header::HeaderName::from_bytes(token.as_bytes()).is_ok_and(|name| reserved.is_ours(&name));
    let kept = headers::tokens(headers, &header::TRAILER).filter(|token| passes && !ours(token));
    let kept = kept.collect::<Vec<_>>().join(", ");
    headers.remove(header::TRAILER);
    if !kept.is_empty()
        && let Ok(value) = HeaderValue::from_str(&kept)
    {
        headers.insert(header::TRAILER, value);
    }
}

impl Passage {
    /// Has committed what is to be written back.
    pub async fn write(&mut self, due: Due, record: &mut Record) -> Result<(), Refusal> {
        let Due { collected, carrier } = due;
        let writer = &mut self.trailers.writer;
        let (permissions, route) = (&writer.exchanges.rooms.permissions, writer.route.index);
        if collected.ends_session() && (permissions.end(route) || permissions.start(route).is_some()) {
            // What ends the session, or puts another in its place, is still the answer to its client.
            self.presence = None;
        }
        let written = writer.write(collected).await;
        if let Some(written) = note(written, self.trailers.terms.strict, record)? {
            writer.own = written.committed.revision;
            announce(&writer.exchanges, &mut self.head, &writer.route, carrier, &written.committed);
        }
        Ok(())
    }

    /// The response as the client gets it.
    pub fn respond(mut self, exchanges: &Exchanges, mut record: Record) -> Response<ReplyBody> {
        // A proxy speaks its own version, whatever the backend's is (RFC 9112, section 2.3).
        self.head.version = Version::HTTP_11;
        record.responding(self.head.status);
        let held = Held::new(record, self.presence, Some(self.permit));
        if let Some(client) = self.tunnel {
            if let Some(backend) = self.reply.into_tunnel() {
                tunnel::join(&exchanges.drain, client, backend, self.idle, held);
            }
            return Response::from_parts(self.head, ReplyBody::empty());
        }
        let passing =
            Passing { inner: self.reply, held, trailers: self.trailers, idle: Idle::new(self.idle, self.sent) };
        Response::from_parts(self.head, ReplyBody::backend(passing))
    }
}

impl Writer {
    /// The backend, for the trail.
    fn actor(&self) -> Actor {
        Actor {
            route: Some(self.route.name.clone()),
            user: self.session.as_deref().and_then(Session::user),
            request_id: Some(self.request_id.clone()),
            traceparent: Some(self.traceparent.clone()),
            ..Actor::new(ActorKind::Backend)
        }
    }

    /// Checks and commits: the backend has acted, and a client that leaves does not undo that.
    async fn write(&self, collected: Collected) -> Result<Written, Refusal> {
        self.exchanges.drain.unbroken(self.work(collected, Part::Head)).await
    }

    /// The same on a task of its own, which does not wait for a client that takes nothing of the body.
    fn spawn(&self, collected: Collected) -> JoinHandle<Result<Written, Refusal>> {
        self.exchanges.drain.spawn(self.work(collected, Part::Trailers))
    }

    /// Boxed, since it is moved several times.
    fn work(
        &self,
        collected: Collected,
        part: Part,
    ) -> Pin<Box<impl Future<Output = Result<Written, Refusal>> + 'static>> {
        Box::pin(telemetry::within(self.place.clone(), self.clone().carry_out(collected, part)))
    }

    async fn attempt(&self, collected: Collected, part: Part) -> Result<Written, Refusal> {
        let rooms = &self.exchanges.rooms;
        let sessions = &self.exchanges.sessions;
        if self.session.as_deref().is_some_and(|session| sessions.is_revoked(session)) {
            return Err(CommitError::Revoked.into());
        }
        let now = self.session_now().await?;
        let checker = Checker {
            names: &rooms.context.names,
            schema: &sessions.schema,
            permissions: &rooms.permissions,
            route: self.route.index,
            by_token: self.assertion.is_some(),
            keep_all: self.own.is_some() && now.as_ref().map(|session| session.revision()) != self.own,
        };
        match (checker.check(&collected, part, now.as_deref())?, now.as_deref()) {
            (Wish::Change(proposal), Some(now)) => {
                let base = self.session.as_deref().unwrap_or(now).base(self.own);
                let committed = sessions.commit(now, base, &proposal, Action::Write, &self.actor()).await?;
                let outcome = if committed.revision.is_some() { WriteBack::Committed } else { WriteBack::Unchanged };
                Ok(Written { outcome, committed })
            }
            (Wish::Start(values), session) => {
                let carry = rooms.permissions.start(self.route.index).map_or(&[][..], |start| &start.carry);
                let actor = self.actor();
                // Boxed, so that what only changes a session has no room for them.
                let new_id = match &self.assertion {
                    Some(assertion) => {
                        Box::pin(sessions.start_by_token(assertion, session, &values, carry, &actor)).await?;
                        None
                    }
                    None => Some(Box::pin(sessions.start(session, &values, carry, &actor)).await?.id),
                };
                let committed = Committed { revision: Some(1), new_id, ..Committed::default() };
                Ok(Written { outcome: WriteBack::Started, committed })
            }
            (Wish::Nothing | Wish::Change(_), _) => {
                Ok(Written { outcome: WriteBack::Unchanged, committed: Committed::default() })
            }
        }
    }

    /// The session as the same response's head has left it, for its trailers; else as it was read.
    async fn session_now(&self) -> Result<Option<Arc<Session>>, Refusal> {
        match (&self.session, self.own) {
            (Some(session), Some(_)) => {
                let now = self.exchanges.sessions.find(session.handle()).await;
                Ok(Some(Arc::new(now.map_err(Refusal::from)?)))
            }
            (session, _) => Ok(session.clone()),
        }
    }

    /// Checks and commits, and tells of it wherever the client may be by then.
    async fn carry_out(self, collected: Collected, part: Part) -> Result<Written, Refusal> {
        let written = self.attempt(collected, part).await;
        self.tell(&written);
        match written {
            // The token is as good as before, and leads to the next session.
            Err(Refusal::Commit(CommitError::NotFound)) if self.assertion.is_some() => {
                Err(LoadError::Uninitialised.into())
            }
            written => written,
        }
    }

    fn count(&self, outcome: WriteBack) {
        let policy = self.exchanges.rooms.policies.of(&self.route);
        policy.figures(&self.exchanges.metrics).wrote_back(outcome);
    }

    /// Counts, logs and audits what became of a write-back.
    fn tell(&self, written: &Result<Written, Refusal>) {
        let metrics = &self.exchanges.metrics;
        let outcome = written.as_ref().map_or_else(outcome_of, |written| written.outcome);
        self.count(outcome);
        let refusal = match written {
            Ok(written) => {
                metrics.sessions_ended.inc_by(u64::from(written.committed.ended));
                metrics.rotations_ignored.inc_by(u64::from(written.committed.rotation_ignored));
                return;
            }
            Err(refusal) => refusal,
        };
        let session = self.session.as_deref();
        tracing::warn!(
            target: "cloakroom::writeback",
            route = &*self.route.name,
            session = session.map(|session| tracing::field::display(session.handle())),
            request_id = &*self.request_id,
            outcome = outcome.name(),
            cause = %refusal,
            "a write-back was not written",
        );
        self.exchanges.sessions.audit_attempt(session, Action::Write, outcome.name(), &self.actor());
    }
}

/// Notes in the record what became of a write-back, and says whether the response may still pass.
fn note(written: Result<Written, Refusal>, strict: bool, record: &mut Record) -> Result<Option<Written>, Refusal> {
    match written {
        Ok(written) => {
            record.wrote_back(written.outcome, written.committed.revision);
            Ok(Some(written))
        }
        Err(refusal) => {
            record.wrote_back(outcome_of(&refusal), None);
            if strict { Err(refusal) } else { Ok(None) }
        }
    }
}

/// What a task that was cut off leaves behind: nobody knows whether it had committed.
fn cut_off(_: JoinError) -> Result<Written, Refusal> {
    Err(CommitError::Store(StoreError::Closed).into())
}

fn outcome_of(refusal: &Refusal) -> WriteBack {
    match refusal {
        Refusal::Commit(CommitError::Conflict(_)) => WriteBack::Conflict,
        Refusal::Commit(CommitError::NotFound | CommitError::Revoked) | Refusal::Load(LoadError::Uninitialised) => {
            WriteBack::Gone
        }
        Refusal::Commit(CommitError::Store(_) | CommitError::Entropy(_) | CommitError::Crypto) => WriteBack::StoreError,
        _ => WriteBack::Rejected,
    }
}
