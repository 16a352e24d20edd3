//! TLS on both sides: what certificates and keys in files make of a connection, and their change meanwhile.
//!
//! Versions 1.2 and 1.3 with one provider of cryptography, and nothing of it is a setting: what rustls offers is safe.

mod error;
mod file;
mod live;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};

pub use error::{Fault, Part, TlsError};
pub use live::Live;

use file::Pem;

/// What HTTP is called in ALPN (RFC 7301), the preferred first.
const HTTP: [&[u8]; 2] = [b"h2", HTTP_1_1];
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// Bytes both ways: over a socket, or over TLS on one.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// The side that clients connect to.
pub type Server = Live<ServerConfig>;
/// The side that connects to a server.
pub type Client = Live<ClientConfig>;

/// Where a server's certificate comes from, and whom it lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who has to have signed a client's certificate; none: clients need none.
    pub client_ca: Option<PathBuf>,
}

/// Whom a client believes, and what it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ClientFiles {
    /// Who has to have signed the server's certificate; none: the platform's roots.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its key; none: it shows nothing.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Server {
    /// Reads a server's files. It speaks HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// A file cannot be read, holds nothing of use, or does not fit the others.
    pub fn open(files: ServerFiles) -> Result<Self, TlsError> {
        let ServerFiles { certificate, key, client_ca } = files;
        let parts = [(Part::Certificate, Some(certificate)), (Part::Key, Some(key)), (Part::ClientCa, client_ca)];
        Live::of(parts, server)
    }
}

impl Client {
    /// Reads a client's files. It offers HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// As [`Server::open`], and where the platform's roots are needed and there are none.
    pub fn open(files: ClientFiles) -> Result<Self, TlsError> {
        let (certificate, key) = files.identity.unzip();
        Live::of([(Part::Ca, files.ca), (Part::Certificate, certificate), (Part::Key, key)], client)
    }
}

/// The one provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

fn server(files: &[Pem]) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::of(Part::Certificate))?;
    let builder = match Pem::find(files, Part::ClientCa) {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            let verifier = verifier.map_err(|error| ca.refused(Fault::Unusable(error.to_string())))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (certificate, key) = (Pem::need(files, Part::Certificate)?, Pem::need(files, Part::Key)?);
    let made = builder.with_single_cert(certificate.certificates()?, key.private_key()?);
    let mut config = made.map_err(|error| mismatch(error, certificate, key))?;
    config.alpn_protocols = HTTP.map(<[u8]>::to_vec).into();
    Ok(config)
}

fn client(files: &[Pem]) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::of(Part::Ca))?;
    let builder = match Pem::find(files, Part::Ca) {
        Some(ca) => builder.with_root_certificates(roots(ca)?),
        None => builder.dangerous().with_custom_certificate_verifier(platform()?),
    };
    let mut config = match Pem::find(files, Part::Certificate) {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let key = Pem::need(files, Part::Key)?;
            let made = builder.with_client_auth_cert(certificate.certificates()?, key.private_key()?);
            made.map_err(|error| mismatch(error, certificate, key))?
        }
    };
    config.alpn_protocols = HTTP.map(<[u8]>::to_vec).into();
    Ok(config)
}

/// The roots that the platform trusts: read once, since they are hundreds.
fn platform() -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    static PLATFORM: OnceLock<Arc<Verifier>> = OnceLock::new();
    if let Some(known) = PLATFORM.get() {
        return Ok(known.clone());
    }
    let verifier = Verifier::new(provider()).map_err(|error| TlsError::no_roots(error.to_string()))?;
    Ok(PLATFORM.get_or_init(|| Arc::new(verifier)).clone())
}

fn roots(ca: &Pem) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca.certificates()? {
        roots.add(certificate).map_err(|error| ca.refused(Fault::Unusable(error.to_string())))?;
    }
    Ok(roots)
}

fn mismatch(error: rustls::Error, certificate: &Pem, key: &Pem) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => key.refused(Fault::OtherKey),
        rustls::Error::InvalidCertificate(error) => certificate.refused(Fault::Unusable(error.to_string())),
        error => key.refused(Fault::Unusable(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
