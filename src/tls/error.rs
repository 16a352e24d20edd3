//! Why a file is of no use for TLS; none of it quotes what a file holds.

use std::path::PathBuf;

/// Which file of a configuration, by its key there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Certificate,
    Key,
    ClientCa,
    Ca,
}

impl Part {
    pub fn key(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::ClientCa => "client_ca",
            Self::Ca => "ca",
        }
    }
}

/// What is wrong, and in which file.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.told())]
pub struct TlsError {
    pub part: Part,
    /// None where there is no file to blame.
    pub path: Option<PathBuf>,
    pub fault: Fault,
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("it cannot be read: {0}")]
    Unreadable(std::io::Error),
    #[error("it is larger than 1 MiB")]
    TooLarge,
    #[error("it is not PEM: {0}")]
    NotPem(String),
    #[error("it holds no certificate")]
    NoCertificate,
    #[error("it holds no private key in clear (PKCS #8, PKCS #1 or SEC 1)")]
    NoKey,
    #[error("it is not the key of the certificate")]
    OtherKey,
    #[error("it cannot be used: {0}")]
    Unusable(String),
    #[error("the platform has no usable root certificates, and `ca` names none: {0}")]
    NoRoots(String),
}

impl TlsError {
    pub(super) fn no_roots(error: String) -> Self {
        Self { part: Part::Ca, path: None, fault: Fault::NoRoots(error) }
    }

    pub(super) fn of(part: Part) -> impl Fn(rustls::Error) -> Self {
        move |error| Self { part, path: None, fault: Fault::Unusable(error.to_string()) }
    }

    fn told(&self) -> String {
        match &self.path {
            Some(path) => format!("the TLS file {} ({}): {}", path.display(), self.part.key(), self.fault),
            None => self.fault.to_string(),
        }
    }
}
