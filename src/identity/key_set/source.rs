//! Where keys come from.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderMap;
use http::header::CACHE_CONTROL;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::{self, Problems};

use super::super::fetch::{Endpoint, FetchError};
use super::super::key::{Jwk, Key};

/// A key set is no larger than this.
const SET_BYTES: usize = 1 << 20;
/// More than any issuer has, and few enough to look through.
const KEYS: usize = 100;
/// However short a server says that its keys hold.
const LEAST_REFRESH: Duration = Duration::from_secs(30);
/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(2);

pub enum Source {
    Fixed(std::sync::Mutex<Option<Vec<Key>>>),
    File(PathBuf),
    Url { endpoint: Endpoint, refresh: Duration },
    Discovery { endpoint: Endpoint, refresh: Duration },
}

/// A set that came, with at least one key of use.
pub struct Fetched {
    pub keys: Vec<Key>,
    /// How long the server says that it holds.
    pub max_age: Option<Duration>,
}

impl Source {
    /// What the configuration says; its inline keys and the files of TLS are read at once.
    pub fn compile(issuer: &str, raw: &config::KeySource, path: &str, problems: &mut Problems) -> Option<Self> {
        let refresh = raw.refresh.0;
        if let Some(keys) = &raw.keys {
            return fixed(keys, path, problems);
        }
        if let Some(file) = &raw.file {
            return Some(Self::File(file.clone()));
        }
        let url = match &raw.url {
            Some(url) => url.clone(),
            None => format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer)),
        };
        let endpoint = Endpoint::open(&url, raw.ca.as_deref());
        let endpoint = endpoint.map_err(|error| problems.error(format!("{path}/ca"), error)).ok()?;
        Some(match raw.url {
            Some(_) => Self::Url { endpoint, refresh },
            None => Self::Discovery { endpoint, refresh },
        })
    }

    /// The keys that never change.
    pub fn fixed(&self) -> Option<Vec<std::sync::Arc<Key>>> {
        let Self::Fixed(keys) = self else { return None };
        let keys = keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        keys.map(|keys| keys.into_iter().map(Into::into).collect())
    }

    /// Whether it may say something else at another time.
    pub fn changes(&self) -> bool {
        !matches!(self, Self::Fixed(_))
    }

    pub async fn fetch(&self, issuer: &str) -> Result<Fetched, FetchError> {
        match self {
            Self::Fixed(_) => Err(FetchError::Content("it never changes")),
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                let bytes = read.map_err(std::io::Error::other).and_then(|read| read).map_err(FetchError::File)?;
                Ok(Fetched { keys: parse(&bytes)?, max_age: None })
            }
            Self::Url { endpoint, .. } => fetch_set(endpoint).await,
            Self::Discovery { endpoint, .. } => {
                let reply = endpoint.get(SET_BYTES).await?;
                fetch_set(&discovered(endpoint, issuer, &reply.body)?).await
            }
        }
    }

    /// When to fetch again.
    pub fn next(&self, max_age: Option<Duration>) -> Duration {
        match self {
            Self::Fixed(_) | Self::File(_) => LOOK,
            Self::Url { refresh, .. } | Self::Discovery { refresh, .. } => {
                max_age.unwrap_or(*refresh).max(LEAST_REFRESH).min(*refresh)
            }
        }
    }

    /// However often it has failed.
    pub fn longest_wait(&self) -> Duration {
        match self {
            Self::Fixed(_) | Self::File(_) => LOOK,
            Self::Url { .. } | Self::Discovery { .. } => Duration::MAX,
        }
    }
}

fn fixed(raw: &[config::InlineKey], path: &str, problems: &mut Problems) -> Option<Source> {
    let mut keys = Vec::new();
    for (at, raw) in raw.iter().enumerate() {
        match Key::inline(raw) {
            Ok(key) => keys.push(key),
            Err(flaw) => problems.error(format!("{path}/keys/{at}"), format_args!("this key is of no use: {flaw}")),
        }
    }
    (keys.len() == raw.len()).then(|| Source::Fixed(std::sync::Mutex::new(Some(keys))))
}

async fn fetch_set(endpoint: &Endpoint) -> Result<Fetched, FetchError> {
    let reply = endpoint.get(SET_BYTES).await?;
    Ok(Fetched { keys: parse(&reply.body)?, max_age: max_age(&reply.headers) })
}

/// Where the issuer says that its keys are; it has to say who it is, to the letter (OpenID Connect Discovery, 4.3).
fn discovered(endpoint: &Endpoint, issuer: &str, document: &[u8]) -> Result<Endpoint, FetchError> {
    #[derive(Deserialize)]
    struct Document {
        issuer: String,
        jwks_uri: String,
    }
    let document: Document =
        serde_json::from_slice(document).map_err(|_| FetchError::Content("it is no discovery document"))?;
    if document.issuer != issuer {
        return Err(FetchError::Content("it is the document of another issuer"));
    }
    endpoint.elsewhere(&document.jwks_uri)
}

/// Reads a set. What is of no use here is passed over, one key at a time: sets hold keys for all sorts of things.
fn parse(bytes: &[u8]) -> Result<Vec<Key>, FetchError> {
    #[derive(Deserialize)]
    struct Set<'s> {
        #[serde(borrow)]
        keys: Vec<&'s RawValue>,
    }
    let set: Set<'_> = serde_json::from_slice(bytes).map_err(|_| FetchError::Content("it is no key set"))?;
    let read = |raw: &RawValue| Key::public(&serde_json::from_str::<Jwk>(raw.get()).ok()?).ok();
    let keys: Vec<Key> = set.keys.into_iter().take(KEYS).filter_map(read).collect();
    // An empty set would turn everybody away; it is more likely to be a mistake than meant.
    if keys.is_empty() { Err(FetchError::Content("it holds no key of use")) } else { Ok(keys) }
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut found = None;
    for line in headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok()) {
        for directive in line.split(',').map(|directive| directive.trim().to_ascii_lowercase()) {
            if directive == "no-store" || directive == "no-cache" {
                return Some(Duration::ZERO);
            }
            let seconds = directive.strip_prefix("max-age=").and_then(|text| text.trim_matches('"').parse().ok());
            found = found.or(seconds.map(Duration::from_secs));
        }
    }
    found
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SET_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > SET_BYTES { Err(std::io::Error::other("it is larger than 1 MiB")) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

    #[test]
    fn what_is_of_no_use_in_a_set_is_passed_over() {
        let odd = r#"{"kty":"oct","k":"AAAA"},{"kty":"new"},{"kty":5},7,null,{"kty":"EC","crv":"P-256","use":"enc"}"#;
        let keys = parse(format!(r#"{{"keys":[{odd},{EC}],"more":1}}"#).as_bytes()).unwrap();
        assert_eq!(keys.len(), 1);
        for text in [format!(r#"{{"keys":[{odd}]}}"#), r#"{"keys":[]}"#.into(), "{}".into(), EC.into(), "[".into()] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_says_how_long_its_keys_hold_within_bounds() {
        let endpoint = Endpoint::open("http://127.0.0.1:1/", None).unwrap();
        let source = Source::Url { endpoint, refresh: Duration::from_secs(600) };
        for (line, seconds) in [
            ("", 600),
            ("public, max-age=120", 120),
            ("max-age=\"90\"", 90),
            ("MAX-AGE=60, must-revalidate", 60),
            ("max-age=1", 30),
            ("max-age=86400", 600),
            ("max-age=x", 600),
            ("no-cache, max-age=300", 30),
            ("no-store", 30),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, line.parse().unwrap());
            assert_eq!(source.next(max_age(&headers)).as_secs(), seconds, "{line}");
        }
    }

    #[test]
    fn a_discovery_document_speaks_for_its_own_issuer_only() {
        let endpoint = Endpoint::open("http://127.0.0.1:1/.well-known/openid-configuration", None).unwrap();
        let document = |issuer: &str, uri: &str| format!(r#"{{"issuer":"{issuer}","jwks_uri":"{uri}","x":[]}}"#);
        let own = "http://127.0.0.1:1";
        assert!(discovered(&endpoint, own, document(own, "http://127.0.0.1:2/keys").as_bytes()).is_ok());
        for (issuer, uri) in [
            ("http://127.0.0.1:1/", "http://127.0.0.1:2/keys"),
            (own, "http://keys.example/keys"),
            (own, "file:///etc/passwd"),
            (own, "/keys"),
            (own, "http://127.0.0.1@keys.example/"),
        ] {
            assert!(discovered(&endpoint, own, document(issuer, uri).as_bytes()).is_err(), "{issuer} {uri}");
        }
    }
}
