//! How connections are let go once the drain has begun, so that no request is lost on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Response, Version, header};

use crate::drain::Drain;

/// How long a connection without a request stays open once the drain has begun. A client may be sending one just
/// then, and would not know whether it was read; answered with `Connection: close`, it is not lost.
const LAST_CALL: Duration = Duration::from_secs(1);

/// What one connection says at its end.
pub struct Farewell {
    drain: Drain,
    http2: AtomicBool,
}

impl Farewell {
    pub fn new(drain: Drain) -> Self {
        Self { drain, http2: AtomicBool::new(false) }
    }

    /// Notes what the connection speaks.
    pub fn speaks(&self, version: Version) {
        self.http2.store(version == Version::HTTP_2, Ordering::Release);
    }

    /// Resolves when the connection is to end with what is in flight on it: HTTP/2 can say at once that it takes no
    /// more, HTTP/1 only with a response, and where none comes, by closing.
    pub async fn due(&self) {
        self.drain.begun().await;
        if !self.http2.load(Ordering::Acquire) {
            tokio::time::sleep(LAST_CALL).await;
        }
    }

    /// Says with a response that its connection ends there, unless it changes protocol.
    pub fn say<B>(&self, response: &mut Response<B>, version: Version) {
        let headers = response.headers_mut();
        if version <= Version::HTTP_11 && self.drain.has_begun() && !headers.contains_key(header::CONNECTION) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Resolves when nobody who has said nothing yet is waited for any more.
pub async fn last_call(drain: &Drain) {
    drain.begun().await;
    tokio::time::sleep(LAST_CALL).await;
}
