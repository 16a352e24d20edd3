//! What is said of the credentials in a request.

use http::request::Parts;

use crate::clock::Clock;
use crate::config::CredentialKind;
use crate::exchange::preflight;
use crate::identity::{Carrier, Credential, Presented, Taken, Token, TokenKind};
use crate::route::Route;

use super::{Explained, Found};

impl Explained<'_> {
    pub(super) fn found(&self, route: &Route, head: &Parts, taken: &Taken) -> Vec<Found> {
        let verifier = &self.rooms.verifier;
        let counts = self.uses_session(route) && preflight(head).is_none();
        let decides = verifier.pick(route.index, taken).filter(|_| counts);
        let mut found: Vec<Found> = taken.all().map(|one| self.told(route, one, decides)).collect();
        found.sort_by_key(|one| !one.decides);
        found
    }

    fn told(&self, route: &Route, credential: &Credential, decides: Option<Carrier>) -> Found {
        let (well_formed, issuer, checked) = match &credential.presented {
            Presented::SessionId(id) => (id.is_some(), None, None),
            Presented::Token(token) => self.looked_at(token),
        };
        Found {
            issuer,
            checked,
            kind: match credential.kind() {
                CredentialKind::SessionId => "session id",
                CredentialKind::Jwt => "JWT",
                CredentialKind::Introspection => "opaque token",
            },
            carrier: match credential.carrier {
                Carrier::Cookie => "cookie",
                Carrier::Bearer => "bearer",
                Carrier::Header => "header",
            },
            well_formed,
            decides: decides == Some(credential.carrier),
            forwarded: self.rooms.verifier.gives_back(route.index, credential),
        }
    }

    /// As far as it can be said without the issuer's keys, and without asking anybody.
    fn looked_at(&self, token: &Token) -> (bool, Option<String>, Option<String>) {
        if token.kind() == TokenKind::Opaque {
            let servers = self.config.identity.introspections().iter().map(|server| server.url.as_str());
            let asked = servers.collect::<Vec<_>>().join(", then ");
            return (true, None, Some(format!("{asked} would be asked whether it is active")));
        }
        match self.rooms.verifier.look_at(token, Clock::system().now()) {
            Ok(issuer) => {
                let checked = "its claims hold now; its signature would be checked against the issuer's keys";
                (true, Some(issuer.to_string()), Some(checked.into()))
            }
            Err(flaw) => (false, None, Some(format!("it is no good: {flaw}"))),
        }
    }
}
