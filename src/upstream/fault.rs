//! What can go wrong on a connection to a backend.

use std::io;

/// Why a connection to a backend broke.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("it was closed")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the head is malformed: {0}")]
    Head(httparse::Error),
    #[error("the head holds what no head may")]
    Field,
    #[error("the head is too large")]
    HeadTooLarge,
    #[error("the length of the body makes no sense")]
    Length,
    #[error("the body is coded in a way that nobody asked for")]
    Coding,
    #[error("a response came before its request had gone out")]
    Early,
    #[error("there is no end to its interim responses")]
    Interim,
    #[error("the protocol was changed before the request was over")]
    Protocol,
    #[error("a chunk of the body is malformed")]
    Chunk,
    #[error("the request's body broke off: {0}")]
    Request(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}
