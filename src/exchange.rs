//! The corridor: a request walks through the rooms once, in order, and always comes out with an answer.

mod policy;
mod reply;
mod tunnel;
mod writing;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::{Body as _, Incoming};

use crate::config::{self, Problems, SessionUse};
use crate::context::{Context, Stripped};
use crate::drain::Drain;
use crate::identity::{Ambiguous, Carrier, Credential, Failures, Origins, SessionCookie, Verifier};
use crate::limit::{LimitError, Limiter, PeerAdmitted, Permit, per_name};
use crate::listener::{Arrival, Service};
use crate::peer::TrustedProxies;
use crate::respond::{self, Asker, Refusal, Setting, refuse};
use crate::route::{Malformed, Route, RouteError, Table};
use crate::session::{LoadError, Presence, Schema, Session, Sessions};
use crate::telemetry::{Metrics, Record};
use crate::upstream::{Answer, Outgoing, UpstreamError, Upstreams};
use crate::writeback::Permissions;

use policy::Policy;
pub use policy::{Policies, preflight};
pub use reply::ReplyBody;

/// The rooms, compiled from one configuration.
pub struct Rooms {
    pub table: Table,
    pub context: Arc<Context>,
    pub verifier: Verifier,
    pub failures: Option<Failures>,
    pub origins: Origins,
    pub limiter: Limiter,
    pub permissions: Permissions,
    pub policies: Policies,
    pub upstreams: Upstreams,
    pub trusted: TrustedProxies,
}

/// The corridor itself.
#[derive(Clone)]
pub struct Exchanges {
    pub rooms: Arc<Rooms>,
    pub sessions: Arc<Sessions>,
    pub metrics: Metrics,
    pub drain: Drain,
}

impl Rooms {
    /// Compiles every room's part of the configuration, noting every problem; none if there was an error.
    pub fn compile(config: &config::Config, problems: &mut Problems) -> Option<(Self, Arc<Schema>)> {
        let mut own = Problems::default();
        let table = Table::compile(&config.routes, &mut own);
        let schema = Schema::compile(&config.session, &mut own).map(Arc::new);
        let rest = schema.as_ref().and_then(|schema| {
            let context = Context::compile(config, schema.clone(), &mut own)?;
            let permissions = Permissions::compile(&config.routes, schema, &mut own);
            let policies = Policies::compile(&config.routes, schema, &mut own);
            for (at, caller) in config.admin.callers.iter().enumerate() {
                schema.select(&caller.resolve, &format!("/admin/callers/{at}/resolve"), &mut own);
            }
            Some((context, permissions, policies))
        });
        let sound = !own.has_errors();
        problems.append(own);
        let (context, permissions, policies) = rest.filter(|_| sound)?;
        let carriers = &config.identity.session_id;
        let cookie = carriers.cookie.as_ref().map(|name| SessionCookie::new(name, &config.cookie));
        let rooms = Self {
            table,
            context: Arc::new(context),
            verifier: Verifier::new(carriers, cookie),
            failures: config.identity.bad_credentials.as_ref().map(Failures::new),
            origins: Origins::new(&config.origins),
            limiter: Limiter::new(&config.routes),
            permissions,
            policies,
            upstreams: Upstreams::new(&config.routes),
            trusted: TrustedProxies::new(config.trusted_proxies.clone()),
        };
        Some((rooms, schema?))
    }

    /// The route that takes a request; a preflight is routed by the method that it asks for.
    pub fn route(&self, head: &Parts, fragment: bool) -> Result<&Arc<Route>, RouteError> {
        if fragment {
            return Err(Malformed::Path.into());
        }
        // What it reflects would be the context.
        if head.method == Method::TRACE {
            return Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, POST, OPTIONS".into() });
        }
        match preflight(head) {
            Some(method) => self.table.select_as(head, &method),
            None => self.table.select(head),
        }
    }

    /// Forgets what is whole again or has been idle for too long.
    pub fn sweep(&self) {
        self.limiter.sweep();
        self.upstreams.sweep();
        if let Some(failures) = &self.failures {
            failures.sweep();
        }
    }
}

/// What the shell keeps of an exchange, for its answer if it is refused.
#[derive(Default)]
struct Course {
    route: Option<Arc<Route>>,
    credential: Option<Carrier>,
}

/// A request at the end of the way in: who asks, on which route, with which session.
struct Admitted {
    route: Arc<Route>,
    session: Option<Arc<Session>>,
    /// How the credential that decided came.
    carrier: Option<Carrier>,
    presence: Option<Presence>,
    permit: Permit,
    /// A CORS preflight: nothing is injected, and nothing written.
    preflight: bool,
}

impl Service for Exchanges {
    type Body = ReplyBody;

    async fn answer(self, request: Request<Incoming>, arrival: Arrival) -> Response<ReplyBody> {
        self.serve(request, arrival).await
    }

    fn answer_unparsed(&self, status: StatusCode) -> Bytes {
        let mut record = Record::open(self.metrics.clone(), Method::default());
        let (code, response) = respond::refuse_unparsed(status);
        record.refused(code.name());
        record.responding(code.status());
        record.completed();
        response
    }
}

impl Exchanges {
    /// The shell: answers every request, and leaves one record of it.
    pub async fn serve(&self, request: Request<Incoming>, arrival: Arrival) -> Response<ReplyBody> {
        let mut record = Record::open(self.metrics.clone(), request.method().clone());
        let (mut head, body) = request.into_parts();
        let version = head.version;
        let peer = self.rooms.trusted.judge(arrival.peer);
        let client = self.rooms.trusted.client(peer, &head.headers);
        let stripped = self.rooms.context.strip(&mut head, peer, arrival);
        record.named(&stripped.request_id, stripped.trace.id());
        let asker = Asker::of(&head, stripped.upgrade.is_some());
        let mut course = Course::default();
        let walk = self.walk((head, body), client, &stripped, &mut course, &mut record);
        match walk.await {
            Ok(passage) => passage.respond(self, record, version),
            Err(refusal) => self.refuse(&refusal, &course, &asker, &stripped, record),
        }
    }

    /// The way of a request, one line a room.
    async fn walk(
        &self,
        (mut head, body): (Parts, Incoming),
        client: IpAddr,
        stripped: &Stripped,
        course: &mut Course,
        record: &mut Record,
    ) -> Result<writing::Passage, Refusal> {
        let credential = self.rooms.verifier.take(&mut head.headers);
        let route = self.route(&head, stripped.fragment, course, record)?;
        let counted = self.rooms.limiter.admit_peer(route.index, client)?;
        let policy = self.rooms.policies.of(&route);
        let credential = self.identify(&head, (&route, policy), stripped, credential, course)?;
        let session = self.load(&head, policy, client, credential.as_ref(), record).await?;
        let preflight = policy::preflight(&head).is_some();
        let carrier = credential.map(|found| found.carrier);
        let admitted = self.admit((&route, policy), &counted, session, carrier, preflight)?;
        self.touch(&admitted).await;
        let upgrade = stripped.upgrade.as_ref().map(|_| tunnel::client_side(&mut head));
        let request = self.prepare((head, body), policy, &admitted, stripped)?;
        let answer = self.forward(request, &admitted, record).await?;
        writing::settle(self, answer, admitted, upgrade, stripped, record).await
    }

    fn route(
        &self,
        head: &Parts,
        fragment: bool,
        course: &mut Course,
        record: &mut Record,
    ) -> Result<Arc<Route>, Refusal> {
        let route = self.rooms.route(head, fragment)?;
        record.routed(&route.name);
        course.route = Some(route.clone());
        Ok(route.clone())
    }

    /// Which credential decides on this route, after a page of a foreign origin was turned away.
    fn identify(
        &self,
        head: &Parts,
        (route, policy): (&Route, &Policy),
        stripped: &Stripped,
        found: Result<Option<Credential>, Ambiguous>,
        course: &mut Course,
    ) -> Result<Option<Credential>, Refusal> {
        let found = found?;
        if policy::preflight(head).is_some() {
            return Ok(None);
        }
        course.credential = found.as_ref().map(|credential| credential.carrier);
        let uses = policy.session != SessionUse::None;
        let decides = found.filter(|_| uses);
        let by_cookie = decides.as_ref().is_some_and(|credential| credential.carrier == Carrier::Cookie);
        if by_cookie || self.rooms.permissions.start(route.index).is_some() {
            self.rooms.origins.check(head, stripped.upgrade.is_some())?;
        }
        Ok(decides)
    }

    /// The session that the credential proves; none where the route can do without.
    async fn load(
        &self,
        head: &Parts,
        policy: &Policy,
        client: IpAddr,
        credential: Option<&Credential>,
        record: &mut Record,
    ) -> Result<Option<Session>, Refusal> {
        let needed = policy.session == SessionUse::Required && policy::preflight(head).is_none();
        let Some(credential) = credential else {
            return if needed { Err(Refusal::NoCredential) } else { Ok(None) };
        };
        match self.prove(client, credential).await {
            Ok(session) => {
                record.loaded(session.handle(), session.revision());
                Ok(Some(session))
            }
            Err(refusal) if !needed && is_none_at_all(&refusal) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn prove(&self, client: IpAddr, credential: &Credential) -> Result<Session, Refusal> {
        if let Some(failures) = &self.rooms.failures {
            failures.admit(client, credential.id.as_ref()).map_err(Refusal::TooManyBad)?;
        }
        let proven = match &credential.id {
            Some(id) => self.sessions.load(id).await.map_err(Refusal::from),
            None => Err(Refusal::BadCredential),
        };
        match (&proven, &self.rooms.failures) {
            (Ok(_), Some(failures)) => failures.succeeded_with(credential.id.as_ref()),
            (Err(refusal), failures) if is_none_at_all(refusal) => {
                let reason = crate::telemetry::Reason { reason: refusal.code().name() };
                self.metrics.credentials_rejected.get_or_create(&reason).inc();
                if let Some(failures) = failures {
                    failures.failed(client);
                }
            }
            _ => {}
        }
        proven
    }

    /// Limits, requirements and the place among the open exchanges: once the credential is proven.
    fn admit(
        &self,
        (route, policy): (&Arc<Route>, &Policy),
        counted: &PeerAdmitted,
        session: Option<Session>,
        carrier: Option<Carrier>,
        preflight: bool,
    ) -> Result<Admitted, Refusal> {
        let permit = self.rooms.limiter.admit(route.index, counted, session.as_ref())?;
        if !policy.require.is_empty() && !preflight {
            let session = session.as_ref().ok_or(Refusal::NoCredential)?;
            if !policy.require.hold(session, &self.sessions.schema) {
                return Err(Refusal::Requirements);
            }
        }
        let presence = session.as_ref().map(|session| {
            self.sessions.enter(
                session,
                policy.touch == config::Touch::Stream,
                policy.on_revoke == config::OnRevoke::Close,
            )
        });
        Ok(Admitted { route: route.clone(), session: session.map(Arc::new), carrier, presence, permit, preflight })
    }

    /// Slides the idle expiry where that is due. It failing is no reason to fail the request: the session lives on
    /// until the expiry that it had.
    async fn touch(&self, admitted: &Admitted) {
        let (Some(session), Some(presence)) = (&admitted.session, &admitted.presence) else { return };
        let policy = self.rooms.policies.of(&admitted.route);
        if policy.touch == config::Touch::Never || !presence.take_touch(self.sessions.now()) {
            return;
        }
        self.touch_session(session.handle(), session.birth()).await;
    }

    /// Touches one session, and counts it.
    pub async fn touch_session(&self, handle: crate::handle::Handle, birth: crate::handle::Birth) {
        match self.sessions.touch(handle, birth).await {
            Ok(true) => {
                self.metrics.touches.inc();
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(target: "cloakroom::session", session = %handle, %error, "a touch was not written")
            }
        }
    }

    /// The request as the backend gets it: injected last, so that nothing of the client's can undo it.
    fn prepare(
        &self,
        (mut head, body): (Parts, Incoming),
        policy: &Policy,
        admitted: &Admitted,
        stripped: &Stripped,
    ) -> Result<Request<Outgoing>, Refusal> {
        let context = self.rooms.context.clone();
        context.forward(&mut head, stripped);
        if let Some(session) = &admitted.session {
            let keyring = self.sessions.keyring();
            let handle = |session: &Session, path: &str| {
                keyring.field_handle(session.handle(), session.birth(), path).to_string()
            };
            context.inject(&mut head, admitted.route.index, session, &handle);
        }
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target == "*" { "*".to_owned() } else { admitted.route.rewritten(target).into_owned() };
        let authority = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        if let Some(authority) = authority {
            head.headers.insert(header::HOST, authority);
        }
        head.uri = Uri::try_from(target.as_str()).map_err(|_| malformed())?;
        head.version = Version::HTTP_11;
        let size: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size + target.len() > policy.head_limit {
            return Err(Refusal::HeadTooLarge);
        }
        let limit = policy.body_limit;
        if limit.is_some_and(|limit| body.size_hint().lower() > limit) {
            return Err(Refusal::BodyTooLarge);
        }
        let outgoing = Outgoing::new(body, limit, context);
        Ok(Request::from_parts(head, outgoing))
    }

    async fn forward(
        &self,
        request: Request<Outgoing>,
        admitted: &Admitted,
        record: &mut Record,
    ) -> Result<Answer, Refusal> {
        let sent = request.body().sent();
        record.forwarded();
        let forwarding = self.rooms.upstreams.forward(admitted.route.index, request);
        let answer = match &admitted.presence {
            Some(presence) => tokio::select! {
                answer = forwarding => answer,
                () = presence.closed() => return Err(Refusal::SessionEnded),
            },
            None => forwarding.await,
        };
        record.answered();
        answer.map_err(|error| match error {
            UpstreamError::Broken(_) if sent.is_too_large() => Refusal::BodyTooLarge,
            error => error.into(),
        })
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
        if let (Refusal::Limit(LimitError::Rate { per, .. }), Some(route)) = (refusal, &course.route) {
            let label = crate::telemetry::RateLimited { route: route.name.clone(), per: per_name(*per) };
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

fn malformed() -> Refusal {
    RouteError::Malformed(Malformed::Path).into()
}

/// Whether a refused credential means that there is no session: not an outage, and not a limit.
fn is_none_at_all(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::BadCredential | Refusal::Load(LoadError::NotFound | LoadError::Revoked | LoadError::WrongSecret)
    )
}
