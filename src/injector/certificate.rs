//! The webhook's certificate, which may not be there yet, and may change.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;

use crate::config::WebhookTls;
use crate::readiness::Readiness;
use crate::tls::{Server, ServerFiles};

/// The name of the check that holds once there is a certificate.
pub const CHECK: &str = "certificate";

/// Whatever stands in the files: one that was good stays in use until another is.
#[derive(Clone)]
pub struct Certificate(Arc<Inner>);

struct Inner {
    files: ServerFiles,
    /// None as long as the files have never been of use.
    server: ArcSwapOption<Server>,
    readiness: Readiness,
}

impl Certificate {
    pub fn of(tls: &WebhookTls, readiness: Readiness) -> Self {
        let files = ServerFiles { certificate: tls.certificate.clone(), key: tls.key.clone(), client_ca: None };
        let certificate = Self(Arc::new(Inner { files, server: ArcSwapOption::empty(), readiness }));
        certificate.look();
        certificate
    }

    /// For the next connection.
    pub fn current(&self) -> Option<Arc<ServerConfig>> {
        self.0.server.load().as_ref().map(|server| server.current())
    }

    /// Takes the files on if they have changed. To be called about once a second.
    pub fn look(&self) {
        let inner = &self.0;
        if let Some(server) = inner.server.load().as_ref() {
            server.look();
            return;
        }
        match Server::open(inner.files.clone()) {
            Ok(server) => {
                inner.server.store(Some(Arc::new(server)));
                inner.readiness.holds(CHECK);
                tracing::info!(target: "cloakroom::injector", "the certificate is in use");
            }
            Err(error) => {
                let reason: Arc<str> = error.to_string().into();
                let told = inner.readiness.report().checks.get(CHECK).and_then(|check| check.reason.clone());
                // Once for each reason, not once a second.
                if told.as_ref() != Some(&reason) {
                    tracing::error!(target: "cloakroom::injector", %reason, "there is no certificate to serve with");
                }
                inner.readiness.fails(CHECK, reason);
            }
        }
    }
}
