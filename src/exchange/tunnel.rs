//! Connections that change protocol: bytes both ways until either end, the session or the process is done.

use http::Response;
use http::request::Parts;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::drain::Drain;

use super::reply::Held;

/// The client's side of an upgrade, taken before its head is passed on.
pub fn client_side(head: &mut Parts) -> OnUpgrade {
    head.extensions.remove::<OnUpgrade>().unwrap_or_else(|| hyper::upgrade::on(http::Request::new(())))
}

/// The backend's side, taken out of its 101.
pub fn backend_side(response: &mut Response<Incoming>) -> OnUpgrade {
    hyper::upgrade::on(response)
}

/// Joins the two sides, on a task that the drain waits for, once both have changed protocol.
pub fn join(drain: &Drain, client: OnUpgrade, backend: OnUpgrade, mut held: Held) {
    let cut = drain.clone();
    drain.spawn(async move {
        let (Ok(client), Ok(backend)) = (client.await, backend.await) else { return };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut client, &mut backend) => {
                if copied.is_ok() {
                    held.completed();
                }
            }
            () = held.closed() => {}
            () = cut.over() => {}
        }
    });
}
