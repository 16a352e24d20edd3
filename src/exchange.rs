//! The corridor: a request walks through the rooms once, in order, and always comes out with an answer.

mod entry;
mod onward;
mod policy;
mod reply;
mod rooms;
mod tunnel;
mod writing;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use tokio_util::sync::CancellationToken;

use crate::context::{Stripped, Trace, random_name};
use crate::drain::Drain;
use crate::identity::{Assertion, Carrier, SessionCookie};
use crate::in_force::InForce;
use crate::limit::{LimitError, Permit, per_name};
use crate::listener::{Arrival, Arriving, Service};
use crate::respond::{self, Asker, Refusal, Setting, refuse};
use crate::route::{Malformed, Route, RouteError};
use crate::session::{Presence, Session, Sessions};
use crate::store::Store;
use crate::telemetry::{self, Metrics, RateLimited, Record, Tracer};

pub use policy::preflight;
pub use reply::ReplyBody;
pub use rooms::Rooms;

/// The corridor itself, as one configuration has it. An exchange walks through one and the same to its end.
#[derive(Clone)]
pub struct Exchanges {
    pub rooms: Arc<Rooms>,
    pub sessions: Arc<Sessions>,
    /// Where limits are counted that sidecars share.
    pub store: Arc<dyn Store>,
    pub metrics: Metrics,
    pub tracer: Tracer,
    pub drain: Drain,
}

/// What the shell keeps of an exchange, for its answer if it is refused.
#[derive(Default)]
struct Course {
    route: Option<Arc<Route>>,
    credential: Option<Carrier>,
    /// What ends the connection, should the client not notice that its session has ended.
    cut: Option<Arc<CancellationToken>>,
}

/// A request at the end of the way in: who asks, on which route, with which session.
struct Admitted {
    route: Arc<Route>,
    session: Option<Arc<Session>>,
    /// What the token says that decided, if one did.
    assertion: Option<Arc<Assertion>>,
    /// How the credential that decided came.
    carrier: Option<Carrier>,
    presence: Option<Presence>,
    permit: Permit,
    /// A CORS preflight: nothing is injected, and nothing written.
    preflight: bool,
}

impl Admitted {
    fn cut_with(&self, cut: Option<Arc<CancellationToken>>) {
        if let (Some(presence), Some(cut)) = (&self.presence, cut) {
            presence.cut_with(cut);
        }
    }
}

impl Service for InForce<Exchanges> {
    type Body = ReplyBody;

    fn answer(
        self,
        request: Request<Arriving>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<ReplyBody>> + Send + 'static {
        // The one look at what is in force: another configuration is for the next request.
        self.current().serve(request, arrival)
    }

    fn answer_unparsed(&self, status: StatusCode) -> Bytes {
        let metrics = self.current().metrics.clone();
        // Of no known method, since nobody knows it.
        let mut record = Record::open(metrics, Method::from_bytes(b"_OTHER").unwrap_or_default(), Version::HTTP_11);
        let (request_id, trace) = (random_name(), Trace::begun());
        record.named(&request_id, trace.parent());
        let (code, response, length) = respond::refuse_unparsed(status, &request_id);
        record.refused(code.name());
        record.responding(code.status());
        record.sent(length);
        record.completed();
        response
    }
}

impl Exchanges {
    /// The shell: answers every request, and leaves one record of it.
    pub async fn serve(self: Arc<Self>, request: Request<Arriving>, arrival: Arrival) -> Response<ReplyBody> {
        let mut record = Record::open(self.metrics.clone(), request.method().clone(), request.version());
        // What is on its way keeps its place here until it is sent: whatever a future is given, it holds twice.
        let (mut head, body) = request.into_parts();
        let mut body = Some(body);
        let peer = self.rooms.trusted.judge(arrival.downstream.peer);
        let client = self.rooms.trusted.client(peer, &head.headers);
        let mut stripped = self.rooms.context.strip(&mut head, peer, &arrival);
        record.traced(stripped.trace.record(&self.tracer), arrival.downstream.secure);
        record.named(&stripped.request_id, stripped.trace.parent());
        let asker = Asker::of(&head, stripped.upgrade.is_some());
        if onward::is_last_hop(&mut head) {
            let response = Response::new(Bytes::new());
            record.responding(response.status());
            return response.map(|bytes| ReplyBody::own(bytes, record));
        }
        let mut course = Course { cut: arrival.cut, ..Course::default() };
        let way = (&mut head, &mut body);
        let passage = match record.place() {
            None => self.walk(way, client, &mut stripped, &mut course, &mut record).await,
            // Boxed, so that what is not recorded has no room for it, and is not moved.
            place => {
                let walk = self.walk(way, client, &mut stripped, &mut course, &mut record);
                Box::pin(telemetry::within(place, walk)).await
            }
        };
        match passage {
            Ok(passage) => passage.respond(&self, record),
            Err(refusal) => self.refuse(&refusal, &course, &asker, &stripped, record),
        }
    }

    /// The way of a request, one line a room.
    async fn walk(
        self: &Arc<Self>,
        (head, body): (&mut Parts, &mut Option<Arriving>),
        client: IpAddr,
        stripped: &mut Stripped,
        course: &mut Course,
        record: &mut Record,
    ) -> Result<writing::Passage, Refusal> {
        if stripped.crowded {
            return Err(Refusal::HeadTooLarge);
        }
        if stripped.coded {
            return Err(RouteError::Malformed(Malformed::Coding).into());
        }
        let mut taken = self.rooms.verifier.take(&mut head.headers);
        let route = self.route(head, stripped.fragment, course, record)?;
        let counted = self.rooms.limiter.admit_peer(route.index, client, &*self.store).await?;
        let policy = self.rooms.policies.of(&route);
        let credential = self.identify(head, (&route, policy), stripped, &mut taken, course)?;
        let entrant = self.load(head, (&route, policy), client, credential.as_ref(), stripped).await?;
        if let Some(session) = &entrant.session {
            record.loaded(session.handle(), session.revision(), session.at_hand);
        }
        let preflight = preflight(head).is_some();
        let admitted = self.admit((&route, policy), &counted, entrant, preflight).await?;
        admitted.cut_with(course.cut.take());
        self.touch(&admitted).await;
        let upgrade = stripped.upgrade.as_ref().map(|_| tunnel::client_side(head));
        let mut request = self.prepare((head, body), policy, &admitted, stripped)?;
        let answer = self.forward(&mut request, &admitted, record).await?;
        let (mut passage, due) = writing::open(self, answer, admitted, upgrade, stripped, record.place())?;
        if let Some(due) = due {
            passage.write(due, record).await?;
        }
        Ok(passage)
    }

    fn route(
        &self,
        head: &Parts,
        fragment: bool,
        course: &mut Course,
        record: &mut Record,
    ) -> Result<Arc<Route>, Refusal> {
        let route = self.rooms.route(head, fragment)?;
        record.routed(self.rooms.policies.of(route).figures(&self.metrics));
        course.route = Some(route.clone());
        Ok(route.clone())
    }

    fn refuse(
        &self,
        refusal: &Refusal,
        course: &Course,
        asker: &Asker,
        stripped: &Stripped,
        mut record: Record,
    ) -> Response<ReplyBody> {
        let policy = course.route.as_ref().map(|route| self.rooms.policies.of(route));
        let cookie = self.rooms.verifier.cookie().filter(|_| course.credential == Some(Carrier::Cookie));
        let setting = Setting {
            names: &self.rooms.context.names,
            asker,
            request_id: &stripped.request_id,
            credential_came: course.credential.is_some(),
            clear_cookie: cookie.and_then(SessionCookie::clear),
            login_url: policy.and_then(|policy| policy.login_url.as_deref()),
        };
        let response = refuse(refusal, &setting);
        let code = refusal.code();
        if let (Some(per), Some(route)) = (limited_per(refusal), &course.route) {
            let label = RateLimited { route: route.name.clone(), per };
            self.metrics.rate_limited.get_or_create(&label).inc();
        }
        self.tell(refusal, course, stripped);
        record.refused(code.name());
        record.responding(response.status());
        response.map(|bytes| ReplyBody::own(bytes, record))
    }

    /// The cause, for the log; the client has had a fixed phrase.
    fn tell(&self, refusal: &Refusal, course: &Course, stripped: &Stripped) {
        let route = course.route.as_ref().map_or("none", |route| &*route.name);
        let (code, request_id) = (refusal.code().name(), &*stripped.request_id);
        if refusal.code().status().is_server_error() {
            tracing::warn!(target: "cloakroom::exchange", route, problem = code, request_id, cause = %refusal, "refused");
        } else {
            tracing::debug!(target: "cloakroom::exchange", route, problem = code, request_id, cause = %refusal, "refused");
        }
    }
}

/// What was counted together, if a request was one too many.
fn limited_per(refusal: &Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::Limit(LimitError::Rate { per, .. }) => Some(per_name(*per)),
        Refusal::TooManyBad(_) => Some("credentials"),
        _ => None,
    }
}

fn malformed() -> Refusal {
    RouteError::Malformed(Malformed::Path).into()
}
