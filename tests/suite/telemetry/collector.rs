//! A collector that takes OTLP over gRPC, or does not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::house::PATIENCE;

#[derive(Clone)]
pub struct Collector {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    mood: AtomicU8,
    spans: Mutex<Vec<Span>>,
    /// Every byte that came.
    received: Mutex<Vec<u8>>,
}

/// What it does with spans.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Mood {
    Takes,
    Refuses,
    /// Answers nothing.
    Hangs,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub name: String,
    pub kind: i32,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub attributes: BTreeMap<String, Json>,
    pub resource: BTreeMap<String, Json>,
    pub failed: bool,
    pub nanoseconds: u64,
}

pub const SERVER: i32 = 2;
pub const CLIENT: i32 = 3;

impl Collector {
    pub fn open(runtime: &Runtime) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let collector = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = collector.state.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| take(state.clone(), request));
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        collector
    }

    pub fn is(&self, mood: Mood) {
        self.state.mood.store(mood as u8, Ordering::Release);
    }

    pub fn section(&self, sample: f64) -> String {
        format!("tracing: {{ otlp: 'http://{}', sample: {sample} }}", self.address)
    }

    pub fn spans(&self) -> Vec<Span> {
        self.state.spans.lock().unwrap().clone()
    }

    pub fn received(&self) -> Vec<u8> {
        self.state.received.lock().unwrap().clone()
    }

    /// Waits until so many spans have come of which that holds.
    #[track_caller]
    pub fn wait_for(&self, count: usize, of: impl Fn(&Span) -> bool) -> Vec<Span> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let spans: Vec<Span> = self.spans().into_iter().filter(|span| of(span)).collect();
            if spans.len() >= count {
                return spans;
            }
            assert!(Instant::now() < deadline, "in vain waited for {count} spans among {:#?}", self.spans());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

type Answer = Response<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>>;

async fn take(state: Arc<State>, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let mood = state.mood.load(Ordering::Acquire);
    if mood == Mood::Hangs as u8 {
        std::future::pending::<()>().await;
    }
    let known = path == "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    if known && mood == Mood::Takes as u8 {
        state.received.lock().unwrap().extend_from_slice(&body);
        // One message behind its flag and its length.
        let batch = ExportTraceServiceRequest::decode(&body[5..]).expect("a batch of spans");
        state.spans.lock().unwrap().extend(read(batch));
    }
    let status = if !known {
        "12"
    } else if mood == Mood::Takes as u8 {
        "0"
    } else {
        "14"
    };
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
    let frames = [Ok(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

fn read(batch: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in batch.resource_spans {
        let resource = of_resource.resource.map(|resource| named(resource.attributes)).unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
            spans.push(Span {
                name: span.name,
                kind: span.kind,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: named(span.attributes),
                resource: resource.clone(),
                failed: span.status.is_some_and(|status| status.code == 2),
                nanoseconds: span.end_time_unix_nano - span.start_time_unix_nano,
            });
        }
    }
    spans
}

fn named(attributes: Vec<KeyValue>) -> BTreeMap<String, Json> {
    let value = |value: Option<AnyValue>| match value.and_then(|any| any.value) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::BoolValue(truth)) => json!(truth),
        other => json!(format!("{other:?}")),
    };
    attributes.into_iter().map(|attribute| (attribute.key, value(attribute.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
