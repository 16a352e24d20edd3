//! One question to an identity server: bounded in time and size, over TLS but on this host, and never redirected.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config;
use crate::tls::{self, ClientFiles, HTTP_1_1, TlsError};

/// Everything, from the connection to the last byte.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// A server's address, and whom to believe that it is the one.
#[derive(Debug, Clone)]
pub struct Endpoint {
    uri: Uri,
    /// None on loopback without TLS.
    tls: Option<Arc<tls::Client>>,
}

/// An answer of success.
#[derive(Debug)]
pub struct Reply {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer. No message quotes what the server sent.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the URL is neither https nor http on loopback")]
    Url,
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("HTTP failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer is larger than it may be, or broke off")]
    Body,
    #[error("its answer is not what was asked for: {0}")]
    Content(&'static str),
    #[error("the file cannot be read: {0}")]
    File(std::io::Error),
}

impl Endpoint {
    /// # Errors
    /// Those of the files of TLS; the URL was checked with the configuration.
    pub fn open(url: &str, ca: Option<&Path>) -> Result<Self, TlsError> {
        let uri: Uri = url.parse().unwrap_or_default();
        let secure = uri.scheme_str() == Some("https");
        let files = ClientFiles { ca: ca.map(Path::to_path_buf), identity: None };
        let tls = secure.then(|| tls::Client::open(files)).transpose()?;
        Ok(Self { uri, tls: tls.map(Arc::new) })
    }

    /// Another address, of this server's choice: held to the same rules, and over TLS where this one is.
    pub fn elsewhere(&self, url: &str) -> Result<Self, FetchError> {
        let uri: Option<Uri> = Some(url).filter(|url| config::is_server_url(url)).and_then(|url| url.parse().ok());
        let same = |uri: &Uri| (uri.scheme_str() == Some("https")) == self.tls.is_some();
        let uri = uri.filter(same).ok_or(FetchError::Content("it leads to where keys cannot come from"))?;
        Ok(Self { uri, tls: self.tls.clone() })
    }

    /// Asks for JSON of at most `limit` bytes.
    pub async fn get(&self, limit: usize) -> Result<Reply, FetchError> {
        self.ask(Request::get(self.target()), Bytes::new(), limit).await
    }

    /// Sends a form, with `authorization`, and takes JSON of at most `limit` bytes.
    pub async fn post_form(
        &self,
        form: String,
        authorization: &HeaderValue,
        limit: usize,
    ) -> Result<Reply, FetchError> {
        let request = Request::post(self.target())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::AUTHORIZATION, authorization);
        self.ask(request, form.into(), limit).await
    }

    fn target(&self) -> &str {
        self.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    async fn ask(&self, request: http::request::Builder, body: Bytes, limit: usize) -> Result<Reply, FetchError> {
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let request = request
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("cloakroom/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|_| FetchError::Url)?;
        tokio::time::timeout(TIMEOUT, self.exchange(request, limit)).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, limit: usize) -> Result<Reply, FetchError> {
        let host = self.uri.host().ok_or(FetchError::Url)?.trim_start_matches('[').trim_end_matches(']');
        let port = self.uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(FetchError::Connect)?;
        let Some(tls) = &self.tls else {
            return talk(stream, request, limit).await;
        };
        tls.look();
        let mut config = (*tls.current()).clone();
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Url)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(FetchError::Connect)?;
        talk(stream, request, limit).await
    }
}

async fn talk<S>(stream: S, request: Request<Full<Bytes>>, limit: usize) -> Result<Reply, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(async {
        let response = sender.send_request(request).await?;
        read(response, limit).await
    });
    let mut open = true;
    loop {
        tokio::select! {
            reply = &mut answer => return reply,
            // What it has read is still to be taken.
            _ = &mut connection, if open => open = false,
        }
    }
}

async fn read(response: http::Response<Incoming>, limit: usize) -> Result<Reply, FetchError> {
    if !response.status().is_success() {
        return Err(FetchError::Status(response.status()));
    }
    let (head, body) = response.into_parts();
    let body = Limited::new(body, limit).collect().await.map_err(|_| FetchError::Body)?.to_bytes();
    Ok(Reply { headers: head.headers, body })
}
