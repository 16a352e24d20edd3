//! The rest of a backend's response, after its head.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};

use super::fault::Fault;
use super::http1::Connection;
use super::pool::{Lease, Place};

/// A response's body as it comes, and the connection that it comes over.
#[derive(Debug)]
pub struct Reply {
    lease: Option<Lease>,
    /// The body, where it comes over a shared connection.
    shared: Option<Incoming>,
}

impl Reply {
    pub(super) fn new(lease: Lease, shared: Option<Incoming>) -> Self {
        Self { lease: Some(lease), shared }
    }

    /// Gives the connection back, now that the body has come to its end; false if that was done before.
    pub fn give_back(&mut self) -> bool {
        self.lease.take().map(Lease::give_back).is_some()
    }

    /// The stream of bytes that the connection is once the protocol has changed, if it can be one.
    pub fn into_tunnel(self) -> Option<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        match self.lease?.place {
            Place::Own(connection) => connection.into_tunnel(),
            Place::Shared(_) => None,
        }
    }

    fn own(&self) -> Option<&Connection> {
        match &self.lease.as_ref()?.place {
            Place::Own(connection) => Some(connection),
            Place::Shared(_) => None,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let reply = &mut *self;
        match (&mut reply.lease, &mut reply.shared) {
            (_, Some(shared)) => match ready!(Pin::new(&mut *shared).poll_frame(cx)) {
                // A stream that is reset without an error ends for hyper as if all had come.
                None if !shared.is_end_stream() => Poll::Ready(Some(Err(Fault::Closed))),
                frame => Poll::Ready(frame.map(|frame| frame.map_err(Fault::from))),
            },
            (Some(Lease { place: Place::Own(connection), .. }), None) => connection.poll_frame(cx),
            _ => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.shared {
            Some(shared) => shared.is_end_stream(),
            None => self.own().is_none_or(|connection| connection.is_over()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.shared {
            Some(shared) => shared.size_hint(),
            None => self.own().map_or(SizeHint::with_exact(0), |connection| connection.size_hint()),
        }
    }
}
