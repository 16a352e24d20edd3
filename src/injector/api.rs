//! What little is asked of the API server: by the job that makes the certificate, never by the webhook.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value as Json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::tls::{Client, ClientFiles, HTTP_1_1, TlsError};

/// Until an answer is whole.
const PATIENCE: Duration = Duration::from_secs(30);
/// No object is larger in etcd, and escapes add to it.
const ANSWER_BYTES: usize = 4 << 20;
/// Where every pod that may ask finds its token, and who vouches for the API server.
pub const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The API server, asked as a service account.
pub struct Api {
    host: String,
    port: u16,
    connector: TlsConnector,
    bearer: HeaderValue,
}

/// Why the API server did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("this runs in no pod: {0} is not set")]
    NoCluster(&'static str),
    #[error("{}: {error}", path.display())]
    Account { path: PathBuf, error: std::io::Error },
    #[error("{}: this is no token", .0.display())]
    Token(PathBuf),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the API server at {host}:{port} cannot be reached: {error}")]
    Connect { host: String, port: u16, error: String },
    #[error("the API server did not answer in time")]
    Late,
    #[error("the API server broke off: {0}")]
    Broken(String),
    /// As it says it itself.
    #[error("{method} {path}: {status}: {message}")]
    Refused { method: Method, path: String, status: StatusCode, message: String },
}

impl Api {
    /// The cluster that this pod is in.
    pub fn of_pod(account: &Path) -> Result<Self, ApiError> {
        let variable = |name: &'static str| std::env::var(name).map_err(|_| ApiError::NoCluster(name));
        let port = "KUBERNETES_SERVICE_PORT";
        let path = account.join("token");
        let token = std::fs::read_to_string(&path).map(Zeroizing::new);
        let token = token.map_err(|error| ApiError::Account { path: path.clone(), error })?;
        let bearer = Zeroizing::new(format!("Bearer {}", token.trim()));
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| ApiError::Token(path))?;
        bearer.set_sensitive(true);
        let tls = Client::open(ClientFiles { ca: Some(account.join("ca.crt")), identity: None })?;
        let mut tls = (*tls.current()).clone();
        tls.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(Self {
            host: variable("KUBERNETES_SERVICE_HOST")?,
            port: variable(port)?.parse().map_err(|_| ApiError::NoCluster(port))?,
            connector: TlsConnector::from(Arc::new(tls)),
            bearer,
        })
    }

    /// The object at that path, if there is one.
    pub async fn find(&self, path: &str) -> Result<Option<Json>, ApiError> {
        match self.send(Method::GET, path, "application/json", None).await {
            Ok(object) => Ok(Some(object)),
            Err(ApiError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn create(&self, path: &str, object: &Json) -> Result<Json, ApiError> {
        self.send(Method::POST, path, "application/json", Some(object)).await
    }

    pub async fn replace(&self, path: &str, object: &Json) -> Result<Json, ApiError> {
        self.send(Method::PUT, path, "application/json", Some(object)).await
    }

    /// Applies a JSON Patch (RFC 6902).
    pub async fn patch(&self, path: &str, operations: &Json) -> Result<Json, ApiError> {
        self.send(Method::PATCH, path, "application/json-patch+json", Some(operations)).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<&Json>,
    ) -> Result<Json, ApiError> {
        let exchange = self.exchange(method.clone(), path, kind, body);
        let (status, body) = tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| ApiError::Late)??;
        let answer: Json = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer.get("message").and_then(Json::as_str).unwrap_or("it does not say why").to_owned();
        Err(ApiError::Refused { method, path: path.to_owned(), status, message })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<&Json>,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        let broken = |error: &dyn std::fmt::Display| ApiError::Broken(error.to_string());
        let unreachable = |error: std::io::Error| ApiError::Connect {
            host: self.host.clone(),
            port: self.port,
            error: error.to_string(),
        };
        let name =
            ServerName::try_from(self.host.clone()).map_err(|error| unreachable(std::io::Error::other(error)))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        let stream = self.connector.connect(name, stream).await.map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &self.bearer)
            .header(CONTENT_TYPE, kind)
            .body(Full::new(Bytes::from(body.map(Json::to_string).unwrap_or_default())));
        let request = request.map_err(|error| broken(&error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|error| ApiError::Broken(error.to_string()))?.to_bytes()))
        };
        tokio::select! {
            answer = answer => answer,
            // Without an answer it ends only when it breaks.
            ended = connection => Err(ApiError::Broken(ended.err().map_or_else(|| "it closed".into(), |e| e.to_string()))),
        }
    }
}
