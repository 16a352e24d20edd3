//! Asks a running sidecar's admin or status listener.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::config;
use crate::secret::Secret;

use super::check;

/// Until an answer is whole; the longest that the admin listener works on one is well below.
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer is larger: a page of a trail has at most a thousand records.
const ANSWER_BYTES: usize = 16 << 20;
/// No token is larger.
const TOKEN_BYTES: u64 = 16 << 10;

/// Where the admin listener is, and what opens it.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// The admin listener [default: the configuration's, else 127.0.0.1:9900]
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// The file that holds the admin token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The configuration that says where the listener is and what its token is
    #[arg(long, short, value_name = "FILE", env = "CLOAKROOM_CONFIG")]
    config: Option<PathBuf>,
}

/// Why there was no answer, or not the one that was asked for; one line each.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{} cannot be read: {error}", path.display())]
    TokenFile { path: PathBuf, error: io::Error },
    #[error("the admin token has characters that no token can have")]
    Token,
    #[error("{0}")]
    Configuration(String),
    #[error("nobody answers at {address}: {error}")]
    Connect { address: String, error: io::Error },
    #[error("{0} did not answer in time")]
    Late(String),
    #[error("{address} broke off: {error}")]
    Broken { address: String, error: String },
    #[error("the admin token is needed: --token-file FILE, or --config FILE where it says admin.token")]
    NoToken,
    #[error("{}", told(*.status, .problem))]
    Refused { status: StatusCode, problem: Json },
    #[error("the result could not be written: {0}")]
    Output(#[from] io::Error),
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// One admin or status listener.
#[derive(Debug)]
pub struct Client {
    address: String,
    token: Option<Secret>,
}

impl Target {
    /// Finds out address and token; what is said on the command line goes before the configuration.
    pub fn client(&self) -> Result<Client, ClientError> {
        let configured = match &self.config {
            // Not needed where both are said; it may be out of reach then.
            Some(path) if self.admin.is_none() || self.token_file.is_none() => Some(admin_section(path)?),
            _ => None,
        };
        let token = match &self.token_file {
            Some(path) => Some(read_token(path)?),
            None => configured.as_ref().and_then(|admin| admin.token.clone()),
        };
        let address = self.admin.clone().or_else(|| configured.map(|admin| admin.address));
        let address = address.unwrap_or_else(|| config::Admin::default().address);
        Ok(Client::new(&address, token))
    }
}

fn admin_section(path: &Path) -> Result<config::Admin, ClientError> {
    let refused = |problems: config::Diagnostics| ClientError::Configuration(problems.render(super::colours()));
    check::examine(path).map(|(config, _)| config.admin).map_err(refused)
}

fn read_token(path: &Path) -> Result<Secret, ClientError> {
    use io::Read as _;
    let failed = |error| ClientError::TokenFile { path: path.into(), error };
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(TOKEN_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(Secret::new(text.trim_end().to_owned()))
}

impl Client {
    pub fn new(address: &str, token: Option<Secret>) -> Self {
        Self { address: reachable(address).into_owned(), token }
    }

    /// Asks, and reads the answer as JSON; an empty one is null.
    ///
    /// # Errors
    /// Also for every answer that is not a success.
    pub fn ask(&self, method: Method, path: &str, body: Option<&Json>) -> Result<Json, ClientError> {
        self.ask_at(method, path, body, None)
    }

    /// The same, if the session is at that revision.
    pub fn ask_at(
        &self,
        method: Method,
        path: &str,
        body: Option<&Json>,
        revision: Option<u64>,
    ) -> Result<Json, ClientError> {
        let answer = self.send(method, path, body, revision)?;
        let json = serde_json::from_slice(&answer.body).unwrap_or_default();
        match answer.status {
            status if status.is_success() => Ok(json),
            StatusCode::UNAUTHORIZED if self.token.is_none() => Err(ClientError::NoToken),
            status => Err(ClientError::Refused { status, problem: json }),
        }
    }

    /// Asks without a look at what is answered.
    pub fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Json>,
        revision: Option<u64>,
    ) -> Result<Answer, ClientError> {
        let request = self.request(method, path, body, revision)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let exchange = tokio::time::timeout(PATIENCE, self.exchange(request)).await;
            exchange.unwrap_or_else(|_| Err(ClientError::Late(self.address.clone())))
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Json>,
        revision: Option<u64>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.address);
        if let Some(token) = &self.token {
            let line = Zeroizing::new(format!("Bearer {}", token.reveal()));
            let mut value = HeaderValue::from_str(&line).map_err(|_| ClientError::Token)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(revision) = revision {
            request = request.header(IF_MATCH, format!("\"{revision}\""));
        }
        let body = body.map(Json::to_string);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::from(body.unwrap_or_default())).map_err(|error| self.broken(error))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let failed = |error| ClientError::Connect { address: self.address.clone(), error };
        let stream = TcpStream::connect(&self.address).await.map_err(failed)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        // Ends with the runtime.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(|error| self.broken(error))?;
        Ok(Answer { status: head.status, body: body.to_bytes() })
    }

    fn broken(&self, error: impl ToString) -> ClientError {
        ClientError::Broken { address: self.address.clone(), error: error.to_string() }
    }
}

/// A listener on every address is asked on loopback.
fn reachable(address: &str) -> Cow<'_, str> {
    match address.parse::<std::net::SocketAddr>() {
        Ok(parsed) if parsed.ip().is_unspecified() => {
            let host = if parsed.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            format!("{host}:{}", parsed.port()).into()
        }
        _ => address.into(),
    }
}

/// A problem (RFC 9457) in one line.
fn told(status: StatusCode, problem: &Json) -> String {
    let text = |json: &Json, name: &str| super::visible(json.get(name).and_then(Json::as_str).unwrap_or_default());
    let errors = problem.get("errors").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let fields: Vec<String> =
        errors.iter().map(|error| format!("{}: {}", text(error, "field"), text(error, "detail"))).collect();
    match (text(problem, "detail"), fields.as_slice()) {
        (detail, []) if detail.is_empty() => format!("the answer was {status}"),
        (detail, []) => detail,
        (detail, fields) => format!("{detail} {}", fields.join("; ")),
    }
}

/// A part of a path, whatever stands in it.
pub fn segment(text: &str) -> impl std::fmt::Display + '_ {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn listeners_on_every_address_are_asked_on_loopback() {
        for (listening, asked) in [
            ("0.0.0.0:9901", "127.0.0.1:9901"),
            ("[::]:9901", "[::1]:9901"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("sidecar:9900", "sidecar:9900"),
        ] {
            assert_eq!(reachable(listening), asked);
        }
    }

    #[test]
    fn problems_are_one_line_without_controls() {
        let errors = json!([{ "field": "a\u{1b}[31m", "detail": "is of the wrong type" }]);
        let problem = json!({ "detail": "Some fields do not fit.", "errors": errors });
        let line = told(StatusCode::UNPROCESSABLE_ENTITY, &problem);
        assert_eq!(line, "Some fields do not fit. a\\u{1b}[31m: is of the wrong type");
        assert_eq!(told(StatusCode::BAD_GATEWAY, &Json::Null), "the answer was 502 Bad Gateway");
    }

    #[test]
    fn nobody_listening_is_one_clear_line() {
        // Bound and not listening: nobody else has the port, and nobody answers.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
        let error = Client::new(&address, None).ask(Method::GET, "/healthz", None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("nobody answers at {address}: ")), "{error}");
    }
}
