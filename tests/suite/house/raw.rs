//! Bytes on sockets, for what no well-behaved client or server would send.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::wire::Wire;
use super::{Guest, House, PATIENCE};

/// A connection to the House, byte by byte.
pub struct RawClient {
    stream: Wire,
    unread: Vec<u8>,
}

impl House {
    /// Connects and sends these bytes, `{id}` replaced by the guest's id.
    pub fn raw(&self, text: &str) -> RawClient {
        self.raw_over(self.wire(), text.as_bytes())
    }

    /// A connection to the House over which nothing was sent yet.
    pub fn wire(&self) -> Wire {
        Wire::tcp(self.proxy)
    }

    /// Sends these bytes over a connection.
    pub fn raw_over(&self, stream: Wire, bytes: &[u8]) -> RawClient {
        let mut client = RawClient { stream, unread: Vec::new() };
        client.send(bytes);
        client
    }

    /// The same with a guest's cookie behind the first lines, which end in a line break.
    pub fn raw_with_cookie(&self, lines: &str, guest: &Guest, rest: &str) -> RawClient {
        self.leaks.credential(&guest.id);
        self.raw(&format!("{lines}Cookie: __Host-session={}\r\n{rest}", guest.id))
    }

    /// Sends a request and gives the status of its answer, if one comes.
    pub fn raw_status(&self, text: &str) -> Option<u16> {
        let head = self.raw(text).head()?;
        if head.contains("application/problem+json") {
            self.leaks.told(head.as_bytes());
        }
        head.split(' ').nth(1)?.parse().ok()
    }
}

impl RawClient {
    pub fn connect(to: SocketAddr) -> Self {
        Self { stream: Wire::tcp(to), unread: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // The other end may have hung up already, which is what some tests are about.
        let _ = self.stream.write_all(bytes);
    }

    /// Sends until nobody takes any more, and reads nothing meanwhile.
    pub fn send_until_full(&mut self) {
        self.stream.set_write_timeout(std::time::Duration::from_millis(200));
        while self.stream.write_all(&[b'x'; 64 << 10]).is_ok() {}
    }

    /// Says that nothing more will come.
    pub fn end(&mut self) {
        self.stream.end();
    }

    /// Whether nothing comes for so long.
    pub fn is_silent(&mut self, wait: std::time::Duration) -> bool {
        self.stream.set_read_timeout(wait);
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer);
        self.stream.set_read_timeout(PATIENCE);
        self.unread.extend_from_slice(&buffer[..*read.as_ref().unwrap_or(&0)]);
        read.is_err()
    }

    /// Reads up to and with `mark`; none if the connection ends before.
    pub fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|window| window == mark.as_bytes()) {
                let taken: Vec<u8> = self.unread.drain(..at + mark.len()).collect();
                return Some(String::from_utf8_lossy(&taken).into_owned());
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
                Err(error) if is_end(&error) => return None,
                Err(error) => panic!("nothing came in time: {error}"),
            }
        }
    }

    /// What comes next; none at the end of the connection.
    pub fn some(&mut self) -> Option<Vec<u8>> {
        if !self.unread.is_empty() {
            return Some(std::mem::take(&mut self.unread));
        }
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => None,
            Ok(read) => Some(buffer[..read].to_vec()),
            Err(error) if is_end(&error) => None,
            Err(error) => panic!("nothing came in time: {error}"),
        }
    }

    /// Reads a head, its empty line included.
    pub fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n")
    }

    /// Reads to the end of the connection, and says whether it was reset rather than closed in order.
    pub fn is_reset(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return true,
                Err(error) => panic!("the connection did not end in time: {error}"),
            }
        }
    }

    /// Reads to the end of the connection, which has to come.
    pub fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.unread);
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => rest.extend_from_slice(&buffer[..read]),
                Err(error) if is_end(&error) => break,
                Err(error) => panic!("the connection did not end in time: {error}"),
            }
        }
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// A reset, or TLS without a word of farewell.
fn is_end(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | UnexpectedEof)
}

/// A backend that answers with bytes.
#[derive(Clone)]
pub struct RawBackend {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    connections: usize,
    answers: VecDeque<RawAnswer>,
    received: Vec<String>,
}

/// Bytes to answer with.
pub struct RawAnswer {
    bytes: Vec<u8>,
    closes: bool,
}

impl RawAnswer {
    /// Sends these bytes, and keeps the connection.
    pub fn keep(text: &str) -> Self {
        Self { bytes: text.as_bytes().to_vec(), closes: false }
    }

    /// Sends these bytes, and closes the connection.
    pub fn close(text: &str) -> Self {
        Self { bytes: text.as_bytes().to_vec(), closes: true }
    }
}

impl RawBackend {
    pub fn open(runtime: &Runtime) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let backend = Self { address, state: Arc::default() };
        runtime.spawn(backend.clone().serve(listener));
        backend
    }

    pub fn next(&self, answer: RawAnswer) {
        self.state.lock().unwrap().answers.push_back(answer);
    }

    /// The heads that were received, as they came.
    pub fn heads(&self) -> Vec<String> {
        self.state.lock().unwrap().received.clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    pub(super) fn received(&self) -> Vec<u8> {
        self.heads().concat().into_bytes()
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            self.state.lock().unwrap().connections += 1;
            tokio::spawn(self.clone().speak(stream));
        }
    }

    async fn speak(self, mut stream: tokio::net::TcpStream) {
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            while let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = read.drain(..at + 4).collect();
                let answer = {
                    let mut state = self.state.lock().unwrap();
                    state.received.push(String::from_utf8_lossy(&head).into_owned());
                    state.answers.pop_front()
                };
                // Without an answer the connection breaks.
                let Some(answer) = answer else { return };
                if stream.write_all(&answer.bytes).await.is_err() || answer.closes {
                    let _ = stream.shutdown().await;
                    return;
                }
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => read.extend_from_slice(&buffer[..count]),
            }
        }
    }
}
