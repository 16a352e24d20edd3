//! Certificates for servers, by an authority of the test's own.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::{Server, free_port};

pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// For that host.
    pub fn of(host: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::new(params, ca_key);
        let certificate = CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        for (name, text) in [("ca", ca.pem()), ("server", certificate.pem()), ("key", key.serialize_pem())] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Options with which a server speaks TLS on that port.
    pub fn options(&self, port: u16) -> Vec<String> {
        let file = |name| self.path(name).display().to_string();
        let (server, key, ca) = (file("server"), file("key"), file("ca"));
        let words = [
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &server,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            "no",
        ];
        words.map(str::to_owned).to_vec()
    }

    /// A server that speaks TLS on one port, and nothing on the other.
    pub fn server(&self, options: &[&str]) -> (Arc<Server>, u16) {
        let port = free_port();
        let tls = self.options(port);
        let all: Vec<&str> = tls.iter().map(String::as_str).chain(options.iter().copied()).collect();
        (Server::start_with(&all), port)
    }
}
