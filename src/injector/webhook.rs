//! Where the API server asks, over TLS whose files may change or be of no use for a while.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::drain::Drain;

use super::certificate::Certificate;
use super::figures::Figures;
use super::review::{self, Answer, Outcome};
use super::{Policy, Scope};

/// Connections at once; more wait in the backlog. API servers are few and keep theirs open.
const CONNECTIONS: usize = 256;
/// What an AdmissionReview may measure, in bytes: a pod has at most 1.5 MiB in etcd, and is sent once.
const BODY: usize = 4 << 20;
/// How long a handshake or a head may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a whole request may take: an API server waits for at most this long.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// How long to wait when no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Desk {
    policy: Policy,
    figures: Figures,
}

/// `/inject` for pods that ask themselves, `/inject/namespace` for those of a namespace that does.
pub fn router(policy: Policy, figures: Figures) -> Router {
    Router::new()
        .route("/inject", post(async |desk: State<Arc<Desk>>, body: Bytes| answer(&desk, Scope::Annotated, &body)))
        .route(
            "/inject/namespace",
            post(async |desk: State<Arc<Desk>>, body: Bytes| answer(&desk, Scope::Namespace, &body)),
        )
        // The bound is that of `whole`.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(whole))
        .with_state(Arc::new(Desk { policy, figures }))
}

fn answer(desk: &Desk, scope: Scope, body: &[u8]) -> Response {
    match review::answer(&desk.policy, scope, body) {
        Ok(answer) => {
            desk.figures.count(answer.outcome);
            tell(&answer);
            ([(CONTENT_TYPE, "application/json")], answer.review.to_string()).into_response()
        }
        Err(message) => (StatusCode::BAD_REQUEST, format!("{message}\n")).into_response(),
    }
}

fn tell(answer: &Answer) {
    let Answer { outcome, pod, namespace, reason, .. } = answer;
    let (outcome, reason) = (outcome.word(), reason.as_deref().unwrap_or_default());
    match answer.outcome {
        Outcome::Untouched => tracing::debug!(target: "cloakroom::injector", namespace, pod, outcome, reason),
        Outcome::Injected => tracing::info!(target: "cloakroom::injector", namespace, pod, outcome),
        Outcome::Refused | Outcome::Admitted => {
            tracing::warn!(target: "cloakroom::injector", namespace, pod, outcome, reason);
        }
    }
}

/// Accepts and serves until the drain begins; what is in flight then ends by itself.
pub async fn serve(listener: TcpListener, certificate: Certificate, router: Router, drain: Drain) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.begun() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = converse(stream, certificate.clone(), router.clone(), drain.clone());
                drop(drain.spawn(async move {
                    connection.await;
                    drop(place);
                }));
            }
            Err(error) => {
                tracing::warn!(target: "cloakroom::injector", %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, certificate: Certificate, router: Router, drain: Drain) {
    // Without one there is nothing to say; whoever asks sees the connection close.
    let Some(config) = certificate.current() else { return };
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HEAD_TIME, TlsAcceptor::from(config).accept(stream));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(target: "cloakroom::injector", %error, "a handshake failed");
            return;
        }
        Err(_) => return,
    };
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    http.http2().timer(TokioTimer::new()).max_concurrent_streams(100).keep_alive_interval(HEAD_TIME);
    let service = TowerToHyperService::new(router);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = drain.begun() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = drain.over() => {}
    }
}

/// Reads the whole request first: one that is answered before it is over ends as a broken stream over HTTP/2.
async fn whole(request: Request, next: Next) -> Response {
    let whole = async {
        let (parts, body) = request.into_parts();
        match to_bytes(body, BODY).await {
            Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
            Err(_) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        }
    };
    match tokio::time::timeout(REQUEST_TIME, whole).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}
