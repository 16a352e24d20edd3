//! The way on: the request as the backend gets it.

use std::cell::LazyCell;

use http::request::Parts;
use http::uri::InvalidUri;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body::Body as _;

use crate::context::Stripped;
use crate::headers::{self, Lines};
use crate::listener::Arriving;
use crate::respond::Refusal;
use crate::route::Route;
use crate::session::{LoadError, Session};
use crate::telemetry::Record;
use crate::upstream::{Answer, Onward, Outgoing, UpstreamError};

use super::policy::Policy;
use super::{Admitted, Exchanges, malformed};

/// The room that what is said beside a request's own headers has at first, in bytes; more is made where it is needed.
const LINES: usize = 1 << 10;

/// Whether an OPTIONS request is to go no further, which is then for us to answer; if it may, one hop less is left
/// (RFC 9110, section 7.6.2). TRACE goes nowhere in any case.
pub(super) fn is_last_hop(head: &mut Parts) -> bool {
    if head.method != Method::OPTIONS {
        return false;
    }
    let left = headers::only(&head.headers, &header::MAX_FORWARDS).ok().flatten();
    match left.and_then(|left| left.to_str().ok()).and_then(|left| left.parse::<u64>().ok()) {
        Some(0) => true,
        Some(left) => {
            head.headers.insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
            false
        }
        None => false,
    }
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

/// The target as the backend gets it: its path and query alone, as the route has them.
fn rewrite(uri: &mut Uri, route: &Route) -> Result<(), InvalidUri> {
    let whole = target(uri);
    let rewritten = if whole == "*" { whole.into() } else { route.rewritten(whole) };
    // Most are what they are to be; reading one anew takes an allocation and a look at every byte.
    if uri.authority().is_some() || uri.path_and_query().is_none() || rewritten != whole {
        *uri = Uri::try_from(&*rewritten)?;
    }
    Ok(())
}

impl Exchanges {
    /// The request as the backend gets it: injected last, so that nothing of the client's can undo it.
    pub(super) fn prepare(
        &self,
        (head, body): (&mut Parts, &mut Option<Arriving>),
        policy: &Policy,
        admitted: &Admitted,
        stripped: &Stripped,
    ) -> Result<Option<Box<Onward>>, Refusal> {
        let Some(body) = body.take() else { return Err(Refusal::BodyBroken) };
        let context = self.rooms.context.clone();
        let mut lines = Lines::with_capacity(LINES);
        context.forward(head, stripped, &mut lines);
        if let Some(session) = &admitted.session {
            let keyring = LazyCell::new(|| self.sessions.keyring());
            let handle = |session: &Session, path: &str| {
                keyring.field_handle(session.handle(), session.birth(), path).to_string()
            };
            context.inject(&mut lines, admitted.route.index, session, &handle);
        }
        let authority = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        if let Some(authority) = authority {
            head.headers.insert(header::HOST, authority);
        } else if !head.headers.contains_key(header::HOST)
            && let Ok(authority) = HeaderValue::from_str(self.rooms.upstreams.authority(admitted.route.index))
        {
            // HTTP/1.0 may come without one, and HTTP/1.1 may not go without.
            head.headers.insert(header::HOST, authority);
        }
        rewrite(&mut head.uri, &admitted.route).map_err(|_| malformed())?;
        if headers::bytes(&head.headers) + lines.as_bytes().len() + target(&head.uri).len() > policy.head_limit {
            return Err(Refusal::HeadTooLarge);
        }
        // One spelling of it, whatever zeros it began with.
        if let Some(length) = body.size_hint().exact().filter(|_| head.headers.contains_key(header::CONTENT_LENGTH)) {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let limit = policy.body_limit;
        if limit.is_some_and(|limit| body.size_hint().lower() > limit) {
            return Err(Refusal::BodyTooLarge);
        }
        let mut request = Request::new(Outgoing::new(body, limit, context));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = std::mem::take(&mut head.uri);
        *request.headers_mut() = std::mem::take(&mut head.headers);
        // Boxed, since it is handed on several times.
        Ok(Some(Box::new(Onward { request, lines, upgrade: stripped.upgrade.is_some() })))
    }

    /// Why a session was taken from under its exchange: it came to its absolute expiry, or was revoked.
    fn ended(&self, admitted: &Admitted) -> Refusal {
        let expired = admitted.session.as_ref().is_some_and(|session| session.ends_at() <= self.sessions.now());
        match (expired, &admitted.assertion) {
            (true, Some(_)) => LoadError::Uninitialised.into(),
            (true, None) => LoadError::NotFound.into(),
            (false, _) => Refusal::SessionEnded,
        }
    }

    pub(super) async fn forward(
        &self,
        request: &mut Option<Box<Onward>>,
        admitted: &Admitted,
        record: &mut Record,
    ) -> Result<Answer, Refusal> {
        let Some(sent) = request.as_ref().map(|onward| onward.request.body().sent()) else {
            return Err(Refusal::BodyBroken);
        };
        record.forwarded(sent.tally(), sent.began().into_std(), self.rooms.upstreams.authority(admitted.route.index));
        let forwarding = self.rooms.upstreams.forward(admitted.route.index, request);
        let answer = match &admitted.presence {
            Some(presence) => tokio::select! {
                biased;
                answer = forwarding => answer,
                () = presence.closed() => return Err(self.ended(admitted)),
            },
            None => forwarding.await,
        };
        record.answered(answer.as_ref().ok().map(|answer| answer.head.status));
        answer.map_err(|error| match error {
            UpstreamError::Broken(_) if sent.is_too_large() => Refusal::BodyTooLarge,
            // Not the backend's doing: its request broke off because ours did.
            UpstreamError::Broken(_) if sent.is_broken() => Refusal::BodyBroken,
            error => error.into(),
        })
    }
}
