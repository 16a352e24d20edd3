//! Sockets: TCP and Unix, bound, accepted and spoken through alike.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use socket2::{Domain, Protocol, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};

use crate::together;

/// Connections that the kernel holds for us until we accept them.
const BACKLOG: i32 = 4096;
/// Who may connect to a Unix socket: its owner and its group.
const MODE: u32 = 0o660;
/// Who is at the other end of a Unix socket: this host.
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How much is read at once of what comes before HTTP.
const READ_BYTES: usize = 512;

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Bound {
    /// The address and port; none of a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound socket.
pub enum Door {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Door {
    /// Binds `0.0.0.0:8080`, `[::]:8080` (for IPv4 as well) or `unix:/path`.
    pub fn bind(address: &str) -> io::Result<Self> {
        if let Some(path) = address.strip_prefix("unix:") {
            return bind_unix(Path::new(path));
        }
        let no_address = |_| io::Error::other("it is neither an address and a port nor unix:/path");
        bind_tcp(address.parse().map_err(no_address)?)
    }

    pub fn bound(&self) -> io::Result<Bound> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Bound::Tcp),
            Self::Unix(_, file) => Ok(Bound::Unix(file.path.clone())),
        }
    }

    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Without it, small writes of a stream wait for the acknowledgement of the one before. Of a connection
                // that is gone already it fails, and so will all else.
                let _ = stream.set_nodelay(true);
                Ok((Socket::of(Kind::Tcp(stream.into())), peer))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::of(Kind::Unix(stream.into())), LOCAL))
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Door> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Door::Tcp(TcpListener::from_std(socket.into())?))
}

fn bind_unix(path: &Path) -> io::Result<Door> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    // Only ever widened: what the process's mask left is less.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    let file = SocketFile { path: path.to_owned(), inode: std::fs::metadata(path)?.ino() };
    Ok(Door::Unix(listener, file))
}

/// Removes the file of a socket on which nobody listens any more. Anything else that has the name is left alone.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name that is no socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on that socket")),
    }
}

/// The file of a Unix socket; removed on drop, if it is still this one.
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // What fails here leaves a stale file, which the next start removes.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// An accepted connection.
pub struct Socket {
    kind: Kind,
    /// What was read, and is still to be read by whoever comes next.
    unread: Bytes,
}

enum Kind {
    Tcp(together::Tcp),
    Unix(together::Unix),
}

impl Socket {
    fn of(kind: Kind) -> Self {
        Self { kind, unread: Bytes::new() }
    }

    /// Waits for bytes, which stay to be read; an error at the end of the stream.
    pub async fn look(&mut self) -> io::Result<()> {
        let mut seen = BytesMut::from(std::mem::take(&mut self.unread));
        seen.reserve(READ_BYTES);
        let read = self.read_buf(&mut seen).await;
        self.unread = seen.freeze();
        if read? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Whether what is small may wait to be written with what others write.
    pub fn waits(&mut self, waits: bool) {
        match &mut self.kind {
            Kind::Tcp(stream) => stream.waits(waits),
            Kind::Unix(stream) => stream.waits(waits),
        }
    }

    /// Resolves when there is something to read, or nothing more ever.
    pub async fn readable(&self) {
        if !self.unread.is_empty() {
            return;
        }
        // What is wrong with it, whoever reads will hear.
        let _ = match &self.kind {
            Kind::Tcp(stream) => stream.read_half().readable().await,
            Kind::Unix(stream) => stream.read_half().readable().await,
        };
    }

    /// Takes bytes off what was looked at.
    pub fn skip(&mut self, count: usize) {
        self.unread.advance(count.min(self.unread.len()));
    }

    /// What was looked at and is still to be read.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }
}

/// Hands on as much of what was read before as there is room for.
pub fn take_unread(unread: &mut Bytes, buffer: &mut ReadBuf<'_>) {
    let count = unread.len().min(buffer.remaining());
    buffer.put_slice(&unread.split_to(count));
    if unread.is_empty() {
        // Even an empty part of a buffer keeps all of it.
        *unread = Bytes::new();
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(stream) => stream.as_fd(),
            Kind::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            take_unread(&mut self.unread, buffer);
            return Poll::Ready(Ok(()));
        }
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Kind::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
