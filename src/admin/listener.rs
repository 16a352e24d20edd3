//! Serves a router over plain connections, beside the proxy's own listeners.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::drain::Drain;
use crate::in_force::InForce;

/// Connections at once. Those who ask here are few and ask for little, so the oldest makes room for one more: whoever opens
/// as many as there may be, and asks nothing, keeps nobody from the answer that decides whether the pod lives.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and how long a connection may idle.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a request in flight may take once the drain is over.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long to wait when no connection can be accepted, so that running out of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers until the drain is over: health and figures are asked for while the proxy drains, too.
///
/// Not to be tracked by the drain, which would wait for it. Owns its connections, and is done when they are.
pub async fn serve(listener: TcpListener, router: InForce<Router>, drain: Drain) {
    let mut connections = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            () = drain.over() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    open.retain(|one| !one.is_finished());
                    if open.len() >= CONNECTIONS {
                        open.pop_front().iter().for_each(AbortHandle::abort);
                    }
                    open.push_back(connections.spawn(answer(stream, router.clone(), drain.clone())));
                }
                Err(error) => {
                    tracing::warn!(target: "cloakroom::admin", %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let all = async { while connections.join_next().await.is_some() {} };
    // What is still there then is cut off with the set.
    let _ = tokio::time::timeout(LAST_WORDS, all).await;
}

async fn answer(stream: TcpStream, router: InForce<Router>, drain: Drain) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    // Each request is for what is in force when it comes: a token that is none any more opens no kept connection.
    let service = service_fn(move |request| TowerToHyperService::new(Router::clone(&router.current())).call(request));
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // A client that breaks off is its own affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = drain.over() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
