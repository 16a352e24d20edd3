//! How connections are let go once the drain has begun, so that no request is lost on them.

use std::time::Duration;

use http::{HeaderValue, Response, Version, header};
use tokio::time::Instant;

use crate::drain::Drain;

use super::pace::Pace;

/// How long a connection without a request stays open once the drain has begun. A client may be sending one just
/// then, and would not know whether it was read; answered with `Connection: close`, it is not lost.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Resolves when a connection is to end with what is in flight on it. HTTP/2 can say at once that it takes no more.
/// HTTP/1 can say so only with a response, and ends by itself after one that has; else once nothing was asked for a while.
pub async fn due(drain: &Drain, pace: &Pace) {
    drain.begun().await;
    let begun = Instant::now();
    while !pace.is_http2() {
        let since = pace.idle().map(|idle| idle.max(begun));
        let over = since.unwrap_or_else(Instant::now) + LAST_CALL;
        if since.is_some() && over <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(over).await;
    }
}

/// Says with a response that its connection ends there, if the drain has begun and it does not change protocol.
pub fn say<B>(drain: &Drain, response: &mut Response<B>, version: Version) {
    let headers = response.headers_mut();
    if version <= Version::HTTP_11 && drain.has_begun() && !headers.contains_key(header::CONNECTION) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Resolves when nobody who has said nothing yet is waited for any more.
pub async fn last_call(drain: &Drain) {
    drain.begun().await;
    tokio::time::sleep(LAST_CALL).await;
}
