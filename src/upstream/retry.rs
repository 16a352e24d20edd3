//! One request to its backend: over a kept connection or a new one, and once more only where it certainly did not leave.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::body::{Onward, Overdue};
use super::pool::{Lease, Need, Outcome};
use super::{Answer, Reply, Upstream, UpstreamError};

/// A request is tried so often: what stood in the way of the first may be gone at once, or not soon.
const TRIES: u32 = 2;
/// Before a backend that refused a connection is tried again: it may be about to listen.
const REFUSED: Duration = Duration::from_millis(25);

impl Upstream {
    /// Sends a request and waits for the head of its response.
    ///
    /// A kept connection that the backend has closed is not taken. It is tried a second time, over a new connection, if
    /// the first was refused, or was one that is shared and gives the request back: not a byte of it had left. Nothing
    /// else is ever repeated, whatever its method: what was written in part may have been acted on.
    pub(super) async fn exchange(&self, request: &mut Option<Box<Onward>>) -> Result<Answer, UpstreamError> {
        let need = request.as_deref().map(Need::of).ok_or(UpstreamError::Unsent)?;
        let mut kept = self.pool.take(&need);
        let mut tries = 0;
        loop {
            tries += 1;
            let mut lease = match kept.take() {
                Some(lease) => lease,
                // Boxed, as it is rare and its state large.
                None => match Box::pin(self.connect(&need)).await {
                    Err(error) if tries < TRIES && is_refused(&error) => {
                        tokio::time::sleep(REFUSED).await;
                        continue;
                    }
                    connected => connected?,
                },
            };
            match lease.send(request.take().ok_or(UpstreamError::Unsent)?, self.patience).await {
                Outcome::Answered(head, body) => {
                    return Ok(Answer { head, reply: Reply::new(lease, body), sent: need.sent });
                }
                Outcome::Overdue(overdue) => {
                    if overdue != Overdue::Client {
                        lease.doubt();
                    }
                    return Err(overdue.into());
                }
                Outcome::Failed(_, Some(unsent)) if tries < TRIES => *request = Some(unsent),
                Outcome::Failed(fault, _) => return Err(UpstreamError::Broken(fault)),
            }
        }
    }

    /// A new connection, unless the backend is known not to take any.
    async fn connect(&self, need: &Need) -> Result<Lease, UpstreamError> {
        let attempt = self.pool.circuit.attempt(Instant::now()).map_err(UpstreamError::Down)?;
        let connected = self.pool.connect(self.connect, need).await;
        match &connected {
            Ok(_) => attempt.succeeded(),
            Err(_) => attempt.failed(Instant::now()),
        }
        connected
    }
}

fn is_refused(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::Connect(error) if error.kind() == ErrorKind::ConnectionRefused)
}
