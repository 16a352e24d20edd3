//! Connections that change protocol: bytes both ways until either end, the session or the process is done.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::drain::Drain;
use crate::tls::Duplex;

use super::reply::Held;

/// The client's side of an upgrade, taken before its head is passed on.
pub fn client_side(head: &mut Parts) -> OnUpgrade {
    head.extensions.remove::<OnUpgrade>().unwrap_or_else(|| hyper::upgrade::on(http::Request::new(())))
}

/// Joins the two sides, on a task that the drain waits for, once both have changed protocol. Over when either side
/// breaks or both have said their last, when the session ends, when nothing came for `idle`, or with the drain.
pub fn join(drain: &Drain, client: OnUpgrade, backend: impl Duplex + 'static, idle: Duration, mut held: Held) {
    let cut = drain.clone();
    drain.spawn(async move {
        let quiet = Quiet::default();
        let ended = tokio::select! {
            ended = pass(client, backend, &quiet) => ended,
            () = held.closed() => false,
            () = quiet.lasts(idle) => false,
            () = cut.over() => false,
        };
        if ended {
            held.completed();
        }
    });
}

/// Passes bytes both ways, and says whether both sides have ended in order.
async fn pass(client: OnUpgrade, backend: impl Duplex, quiet: &Quiet) -> bool {
    let Ok(client) = client.await else { return false };
    let (mut client, mut backend) = (quiet.heeding(TokioIo::new(client)), quiet.heeding(backend));
    tokio::io::copy_bidirectional(&mut client, &mut backend).await.is_ok()
}

/// When a byte came last, from either side.
#[derive(Clone)]
struct Quiet(Arc<(Instant, AtomicU64)>);

impl Default for Quiet {
    fn default() -> Self {
        Self(Arc::new((Instant::now(), AtomicU64::new(0))))
    }
}

impl Quiet {
    fn heeding<S>(&self, side: S) -> Heeded<S> {
        Heeded { side, quiet: self.clone() }
    }

    fn broken(&self) {
        let (began, last) = &*self.0;
        last.store(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Resolves once nothing came for so long.
    async fn lasts(&self, limit: Duration) {
        let (began, last) = &*self.0;
        loop {
            let since = last.load(Ordering::Acquire);
            tokio::time::sleep_until(*began + Duration::from_micros(since) + limit).await;
            if last.load(Ordering::Acquire) == since {
                return;
            }
        }
    }
}

/// One side, whose bytes break the quiet.
struct Heeded<S> {
    side: S,
    quiet: Quiet,
}

impl<S: Duplex> AsyncRead for Heeded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.side).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.quiet.broken();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Duplex> AsyncWrite for Heeded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.side).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.side).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.side).poll_shutdown(cx)
    }
}
