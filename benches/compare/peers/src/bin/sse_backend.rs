//! Answers everything with 50 server-sent events, 5 ms apart, each with the time at which it was sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

const EVENTS: u32 = 50;
const EVENT_BYTES: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);

struct Events(mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Microseconds of the clock that all processes of a machine share.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of our own.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

async fn answer(_: Request<Incoming>) -> Result<Response<Events>, Infallible> {
    let (events, body) = mpsc::channel(4);
    tokio::spawn(async move {
        for number in 0..EVENTS {
            let text = format!("data: {} {number:02} ", now());
            let event = format!("{text:x<width$}\n\n", width = EVENT_BYTES - 2);
            if events.send(Bytes::from(event)).await.is_err() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    let response = Response::builder().header("content-type", "text/event-stream").header("cache-control", "no-cache");
    Ok(response.body(Events(body)).expect("a response"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = tokio::net::TcpListener::bind(std::env::var("LISTEN").expect("LISTEN")).await.expect("an address");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}
