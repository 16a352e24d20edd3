//! TLS to the servers: who has to have certified them.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::TlsConnector;

/// Trusts the authorities in that file, or the platform's.
///
/// # Errors
/// What is the matter with the file, or with the platform's authorities.
pub(super) fn connector(ca: Option<&Path>) -> Result<TlsConnector, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match ca {
        Some(path) => builder.with_root_certificates(authorities(path)?).with_no_client_auth(),
        None => {
            let trusting = builder.with_platform_verifier();
            trusting.map_err(|error| format!("the platform's authorities are no use: {error}"))?.with_no_client_auth()
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let text = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let unusable = || format!("{} holds no certificate in PEM", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
    }
    if roots.is_empty() { Err(unusable()) } else { Ok(roots) }
}

/// What is wrong with how the server shows itself, where that is what an error is about.
pub(super) enum Distrust {
    /// With this configuration it will never do.
    Lasting(&'static str),
    Passing(&'static str),
}

impl Distrust {
    pub fn of(error: &std::io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(match error {
            rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                Self::Passing("its certificate has expired")
            }
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::Lasting("the server's certificate is not for this host"),
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                Self::Lasting("the server's certificate comes from nobody who is trusted; store.ca names who is")
            }
            rustls::Error::InvalidCertificate(_) => Self::Passing("its certificate is not valid"),
            rustls::Error::InvalidMessage(_) => Self::Passing("it does not speak TLS; redis:// is without"),
            _ => Self::Passing("TLS to it fails"),
        })
    }
}
