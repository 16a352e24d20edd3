//! What a real gRPC client is told, by the program itself.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

use crate::binary::Binary;

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/respond/grpc_client.py");

/// A backend that asks for what the path says, or says nothing at all.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        listener.incoming().for_each(|stream| drop(std::thread::spawn(|| answer(stream.unwrap()))))
    });
    address
}

fn answer(stream: TcpStream) {
    let mut lines = BufReader::new(&stream).lines();
    let first = lines.next().unwrap().unwrap();
    let path = first.split(' ').nth(1).unwrap();
    let asks = match path.rsplit('/').next().unwrap() {
        "Conflict" => "cloakroom-set: step=1\r\ncloakroom-if-match: \"9\"\r\n",
        "Reject" => "cloakroom-set: nonsense=1\r\n",
        _ => {
            // Until the client of this backend has gone.
            return lines.for_each(drop);
        }
    };
    let _ = write!(&stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n{asks}\r\n");
}

fn file(folder: &Path, backend: SocketAddr) -> std::path::PathBuf {
    let text = format!(
        "version: 1
listeners: [{{ address: '127.0.0.1:0' }}]
admin: {{ address: '127.0.0.1:0', token: '${{file:token}}' }}
status: {{ address: '127.0.0.1:0' }}
store: {{ kind: memory }}
session:
  schema:
    version: 1
    fields:
      user_id: {{ type: string, user: true }}
      step: {{ type: integer }}
routes:
  - {{ name: agent, match: {{ path: /Agent }}, upstream: 'http://{backend}', write: [step], read: [step] }}
  - {{ name: vip, match: {{ path: /Vip }}, upstream: 'http://{backend}', require: {{ user_id: ada }} }}
  - {{ name: read, match: {{ path: /Read, methods: [GET] }}, upstream: 'http://{backend}', session: none }}
  - {{ name: gone, match: {{ path: /Gone }}, upstream: 'http://127.0.0.1:1', session: none }}
  - {{ name: slow, match: {{ path: /Slow }}, upstream: 'http://{backend}', session: none, timeouts: {{ response: 1s }}, limits: {{ concurrency: 1 }} }}
  - {{ name: small, match: {{ path: /Small }}, upstream: 'http://{backend}', session: none, limits: {{ body: 10B, head: 1KiB }} }}
  - name: narrow
    match: {{ path: /Narrow }}
    upstream: 'http://127.0.0.1:1'
    session: none
    rate_limits: [{{ per: route, rate: 1/h, burst: 1 }}, {{ per: client, rate: 1/s, burst: 50 }}]
"
    );
    std::fs::write(folder.join("token"), "admin-token-of-this-test").unwrap();
    let path = folder.join("cloakroom.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// The ids of a living and of a revoked session.
fn sessions(binary: &Binary, folder: &Path) -> [String; 2] {
    let (admin, token) = (binary.admin.to_string(), folder.join("token").display().to_string());
    let run = |words: &[&str]| {
        let output = Binary::run(&[words, &["--admin", &admin, "--token-file", &token, "--output", "json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Json>(&output.stdout).unwrap_or_default()
    };
    let [living, revoked] = [(); 2].map(|()| run(&["session", "create"]));
    run(&["session", "revoke", revoked["session"].as_str().unwrap()]);
    [living, revoked].map(|session| session["session_id"].as_str().unwrap().to_owned())
}

fn call(proxy: SocketAddr, calls: &Json) -> Vec<Json> {
    // Debian's own, for which tests/prepare installs the library.
    let mut client = Command::new("/usr/bin/python3");
    client.args([CLIENT, &proxy.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = client.spawn().expect("/usr/bin/python3 with grpc, which tests/prepare installs");
    client.stdin.take().unwrap().write_all(calls.to_string().as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("tests/prepare installs grpc for python: {}", String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn a_grpc_client_reads_every_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let binary = Binary::serve(&file(folder.path(), backend()));
    let [living, revoked] = sessions(&binary, folder.path());
    let unknown = cloakroom::handle::SessionId::random().unwrap().reveal().to_string();
    let bearer = |id: &str| json!([["authorization", format!("Bearer {id}")]]);
    let cases = [
        (json!({ "method": "/Agent/None" }), 16, "credential-missing"),
        (json!({ "method": "/Agent/Bad", "metadata": bearer("cr_x") }), 16, "credential-invalid"),
        (json!({ "method": "/Agent/Unknown", "metadata": bearer(&unknown) }), 16, "session-not-found"),
        (json!({ "method": "/Agent/Revoked", "metadata": bearer(&revoked), "streams": true }), 16, "session-revoked"),
        (json!({ "method": "/Vip/Ask", "metadata": bearer(&living) }), 7, "forbidden"),
        (json!({ "method": "/Nowhere/Ask" }), 12, "route-not-found"),
        (json!({ "method": "/Read/Ask" }), 12, "method-not-allowed"),
        (json!({ "method": "/Agent/%2e%2e" }), 3, "request-malformed"),
        (json!({ "method": "/Small/Body", "body": 11 }), 3, "content-too-large"),
        (json!({ "method": "/Small/Head", "metadata": [["x-large", "x".repeat(1000)]] }), 3, "headers-too-large"),
        (json!({ "method": "/Narrow/First" }), 14, "upstream-unavailable"),
        (json!({ "method": "/Narrow/Second" }), 8, "rate-limited"),
        (json!({ "method": "/Agent/Conflict", "metadata": bearer(&living) }), 10, "session-conflict"),
        (json!({ "method": "/Agent/Reject", "metadata": bearer(&living) }), 14, "write-back-rejected"),
        (json!({ "method": "/Gone/Ask", "streams": true }), 14, "upstream-unavailable"),
        (json!({ "method": "/Slow/Ask" }), 4, "upstream-timeout"),
    ];
    let calls: Vec<Json> = cases.iter().map(|(call, ..)| call.clone()).collect();
    let told = call(binary.proxy, &json!(calls));
    assert_eq!(told.len(), cases.len());
    for ((call, code, details), told) in cases.iter().zip(&told) {
        assert_eq!((&told["code"], &told["details"]), (&json!(code), &json!(details)), "{call}: {told}");
        let metadata = &told["metadata"];
        let expected = match code {
            16 => vec![("cloakroom-action", json!("reauth"))],
            8 => vec![("ratelimit-policy", json!("\"route\";q=1;w=3600, \"client\";q=50;w=50"))],
            _ => vec![],
        };
        for (name, value) in expected {
            assert_eq!(metadata[name], value, "{call}: {told}");
        }
        let challenge = metadata["www-authenticate"].as_str().unwrap_or_default();
        assert_eq!(challenge.starts_with("Bearer realm=\"cloakroom\""), *code == 16, "{call}: {told}");
    }
    let beside = json!([{ "method": "/Slow/One", "beside": true }, { "method": "/Slow/Two", "beside": true }]);
    let mut both = call(binary.proxy, &beside).into_iter().map(|told| (told["code"].clone(), told["details"].clone()));
    let mut both = [both.next().unwrap(), both.next().unwrap()];
    both.sort_by_key(|(code, _)| code.as_u64());
    assert_eq!(both, [(json!(4), json!("upstream-timeout")), (json!(14), json!("overloaded"))]);
}
