//! The way in: who asks, and whether they may.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;

use crate::config::{self, SessionUse};
use crate::context::Stripped;
use crate::handle::{Birth, Handle};
use crate::identity::{Ambiguous, Carrier, Credential, Presented, Taken};
use crate::limit::PeerAdmitted;
use crate::respond::Refusal;
use crate::route::Route;
use crate::session::{LoadError, Session};
use crate::telemetry::{Reason, Record};

use super::policy::{self, Policy};
use super::{Admitted, Course, Exchanges};

impl Exchanges {
    /// Which credential decides on this route, after a page of a foreign origin was turned away.
    pub(super) fn identify(
        &self,
        head: &mut Parts,
        (route, policy): (&Route, &Policy),
        stripped: &Stripped,
        taken: Result<Taken, Ambiguous>,
        course: &mut Course,
    ) -> Result<Option<Credential>, Refusal> {
        let taken = taken?;
        self.rooms.verifier.give_back(route.index, &taken, &mut head.headers);
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

    /// The session that the credential proves; none where the route can do without.
    pub(super) async fn load(
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

    pub(super) async fn prove(&self, client: IpAddr, credential: &Credential) -> Result<Session, Refusal> {
        let id = match &credential.presented {
            Presented::SessionId(id) => id.as_ref(),
            Presented::Jwt(_) | Presented::Opaque(_) => None,
        };
        if let Some(failures) = &self.rooms.failures {
            failures.admit(client, id).map_err(Refusal::TooManyBad)?;
        }
        let proven = match id {
            Some(id) => self.sessions.load(id).await.map_err(Refusal::from),
            None => Err(Refusal::BadCredential),
        };
        match (&proven, &self.rooms.failures) {
            (Ok(_), Some(failures)) => failures.succeeded_with(id),
            (Err(refusal), failures) if is_none_at_all(refusal) => {
                let reason = Reason { reason: refusal.code().name() };
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
    pub(super) async fn admit(
        &self,
        (route, policy): (&Arc<Route>, &Policy),
        counted: &PeerAdmitted,
        session: Option<Session>,
        carrier: Option<Carrier>,
        preflight: bool,
    ) -> Result<Admitted, Refusal> {
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
        Ok(Admitted { route: route.clone(), session: session.map(Arc::new), carrier, presence, permit, preflight })
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

/// Whether a refused credential means that there is no session: not an outage, and not a limit.
fn is_none_at_all(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::BadCredential | Refusal::Load(LoadError::NotFound | LoadError::Revoked | LoadError::WrongSecret)
    )
}
