//! The write-back in a response's trailers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use tokio::task::JoinHandle;

use crate::headers;
use crate::respond::Refusal;
use crate::telemetry::{Record, WriteBack};
use crate::writeback::Collected;

use super::{Writer, Written, cut_off, note};

/// Writes back what stands in a response's trailers, between the last byte of its body and its end.
pub struct TrailerWriting {
    pub(super) writer: Writer,
    state: State,
    pub(super) terms: Terms,
}

enum State {
    Waiting,
    Writing { trailers: HeaderMap, task: JoinHandle<Result<Written, Refusal>> },
    Passing(HeaderMap),
    Failed,
}

/// What decides about a response's trailers.
pub(super) struct Terms {
    /// A refused write-back breaks the stream off.
    pub strict: bool,
    /// Whether the client takes trailers.
    pub passes: bool,
    pub preflight: bool,
    /// Whether the length was told beforehand: a client may have taken the body for whole before the trailers came.
    pub sized: bool,
}

impl TrailerWriting {
    pub(super) fn new(writer: Writer, terms: Terms) -> Self {
        Self { writer, state: State::Waiting, terms }
    }

    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Writing { .. })
    }

    pub fn failed(&self) -> bool {
        matches!(self.state, State::Failed)
    }

    pub fn begin(&mut self, mut trailers: HeaderMap) {
        let context = &self.writer.exchanges.rooms.context;
        let collected = Collected::take(&mut trailers, &context.names, context.reserved());
        let void: Vec<_> = trailers.keys().filter(|name| headers::is_void_in_trailers(name)).cloned().collect();
        void.iter().for_each(|name| drop(trailers.remove(name)));
        if !self.terms.passes {
            trailers.clear();
        }
        self.state = if collected.is_empty() || self.terms.preflight {
            State::Passing(trailers)
        } else if self.terms.sized {
            self.writer.count(WriteBack::Ignored);
            State::Passing(trailers)
        } else {
            State::Writing { trailers, task: self.writer.spawn(collected) }
        };
    }

    /// The trailers for the client once the changes in them are committed; an error where the stream must not end
    /// as if they had been.
    pub fn poll(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Poll<Result<HeaderMap, ()>> {
        let trailers = match &mut self.state {
            State::Writing { trailers, task } => {
                let written = ready!(Pin::new(task).poll(cx)).unwrap_or_else(cut_off);
                let trailers = std::mem::take(trailers);
                if note(written, self.terms.strict, record).is_err() {
                    self.state = State::Failed;
                    return Poll::Ready(Err(()));
                }
                trailers
            }
            State::Passing(trailers) => std::mem::take(trailers),
            State::Waiting => HeaderMap::new(),
            State::Failed => return Poll::Ready(Err(())),
        };
        self.state = State::Waiting;
        Poll::Ready(Ok(trailers))
    }
}
