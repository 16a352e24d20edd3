//! On which terms a listener serves: its bounds, its TLS, and who says for whom a connection comes.

use std::sync::Arc;

use http::Request;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use crate::config::{self, ListenerLimits, Problems};
use crate::headers;
use crate::tls;

use super::stream::Streams;

/// The smallest read buffer that hyper takes.
const LEAST_BUFFER: usize = 8 << 10;
/// What one HTTP/2 stream may send ahead of its backend.
const STREAM_WINDOW: u32 = 64 << 10;
/// For how many streams a connection has room: as many that are not read hold their own windows, and nobody else's.
const WINDOWS: u32 = 256;
/// What is held of one stream's response for its client.
const SEND_BUFFER: usize = 64 << 10;

/// What holds for the connections of a listener from when they are accepted.
pub struct Terms {
    pub limits: ListenerLimits,
    pub tls: Option<Arc<tls::Server>>,
    /// Whether a connection begins with a PROXY header, which says who its client is.
    pub proxy_protocol: bool,
    pub http1: http1::Builder,
    pub http2: http2::Builder<Streams>,
}

impl Terms {
    /// Compiles the terms of every listener, noting every problem; none if there was an error.
    pub fn compile(listeners: &[config::Listener], problems: &mut Problems) -> Option<Vec<Self>> {
        listeners.iter().enumerate().map(|(at, raw)| Self::of(raw, at, problems)).collect()
    }

    fn of(raw: &config::Listener, at: usize, problems: &mut Problems) -> Option<Self> {
        let tls = match &raw.tls {
            None => None,
            Some(config::ListenerTls { certificate, key, client_ca }) => {
                let (certificate, key, client_ca) = (certificate.clone(), key.clone(), client_ca.clone());
                match tls::Server::open(tls::ServerFiles { certificate, key, client_ca }) {
                    Ok(server) => Some(Arc::new(server)),
                    Err(error) => {
                        problems.error(format!("/listeners/{at}/tls/{}", error.part.key()), &error);
                        return None;
                    }
                }
            }
        };
        let limits = raw.limits.clone();
        let (http1, http2) = (http1(&limits), http2(&limits));
        Some(Self { http1, http2, limits, tls, proxy_protocol: raw.proxy_protocol })
    }

    /// Takes on what has changed in files.
    pub fn look(&self) {
        if let Some(tls) = &self.tls {
            tls.look();
        }
    }
}

/// What the head of a request is held to beside what hyper holds it to.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    headers: usize,
    /// In bytes; only where that is less than hyper reads at the least.
    bytes: Option<usize>,
}

impl HeadLimits {
    pub fn of(limits: &ListenerLimits) -> Self {
        let bytes = Some(limits.head.bytes()).filter(|bytes| *bytes < LEAST_BUFFER);
        Self { headers: limits.headers, bytes }
    }

    pub fn admit<B>(&self, request: &Request<B>) -> bool {
        request.headers().len() <= self.headers && self.bytes.is_none_or(|most| head_bytes(request) <= most)
    }
}

/// The bytes of a head as HTTP/1.1 has it.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let line = request.method().as_str().len() + " ".len() + target + " HTTP/1.1\r\n\r\n".len();
    line + headers::bytes(request.headers())
}

fn http1(limits: &ListenerLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The time of a head is measured where its bytes are seen: hyper's own timer runs while nothing is asked, too.
        .header_read_timeout(None)
        .max_buf_size(limits.head.bytes().max(LEAST_BUFFER))
        .max_headers(limits.headers);
    builder
}

fn http2(limits: &ListenerLimits) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams::new(limits.stall.0));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head.0).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(limits.streams.clamp(1, WINDOWS)))
        .max_send_buf_size(SEND_BUFFER)
        // Explicit, since without them a client that resets what it opens costs without bound (CVE-2023-44487).
        .max_pending_accept_reset_streams(Some(20))
        // Over the connection's whole life, which many users may share.
        .max_local_error_reset_streams(Some(1024))
        .keep_alive_interval(std::time::Duration::from_secs(20))
        .keep_alive_timeout(std::time::Duration::from_secs(20));
    builder
}
