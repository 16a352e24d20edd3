//! Killing the real program at any moment loses no acknowledged commit, and leaves no half commit.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;

use crate::binary::Binary;

const KILLS: usize = 50;
const WRITERS: usize = 6;
pub const TOKEN: &str = "a-token-for-the-admin-api";

/// Answers every request with the write-back that its query names, percent-encoding not needed.
pub fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut target = String::new();
        if reader.read_line(&mut target).unwrap_or(0) == 0 {
            return;
        }
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            line.clear();
        }
        let set = target.split_once("?set=").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default();
        let head = format!("HTTP/1.1 200 OK\r\ncloakroom-set: {set}\r\ncontent-length: 2\r\n\r\nok");
        if stream.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

/// A client that keeps its connection; an error is the end of the server.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn ask(&mut self, method: &str, target: &str, token: &str, body: &str) -> std::io::Result<(u16, Vec<u8>)> {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut status = String::new();
        self.0.read_line(&mut status)?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        code.map(|code| (code, body)).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

pub fn admin(binary: &Binary, method: &str, target: &str, body: &str) -> Json {
    let mut client = Client::connect(binary.admin).unwrap();
    let (code, body) = client.ask(method, target, TOKEN, body).unwrap();
    assert!(code < 300, "{method} {target}: {code} {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

fn configure(folder: &Path, backend: SocketAddr) -> std::path::PathBuf {
    let fields: String = (0..WRITERS).map(|n| format!("      n{n}: {{ type: integer, section: task }}\n")).collect();
    std::fs::write(folder.join("token"), TOKEN).unwrap();
    let path = folder.join("cloakroom.yaml");
    let text = format!(
        "version: 1
listeners: [{{ address: \"127.0.0.1:0\" }}]
admin: {{ address: \"127.0.0.1:0\", token: \"${{file:token}}\" }}
status: {{ address: \"127.0.0.1:0\" }}
store: {{ kind: embedded, path: ./sessions.db, timeout: 20s }}
audit: {{ sinks: [], keep: 200 }}
session:
  schema:
    version: 1
    fields:
{fields}routes:
  - {{ name: agent, upstream: \"http://{backend}\", write: [task], read: [task] }}
"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// Counts one field up, one request after the other, until the server is gone; the last value it was told of.
fn count(address: SocketAddr, id: &str, field: usize, from: u64) -> u64 {
    let mut acknowledged = from;
    let Ok(mut client) = Client::connect(address) else { return acknowledged };
    loop {
        let target = format!("/?set=n{field}={}", acknowledged + 1);
        match client.ask("GET", &target, id, "") {
            Ok((200, _)) => acknowledged += 1,
            Ok((code, body)) => panic!("{code}: {}", String::from_utf8_lossy(&body)),
            Err(_) => return acknowledged,
        }
    }
}

#[test]
fn fifty_kills_lose_no_acknowledged_commit_and_leave_no_half_commit() {
    let folder = tempfile::tempdir().unwrap();
    let config = configure(folder.path(), echo());
    let mut binary = Binary::serve(&config);
    let created = admin(&binary, "POST", "/v1/sessions", r#"{"fields":{}}"#);
    let (id, handle) = (created["session_id"].as_str().unwrap(), created["session"].as_str().unwrap());
    let mut values = [0u64; WRITERS];
    for round in 0..KILLS {
        let address = binary.proxy;
        let acknowledged: Vec<u64> = std::thread::scope(|scope| {
            let writers: Vec<_> =
                values.iter().enumerate().map(|(n, from)| scope.spawn(move || count(address, id, n, *from))).collect();
            // Any moment will do, and so a different one each time.
            std::thread::sleep(Duration::from_millis(15 + (round as u64 * 37) % 90));
            binary.kill();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        binary = Binary::serve_on_one_core(&config);
        let session = admin(&binary, "GET", &format!("/v1/sessions/{handle}"), "");
        for (n, (value, acknowledged)) in values.iter_mut().zip(&acknowledged).enumerate() {
            *value = session["fields"][format!("n{n}")].as_u64().unwrap_or(0);
            // The last one asked for may have been committed without its answer arriving.
            assert!(
                (*acknowledged..=acknowledged + 1).contains(value),
                "round {round}: n{n} is {value} after {acknowledged} was acknowledged"
            );
        }
        // Every commit counted one field up by one: the revision knows of each, and of nothing else.
        assert_eq!(session["revision"].as_u64().unwrap(), 1 + values.iter().sum::<u64>(), "round {round}");
        let verdict = admin(&binary, "GET", &format!("/v1/sessions/{handle}/audit/verify"), "");
        assert_eq!(verdict["whole"], true, "round {round}: {verdict}");
    }
    assert!(values.iter().all(|value| *value > 0), "no writer got through: {values:?}");
    assert_eq!(binary.terminate(), Some(0));
}
