//! Opaque tokens: whoever made them is asked whether they are good (RFC 7662), and the answer holds for a while.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::clock::Time;
use crate::config::{self, Config, Problems};

use super::assertion::Assertion;
use super::fetch::{self, Endpoint, FetchError};
use super::jwt::claims::{Mapping, Times};
use super::jwt::{Flaw, object};
use super::verified::TokenHash;
use super::{CREDENTIAL_BYTES, Unverified};

/// An answer is no larger than this.
const ANSWER_BYTES: usize = 64 << 10;
/// Answers that are remembered, good and bad.
const REMEMBERED: usize = 10_000;
/// Questions that are asked at once; more wait their turn.
const AT_ONCE: usize = 64;
/// For so long a server that has failed is not asked about the same token again.
const FAILED: Duration = Duration::from_secs(1);
/// How far a server's clock may be off in what it says of the past.
const LEEWAY: Duration = Duration::from_secs(30);
/// Of a form, whose unreserved characters these are (RFC 3986, section 2.3).
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The servers that are asked, and what they have said.
#[derive(Debug)]
pub struct Introspection {
    servers: Vec<Server>,
    answers: Cache<TokenHash, Arc<Answer>>,
    places: Semaphore,
}

struct Server {
    /// Its URL: what it says of issuers is not believed, so that no server can speak for another's users.
    name: Arc<str>,
    endpoint: Endpoint,
    authorization: HeaderValue,
    holds_for: Duration,
    mapping: Mapping,
}

#[derive(Debug)]
struct Answer {
    said: Result<Arc<Assertion>, Unverified>,
    until: Time,
}

impl Default for Introspection {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl Introspection {
    pub fn compile(config: &Config, problems: &mut Problems) -> Self {
        let servers = config.identity.introspections().iter().enumerate();
        Self::of(servers.filter_map(|(at, raw)| Server::compile(at, raw, problems)).collect())
    }

    fn of(servers: Vec<Server>) -> Self {
        Self { servers, answers: Cache::new(REMEMBERED), places: Semaphore::new(AT_ONCE) }
    }

    /// What a token asserts that was found to be good before and still is.
    pub fn recall(&self, token: &[u8], now: Time) -> Option<Arc<Assertion>> {
        let answer = self.answers.get(&TokenHash::of(token))?;
        answer.said.as_ref().ok().filter(|_| now < answer.until).cloned()
    }

    pub fn forget(&self, token: &[u8]) {
        self.answers.remove(&TokenHash::of(token));
    }

    /// Asks about a token, once however many requests bring it. The answer's age counts from `now`, before the question.
    pub async fn verify(&self, token: &[u8], now: Time) -> Result<Arc<Assertion>, Unverified> {
        let text = readable(token)?;
        let hash = TokenHash::of(token);
        if self.answers.get(&hash).is_some_and(|known| known.until <= now) {
            self.answers.remove(&hash);
        }
        match self.answers.get_value_or_guard_async(&hash).await {
            Ok(known) => known.said.clone(),
            Err(place) => {
                let answer = Arc::new(self.ask(text, now).await);
                let _ = place.insert(answer.clone());
                answer.said.clone()
            }
        }
    }

    /// The first server that calls the token good is believed; that one is away, and no other calls it good, is no
    /// answer.
    async fn ask(&self, token: &str, now: Time) -> Answer {
        let mut bad = Answer { said: Err(Flaw::Inactive.into()), until: now };
        for server in &self.servers {
            let answer = self.ask_one(server, token, now).await;
            if answer.said.is_ok() {
                return answer;
            }
            // An outage weighs more than a no.
            if !matches!(bad.said, Err(Unverified::Unavailable)) {
                bad = answer;
            }
        }
        bad
    }

    async fn ask_one(&self, server: &Server, token: &str, now: Time) -> Answer {
        let place = tokio::time::timeout(fetch::TIMEOUT, self.places.acquire()).await;
        let said = match place {
            Ok(Ok(_place)) => server.ask(token).await,
            _ => Err(FetchError::Timeout),
        };
        match said {
            Err(error) => {
                tracing::warn!(target: "cloakroom::identity", server = %server.name, %error, "a token could not be introspected");
                Answer { said: Err(Unverified::Unavailable), until: now.plus(FAILED) }
            }
            Ok(None) => Answer { said: Err(Flaw::Inactive.into()), until: now.plus(server.holds_for) },
            Ok(Some(said)) => server.judge(said, now),
        }
    }
}

impl Server {
    fn compile(at: usize, raw: &config::Introspection, problems: &mut Problems) -> Option<Self> {
        let endpoint = Endpoint::open(&raw.url, raw.ca.as_deref());
        let endpoint =
            endpoint.map_err(|error| problems.error(format!("/identity/introspection/{at}/ca"), error)).ok()?;
        let (id, secret) = (form(&raw.client_id), form(raw.client_secret.reveal()));
        let mut authorization =
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))).ok()?;
        authorization.set_sensitive(true);
        Some(Self {
            name: raw.url.as_str().into(),
            endpoint,
            authorization,
            holds_for: raw.cache.0,
            mapping: Mapping::new(raw.session_claim.as_slice(), raw.login_time, raw.on_missing, &raw.claims),
        })
    }

    /// What the server says of a token; none if it calls it bad.
    async fn ask(&self, token: &str) -> Result<Option<Map<String, Value>>, FetchError> {
        let question = format!("token={}&token_type_hint=access_token", form(token));
        let reply = self.endpoint.post_form(question, &self.authorization, ANSWER_BYTES).await?;
        let answer = object(&reply.body).ok_or(FetchError::Content("it is no JSON object"))?;
        match answer.get("active") {
            Some(Value::Bool(active)) => Ok(active.then_some(answer)),
            _ => Err(FetchError::Content("it does not say whether the token is active")),
        }
    }

    fn judge(&self, mut said: Map<String, Value>, now: Time) -> Answer {
        let held = now.plus(self.holds_for);
        // A server need not say when a token expires; its answer then holds for as long as it is kept.
        said.entry("exp").or_insert_with(|| held.seconds().saturating_add(1).into());
        let times = Times { leeway: LEEWAY, oldest: Duration::MAX };
        let judged = times.check(&said, now).and_then(|lifetime| {
            let expiry = Time(lifetime.expires_at.unsigned_abs().saturating_mul(1000));
            if expiry <= now {
                return Err(Flaw::Expired);
            }
            let assertion = self.mapping.assertion(&self.name, &said, lifetime)?;
            let as_of = i64::try_from(now.seconds()).ok();
            Ok((Assertion { as_of, ..assertion }, held.min(expiry)))
        });
        match judged {
            Ok((assertion, until)) => Answer { said: Ok(Arc::new(assertion)), until },
            Err(flaw) => Answer { said: Err(flaw.into()), until: held },
        }
    }
}

/// Something that can be a token: visible characters, at most 16 KiB of them.
fn readable(token: &[u8]) -> Result<&str, Flaw> {
    if token.len() > CREDENTIAL_BYTES {
        return Err(Flaw::TooLarge);
    }
    let visible = token.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(token).ok().filter(|_| visible).ok_or(Flaw::Malformed)
}

fn form(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, FORM)
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}
