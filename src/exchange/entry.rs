//! The way in: who asks, and whether they may.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;

use crate::config::{self, SessionUse};
use crate::context::Stripped;
use crate::handle::{Birth, Handle, SessionId};
use crate::identity::{Ambiguous, Assertion, Carrier, Credential, Presented, Taken, Token, Unverified};
use crate::limit::PeerAdmitted;
use crate::respond::Refusal;
use crate::route::Route;
use crate::session::{Actor, ActorKind, Found, LoadError, Session};
use crate::telemetry::Reason;

use super::policy::{self, Policy};
use super::{Admitted, Course, Exchanges};

impl Exchanges {
    /// Which credential decides on this route, after a page of a foreign origin was turned away.
    pub(super) fn identify(
        &self,
        head: &mut Parts,
        (route, policy): (&Route, &Policy),
        stripped: &Stripped,
        taken: &mut Result<Taken, Ambiguous>,
        course: &mut Course,
    ) -> Result<Option<Credential>, Refusal> {
        let Ok(taken) = taken else { return Err(Ambiguous.into()) };
        self.rooms.verifier.give_back(route.index, taken, &mut head.headers);
        if policy::preflight(head).is_some() {
            return Ok(None);
        }
        let found = self.rooms.verifier.decide(route.index, taken);
        course.credential = found.as_ref().map(|credential| credential.carrier);
        let uses = policy.session != SessionUse::None;
        let decides = found.filter(|_| uses);
        let by_cookie = decides.as_ref().is_some_and(|credential| credential.carrier == Carrier::Cookie);
        if by_cookie || self.rooms.permissions.start(route.index).is_some() {
            self.rooms.origins.check(head, stripped.upgrade.is_some(), stripped.is_https())?;
        }
        Ok(decides)
    }

    /// Who the credential proves the client to be; nobody where the route can do without.
    pub(super) async fn load(
        &self,
        head: &Parts,
        (route, policy): (&Route, &Policy),
        client: IpAddr,
        credential: Option<&Credential>,
        stripped: &Stripped,
    ) -> Result<Entrant, Refusal> {
        let needed = policy.session == SessionUse::Required && policy::preflight(head).is_none();
        let Some(credential) = credential else {
            return if needed { Err(Refusal::NoCredential) } else { Ok(Entrant::default()) };
        };
        let entrant = match &credential.presented {
            Presented::SessionId(id) => self.prove(client, id.as_ref()).await,
            Presented::Token(token) => {
                let assertion = self.verify(client, token).await?;
                let actor = client_actor(route, stripped);
                let led = self.lead(client, assertion, &actor, needed).await;
                if matches!(led, Err(Refusal::Load(LoadError::Revoked))) {
                    self.rooms.verifier.forget(token);
                }
                led
            }
        };
        match entrant {
            Ok(entrant) => Ok(Entrant { carrier: Some(credential.carrier), ..entrant }),
            Err(refusal) if !needed && is_none_at_all(&refusal, credential) => {
                Ok(Entrant { carrier: Some(credential.carrier), ..Entrant::default() })
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// The session that an id names and proves.
    async fn prove(&self, client: IpAddr, id: Option<&SessionId>) -> Result<Entrant, Refusal> {
        if let Some(failures) = &self.rooms.failures {
            failures.admit(client, id).map_err(Refusal::TooManyBad)?;
        }
        let proven = match id {
            Some(id) => self.sessions.load(id).await.map_err(Refusal::from),
            None => Err(Refusal::BadCredential),
        };
        match (&proven, &self.rooms.failures) {
            (Ok(session), Some(failures)) if session.is_proven_anew() => failures.succeeded_with(id),
            (Err(refusal), _) if proves_nothing(refusal) => self.count_bad(client, refusal),
            _ => {}
        }
        proven.map(|session| Entrant { session: Some(session), ..Entrant::default() })
    }

    /// The session that a verified token leads to. A route that can do without one has the token all the same, should
    /// its backend begin one.
    async fn lead(
        &self,
        client: IpAddr,
        assertion: Arc<Assertion>,
        actor: &Actor,
        needed: bool,
    ) -> Result<Entrant, Refusal> {
        match self.sessions.load_by_token(&assertion, actor).await {
            Ok(Found { session, .. }) => {
                Ok(Entrant { session: Some(session), assertion: Some(assertion), carrier: None })
            }
            Err(LoadError::Uninitialised) if !needed => {
                Ok(Entrant { session: None, assertion: Some(assertion), carrier: None })
            }
            Err(error) => {
                let refusal = Refusal::from(error);
                if matches!(refusal, Refusal::Load(LoadError::Foreign | LoadError::Revoked)) {
                    self.count_bad(client, &refusal);
                }
                Err(refusal)
            }
        }
    }

    fn count_bad(&self, client: IpAddr, refusal: &Refusal) {
        let reason = Reason { reason: refusal.code().name() };
        self.metrics.credentials_rejected.get_or_create(&reason).inc();
        if let Some(failures) = &self.rooms.failures {
            failures.failed(client);
        }
    }

    /// What a token asserts, once it is verified; one that was verified before passes from an address that has no
    /// tries left.
    async fn verify(&self, client: IpAddr, token: &Token) -> Result<Arc<Assertion>, Refusal> {
        let now = self.sessions.now();
        if let Some(assertion) = self.rooms.verifier.recall(token, now) {
            return Ok(assertion);
        }
        if let Some(failures) = &self.rooms.failures {
            failures.admit(client, None).map_err(Refusal::TooManyBad)?;
        }
        // Boxed, as it is rare and its state large: 8 KiB that every exchange would have room for, and be moved with.
        let verified = Box::pin(self.rooms.verifier.verify(token, client, now)).await;
        if let Err(Unverified::Flawed(flaw)) = &verified {
            self.metrics.credentials_rejected.get_or_create(&Reason { reason: flaw.name() }).inc();
            if let Some(failures) = &self.rooms.failures {
                failures.failed(client);
            }
        }
        Ok(verified?)
    }

    /// Limits, requirements and the place among the open exchanges: once the credential is proven.
    pub(super) async fn admit(
        &self,
        (route, policy): (&Arc<Route>, &Policy),
        counted: &PeerAdmitted,
        entrant: Entrant,
        preflight: bool,
    ) -> Result<Admitted, Refusal> {
        let Entrant { session, assertion, carrier } = entrant;
        let limiter = &self.rooms.limiter;
        let counted = limiter.admit(route.index, counted, session.as_ref(), &*self.store).await?;
        if !policy.require.is_empty() && !preflight {
            let session = session.as_ref().ok_or(Refusal::NoCredential)?;
            if !policy.require.hold(session, &self.sessions.schema) {
                return Err(Refusal::Requirements);
            }
        }
        let permit = limiter.enter(route.index, &counted)?;
        let presence = session.as_ref().map(|session| {
            self.sessions.enter(
                session,
                policy.touch == config::Touch::Stream,
                policy.on_revoke == config::OnRevoke::Close,
            )
        });
        let session = session.map(Arc::new);
        Ok(Admitted { route: route.clone(), session, assertion, carrier, presence, permit, preflight })
    }

    /// Slides the idle expiry where that is due. It failing is no reason to fail the request: the session lives on
    /// until the expiry that it had.
    pub(super) async fn touch(&self, admitted: &Admitted) {
        let (Some(session), Some(presence)) = (&admitted.session, &admitted.presence) else { return };
        let policy = self.rooms.policies.of(&admitted.route);
        if policy.touch == config::Touch::Never || !presence.take_touch(self.sessions.now()) {
            return;
        }
        self.touch_session(session.handle(), session.birth()).await;
    }

    /// Touches one session, and counts it.
    pub async fn touch_session(&self, handle: Handle, birth: Birth) {
        match self.sessions.touch(handle, birth).await {
            Ok(true) => {
                self.metrics.touches.inc();
            }
            // It ended, and whoever ended it may not have known of this exchange.
            Ok(false) => self.sessions.close(handle, birth),
            Err(error) => {
                tracing::warn!(target: "cloakroom::session", session = %handle, %error, "a touch was not written")
            }
        }
    }
}

/// Who a client is, as far as its credential says.
#[derive(Default)]
pub(super) struct Entrant {
    pub session: Option<Session>,
    /// What the token says that decided, also where it leads to no session yet.
    pub assertion: Option<Arc<Assertion>>,
    /// How the credential that decided came.
    pub carrier: Option<Carrier>,
}

/// A client whose token makes its session, or changes it.
fn client_actor(route: &Route, stripped: &Stripped) -> Actor {
    Actor {
        route: Some(route.name.clone()),
        request_id: Some(stripped.request_id.clone()),
        traceparent: Some(stripped.trace.parent().clone()),
        ..Actor::new(ActorKind::Client)
    }
}

/// Whether a refused session id means that there is no session: not an outage, and not a limit.
fn proves_nothing(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::BadCredential | Refusal::Load(LoadError::NotFound | LoadError::Revoked | LoadError::WrongSecret)
    )
}

/// A bad session id counts as none where a route can do without; a bad token never does.
fn is_none_at_all(refusal: &Refusal, credential: &Credential) -> bool {
    matches!(credential.presented, Presented::SessionId(_)) && proves_nothing(refusal)
}
