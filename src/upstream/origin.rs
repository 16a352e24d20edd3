//! Where a backend is, what is spoken to it, and how a connection to it is made.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{self, Problems};
use crate::tls;
use crate::together::{self, Sends};

/// When a silent connection is asked whether its other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A backend's address.
pub struct Origin {
    /// As the configuration has it, and what TLS to it rests on: who agrees in both shares its connections.
    pub key: Key,
    /// The host and port; `localhost` over a Unix socket.
    pub authority: String,
    place: Place,
    speaks: Speaks,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    url: String,
    tls: tls::ClientFiles,
}

enum Place {
    Tcp,
    Unix(PathBuf),
}

enum Speaks {
    Http1,
    /// With prior knowledge.
    Http2,
    /// What is agreed on in the handshake.
    Tls {
        client: Box<tls::Client>,
        name: ServerName<'static>,
    },
}

/// The protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Key {
    pub fn of(route: &config::Route) -> Self {
        let files = route.upstream_tls.as_ref().map(|files| tls::ClientFiles {
            ca: files.ca.clone(),
            identity: files.certificate.clone().zip(files.key.clone()),
        });
        Self { url: route.upstream.clone(), tls: files.unwrap_or_default() }
    }
}

impl Origin {
    /// Reads the files that TLS needs; problems are those of the route at this path.
    pub fn open(key: Key, path: &str, problems: &mut Problems) -> Option<Self> {
        if let Some(file) = key.url.strip_prefix("unix:") {
            let place = Place::Unix(file.into());
            return Some(Self { authority: "localhost".into(), place, speaks: Speaks::Http1, key });
        }
        let (scheme, authority) = key.url.split_once("://").unwrap_or(("http", &key.url));
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let port = if scheme == "https" { 443 } else { 80 };
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        let speaks = match scheme {
            "https" => secure(&authority, &key.tls, path, problems)?,
            "h2c" => Speaks::Http2,
            _ => Speaks::Http1,
        };
        Some(Self { authority, place: Place::Tcp, speaks, key })
    }

    /// What every connection speaks; none if that is agreed on with each.
    pub fn protocol(&self) -> Option<Protocol> {
        match self.speaks {
            Speaks::Http1 => Some(Protocol::Http1),
            Speaks::Http2 => Some(Protocol::Http2),
            Speaks::Tls { .. } => None,
        }
    }

    pub fn scheme(&self) -> &'static str {
        if matches!(self.speaks, Speaks::Tls { .. }) { "https" } else { "http" }
    }

    /// Connects, and agrees on a protocol: on HTTP/1.1 where only that will do.
    pub async fn dial(&self, only_http1: bool) -> io::Result<(Box<dyn Backend>, Protocol)> {
        let stream = match &self.place {
            Place::Unix(path) => {
                let stream = together::Unix::from(UnixStream::connect(path).await?);
                return Ok((Box::new(stream), Protocol::Http1));
            }
            Place::Tcp => TcpStream::connect(&self.authority).await?,
        };
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        let stream = together::Tcp::from(stream);
        match &self.speaks {
            Speaks::Http1 => Ok((Box::new(stream), Protocol::Http1)),
            Speaks::Http2 => Ok((Box::new(stream), Protocol::Http2)),
            Speaks::Tls { client, name } => shake_hands(stream, client.current(), name.clone(), only_http1).await,
        }
    }

    /// Takes on what has changed in files, and says whether something has.
    pub fn look(&self) -> bool {
        matches!(&self.speaks, Speaks::Tls { client, .. } if client.look())
    }
}

fn secure(authority: &str, files: &tls::ClientFiles, path: &str, problems: &mut Problems) -> Option<Speaks> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let Ok(name) = ServerName::try_from(host.to_owned()) else {
        problems.error(format!("{path}/upstream"), "no certificate can be for this host");
        return None;
    };
    match tls::Client::open(files.clone()) {
        Ok(client) => Some(Speaks::Tls { client: Box::new(client), name }),
        Err(error) if error.path.is_none() => {
            problems.error(format!("{path}/upstream"), &error);
            None
        }
        Err(error) => {
            problems.error(format!("{path}/upstream_tls/{}", error.part.key()), &error);
            None
        }
    }
}

/// A stream to a backend.
pub trait Backend: AsyncRead + AsyncWrite + Sends + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Sends + Unpin + Send> Backend for S {}

impl Sends for TlsStream<together::Tcp> {
    fn has_sent(&self) -> bool {
        self.get_ref().0.has_sent()
    }
}

async fn shake_hands(
    stream: together::Tcp,
    config: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
    only_http1: bool,
) -> io::Result<(Box<dyn Backend>, Protocol)> {
    let connector = TlsConnector::from(config);
    let shaken = match only_http1 {
        true => connector.with_alpn(vec![tls::HTTP_1_1.to_vec()]).connect(name, stream).await,
        false => connector.connect(name, stream).await,
    };
    let stream = shaken.map_err(|error| io::Error::new(error.kind(), format!("the TLS handshake failed: {error}")))?;
    let agreed = stream.get_ref().1.alpn_protocol();
    let protocol = if agreed == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
    Ok((Box::new(stream), protocol))
}
