//! What a raw client speaks over.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::PATIENCE;

/// A socket, or TLS over it.
pub enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Self::Tcp(stream).patient()
    }

    pub fn unix(path: &Path) -> Self {
        Self::Unix(UnixStream::connect(path).expect("a connection")).patient()
    }

    /// The handshake comes with the first bytes.
    pub fn tls(self, config: &Arc<ClientConfig>, host: &str) -> Self {
        let Self::Tcp(stream) = self else { panic!("TLS over TCP only") };
        let name = host.to_owned().try_into().expect("a host");
        let connection = ClientConnection::new(config.clone(), name).expect("a client");
        Self::Tls(Box::new(StreamOwned::new(connection, stream)))
    }

    fn patient(self) -> Self {
        self.set_read_timeout(PATIENCE);
        self
    }

    pub fn set_read_timeout(&self, limit: Duration) {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(limit)),
            Self::Unix(stream) => stream.set_read_timeout(Some(limit)),
            Self::Tls(stream) => stream.sock.set_read_timeout(Some(limit)),
        }
        .expect("a socket");
    }

    pub fn set_write_timeout(&self, limit: Duration) {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(Some(limit)),
            Self::Unix(stream) => stream.set_write_timeout(Some(limit)),
            Self::Tls(stream) => stream.sock.set_write_timeout(Some(limit)),
        }
        .expect("a socket");
    }

    /// Says that nothing more will come.
    pub fn end(&mut self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
        };
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
