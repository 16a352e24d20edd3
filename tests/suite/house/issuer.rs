//! Somebody who issues tokens: keys to sign with, and a server that publishes them as it was told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as scheme, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

/// A key that tokens are signed with.
pub struct Signer {
    pub kid: Option<String>,
    pub alg: &'static str,
    secret: Secret,
}

enum Secret {
    Rsa(RsaKeyPair, &'static dyn scheme::RsaEncoding),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
    Shared(Box<hmac::Key>),
}

impl Signer {
    pub fn new(alg: &'static str, kid: &str) -> Self {
        let rsa = |padding| Secret::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"), padding);
        let ec = |kind, curve| Secret::Ec(EcdsaKeyPair::generate(kind).expect("a key"), curve);
        let secret = match alg {
            "RS256" => rsa(&scheme::RSA_PKCS1_SHA256),
            "RS384" => rsa(&scheme::RSA_PKCS1_SHA384),
            "RS512" => rsa(&scheme::RSA_PKCS1_SHA512),
            "PS256" => rsa(&scheme::RSA_PSS_SHA256),
            "PS384" => rsa(&scheme::RSA_PSS_SHA384),
            "PS512" => rsa(&scheme::RSA_PSS_SHA512),
            "ES256" => ec(&scheme::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            "ES384" => ec(&scheme::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            "ES512" => ec(&scheme::ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
            "EdDSA" => Secret::Ed(Ed25519KeyPair::generate().expect("a key")),
            other => panic!("no such algorithm: {other}"),
        };
        Self { kid: Some(kid.to_owned()), alg, secret }
    }

    /// A secret that is shared with whoever verifies.
    pub fn shared(alg: &'static str, kid: Option<&str>, secret: &[u8]) -> Self {
        let kind = match alg {
            "HS256" => hmac::HMAC_SHA256,
            "HS384" => hmac::HMAC_SHA384,
            _ => hmac::HMAC_SHA512,
        };
        Self { kid: kid.map(str::to_owned), alg, secret: Secret::Shared(Box::new(hmac::Key::new(kind, secret))) }
    }

    /// The public half, as a key set has it.
    pub fn jwk(&self) -> Json {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.secret {
            Secret::Rsa(pair, _) => {
                let parts = scheme::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "n": text(&parts.n), "e": text(&parts.e) })
            }
            Secret::Ec(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) })
            }
            Secret::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()) }),
            Secret::Shared(_) => panic!("a shared secret is not published"),
        };
        jwk["alg"] = self.alg.into();
        jwk["use"] = "sig".into();
        if let Some(kid) = &self.kid {
            jwk["kid"] = kid.as_str().into();
        }
        jwk
    }

    pub fn header(&self) -> Json {
        match &self.kid {
            Some(kid) => json!({ "alg": self.alg, "typ": "JWT", "kid": kid }),
            None => json!({ "alg": self.alg, "typ": "JWT" }),
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.secret {
            Secret::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &random, message, &mut signature).expect("a signature");
                signature
            }
            Secret::Ec(pair, _) => pair.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Secret::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Secret::Shared(key) => hmac::sign(key, message).as_ref().to_vec(),
        }
    }

    pub fn token(&self, claims: &Json) -> String {
        self.token_with(&self.header().to_string(), &claims.to_string())
    }

    /// A sound signature of whatever stands there.
    pub fn token_with(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// What is asked of a server, and what it answers.
#[derive(Debug, Clone)]
pub struct Asked {
    pub target: String,
    pub authorization: Option<String>,
    pub body: String,
}

#[derive(Debug, Clone)]
pub enum Says {
    Json(Json, Option<&'static str>),
    Status(u16),
    RedirectTo(String),
    Bytes(Vec<u8>),
    Hangup,
}

/// A server on loopback.
#[derive(Clone)]
pub struct Issuer {
    pub address: SocketAddr,
    tls: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Default)]
struct State {
    says: Vec<(String, Says)>,
    asked: Vec<Asked>,
    closed: bool,
}

impl Issuer {
    pub fn open() -> Self {
        Self::serving(None)
    }

    fn serving(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let issuer = Self { address, tls: tls.is_some(), shared: Arc::default() };
        let server = issuer.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (server, tls) = (server.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => server.serve(stream),
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).expect("a connection");
                        server.serve(rustls::StreamOwned::new(connection, stream));
                    }
                });
            }
        });
        issuer
    }

    /// The same over TLS, with a certificate for 127.0.0.1 that it has signed itself: in PEM.
    pub fn open_tls() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate and its key");
        (Self::serving(Some(Arc::new(config))), made.cert.pem())
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// What a path answers from now on.
    pub fn says(&self, path: &str, says: Says) {
        let mut state = self.shared.state.lock().expect("no panic");
        state.says.retain(|(known, _)| known != path);
        state.says.push((path.to_owned(), says));
    }

    pub fn publishes(&self, keys: &[&Signer]) {
        let keys: Vec<Json> = keys.iter().map(|key| key.jwk()).collect();
        self.says("/keys", Says::Json(json!({ "keys": keys }), None));
    }

    /// Holds every answer back until the gate is opened.
    pub fn close_gate(&self) {
        self.shared.state.lock().expect("no panic").closed = true;
    }

    pub fn open_gate(&self) {
        self.shared.state.lock().expect("no panic").closed = false;
        self.shared.opened.notify_all();
    }

    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let state = self.shared.state.lock().expect("no panic");
        state.asked.iter().filter(|asked| asked.target == path).cloned().collect()
    }

    pub fn times_asked(&self, path: &str) -> usize {
        self.asked(path).len()
    }

    fn serve(&self, mut stream: impl Read + Write) {
        let Some(asked) = read(&mut stream) else { return };
        let mut state = self.shared.state.lock().expect("no panic");
        state.asked.push(asked.clone());
        while state.closed {
            state = self.shared.opened.wait(state).expect("no panic");
        }
        let says = state.says.iter().find(|(path, _)| *path == asked.target).map(|(_, says)| says.clone());
        drop(state);
        let written = match says.unwrap_or(Says::Status(404)) {
            Says::Json(json, cache) => {
                let body = json.to_string();
                let cache = cache.map_or(String::new(), |line| format!("cache-control: {line}\r\n"));
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{cache}\r\n", body.len());
                stream.write_all((head + &body).as_bytes())
            }
            Says::Status(code) => {
                stream.write_all(format!("HTTP/1.1 {code} No\r\ncontent-length: 0\r\n\r\n").as_bytes())
            }
            Says::RedirectTo(url) => {
                let head = format!("HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes())
            }
            Says::Bytes(bytes) => stream.write_all(&bytes),
            Says::Hangup => Ok(()),
        };
        drop(written);
    }
}

fn read(stream: &mut impl Read) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let line = |name: &str| {
                let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            };
            let length = line("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                let target = head.split(' ').nth(1)?.to_owned();
                return Some(Asked { target, authorization: line("authorization"), body: body.to_owned() });
            }
        }
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
    }
}
