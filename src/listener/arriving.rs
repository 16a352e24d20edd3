//! A request's body, watched to its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pace::Pace;

/// The body of a request as it comes. While it does, its connection is not at rest, whatever became of the response: the
/// rest of a body would be taken for the next request.
#[derive(Debug)]
pub struct Arriving {
    inner: Incoming,
    /// None once it has come to its end.
    coming: Option<Arc<Pace>>,
}

impl Arriving {
    pub(super) fn new(inner: Incoming, pace: &Arc<Pace>) -> Self {
        let coming = (!inner.is_end_stream()).then(|| pace.clone());
        if let Some(pace) = &coming {
            pace.body_begins();
        }
        Self { inner, coming }
    }

    fn ends(&mut self, whole: bool) {
        if let Some(pace) = self.coming.take() {
            pace.body_ends(whole);
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.ends(false);
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if polled.is_none() || self.inner.is_end_stream() {
            self.ends(true);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
