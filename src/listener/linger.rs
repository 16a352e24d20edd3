//! The last moment of a connection that we have closed our side of.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

/// How long the other side may take to close as well.
const LINGER: Duration = Duration::from_secs(1);

/// Reads on, into nothing, until the other side has closed too: bytes that come to a closed socket are answered with a
/// reset, and that takes away from the other side what it has not read yet of its last responses.
#[derive(Default)]
pub struct Linger {
    until: Option<Pin<Box<Sleep>>>,
}

impl Linger {
    pub fn poll(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut bytes = [0; 1024];
        loop {
            let mut read = ReadBuf::new(&mut bytes);
            let more = ready!(Pin::new(&mut *stream).poll_read(cx, &mut read));
            if more.is_err() || read.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}
