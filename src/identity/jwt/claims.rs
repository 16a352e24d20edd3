//! What a token has to say, and what is made of it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Time;
use crate::config::{self, LoginTime, OnMissing};

use super::super::Assertion;
use super::Flaw;

/// What names a user, a session or a token; longer ones would only burden the store.
const NAME_BYTES: usize = 1 << 10;
/// The end of the year 9999, in seconds.
const LAST_SECOND: i64 = 253_402_300_799;
/// Ten years, in seconds: no token is meant to be good for longer.
const LONGEST_LIFE: i64 = 10 * 366 * 86_400;

/// From claims to what they mean for the session.
#[derive(Debug)]
pub struct Mapping {
    session_claims: Vec<Arc<str>>,
    login_time: LoginTime,
    on_missing: OnMissing,
    /// Field and claim.
    fields: Vec<(Arc<str>, Arc<str>)>,
}

impl Mapping {
    pub fn new(
        session_claims: &[String],
        login_time: LoginTime,
        on_missing: OnMissing,
        fields: &indexmap::IndexMap<String, String>,
    ) -> Self {
        Self {
            session_claims: session_claims.iter().map(|name| name.as_str().into()).collect(),
            login_time,
            on_missing,
            fields: fields.iter().map(|(field, claim)| (field.as_str().into(), claim.as_str().into())).collect(),
        }
    }

    /// What claims assert that were found to be good, but for those that are read here.
    pub fn assertion(
        &self,
        issuer: &Arc<str>,
        claims: &Map<String, Value>,
        lifetime: Lifetime,
    ) -> Result<Assertion, Flaw> {
        let named = |name: &Arc<str>| Ok(text(claims, name)?.map(|value| (name.clone(), value)));
        let named: Result<Option<_>, Flaw> =
            self.session_claims.iter().map(named).find_map(Result::transpose).transpose();
        let (session_claim, session_value) = named?.ok_or(Flaw::Claims)?;
        let login_time = match self.login_time {
            LoginTime::Iat => lifetime.issued_at,
            LoginTime::AuthTime => seconds(claims, "auth_time")?,
        };
        if login_time.is_some_and(|at| at > lifetime.latest) {
            return Err(Flaw::NotYetValid);
        }
        let mapped = self.fields.iter().map(|(field, claim)| {
            let value = claims.get(&**claim).filter(|value| !value.is_null());
            (field.clone(), value.cloned())
        });
        Ok(Assertion {
            issuer: issuer.clone(),
            subject: text(claims, "sub")?.ok_or(Flaw::Claims)?,
            session_claim,
            session_value,
            issued_at: lifetime.issued_at,
            as_of: lifetime.issued_at,
            login_time,
            expires_at: lifetime.expires_at,
            usable_until: lifetime.usable_until,
            token_id: text(claims, "jti")?,
            claims: mapped.collect(),
            on_missing: self.on_missing,
            names: OnceLock::new(),
        })
    }
}

/// When a token may be used.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    pub issued_at: Option<i64>,
    pub expires_at: i64,
    /// The expiry and the leeway.
    pub usable_until: Time,
    /// Now and the leeway: what is later has not happened yet.
    pub latest: i64,
}

/// What is asked of times.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub leeway: Duration,
    /// Tokens that were issued longer ago could have been revoked without anybody remembering.
    pub oldest: Duration,
}

impl Times {
    pub fn of(leeway: config::Period, session: &config::Session) -> Self {
        Self { leeway: leeway.0, oldest: session.remember_revoked.0.max(session.lifetime.absolute.0) }
    }

    /// Checks `exp`, which must be there, `nbf` and `iat`.
    pub fn check(&self, claims: &Map<String, Value>, now: Time) -> Result<Lifetime, Flaw> {
        let (now, leeway) = (whole(now.seconds()), whole(self.leeway.as_secs()));
        let expires_at = seconds(claims, "exp")?.ok_or(Flaw::Claims)?;
        let issued_at = seconds(claims, "iat")?;
        let latest = now.saturating_add(leeway);
        if expires_at.saturating_add(leeway) <= now {
            return Err(Flaw::Expired);
        }
        if expires_at > now.saturating_add(LONGEST_LIFE) || issued_at.is_some_and(|issued| issued > expires_at) {
            return Err(Flaw::Claims);
        }
        if seconds(claims, "nbf")?.is_some_and(|from| from > latest) || issued_at.is_some_and(|at| at > latest) {
            return Err(Flaw::NotYetValid);
        }
        if issued_at.is_some_and(|at| at.saturating_add(whole(self.oldest.as_secs())) < now) {
            return Err(Flaw::Expired);
        }
        let usable_until = Time(expires_at.unsigned_abs().saturating_mul(1000)).plus(self.leeway);
        Ok(Lifetime { issued_at, expires_at, usable_until, latest })
    }

    /// When a token is too old although it has not expired.
    pub fn forgotten_at(&self, issued_at: Option<i64>) -> Time {
        issued_at.map_or(Time::MAX, |at| Time(at.unsigned_abs().saturating_mul(1000)).plus(self.oldest))
    }
}

fn whole(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A time claim, in whole seconds since the epoch and before the year 10000; anything else is no time.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, Flaw> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_i64().filter(|seconds| (0..=LAST_SECOND).contains(seconds));
    seconds.map(Some).ok_or(Flaw::Claims)
}

/// A claim that names something: a text that is neither empty nor longer than 1 KiB.
fn text(claims: &Map<String, Value>, name: &str) -> Result<Option<Arc<str>>, Flaw> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= NAME_BYTES => Ok(Some(text.as_str().into())),
        Some(_) => Err(Flaw::Claims),
    }
}

/// Whether a token is meant for one of these: its `aud` is a text or a list of nothing but texts.
///
/// Where nobody is named, any audience will do, as long as it is well-formed.
pub fn is_for(audience: &[String], claims: &Map<String, Value>) -> Result<(), Flaw> {
    let named: Vec<&str> = match claims.get("aud") {
        None if audience.is_empty() => return Ok(()),
        None => return Err(Flaw::Audience),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().map(Value::as_str).collect::<Option<_>>().ok_or(Flaw::Claims)?,
        Some(_) => return Err(Flaw::Claims),
    };
    let meant = named.iter().any(|name| audience.iter().any(|own| own == name));
    if meant || (audience.is_empty() && !named.is_empty()) { Ok(()) } else { Err(Flaw::Audience) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn times() -> Times {
        Times { leeway: Duration::from_secs(30), oldest: Duration::from_secs(86_400) }
    }

    fn check(claims: Value) -> Result<Lifetime, Flaw> {
        times().check(claims.as_object().unwrap(), Time(NOW * 1000))
    }

    #[test]
    fn times_hold_with_leeway_and_not_beyond() {
        for (claims, flaw) in [
            (json!({ "exp": NOW + 1, "iat": NOW }), None),
            (json!({ "exp": NOW - 29, "iat": NOW - 100 }), None),
            (json!({ "exp": NOW - 30, "iat": NOW - 100 }), Some(Flaw::Expired)),
            (json!({ "exp": NOW + 60, "iat": NOW + 30, "nbf": NOW + 30 }), None),
            (json!({ "exp": NOW + 60, "iat": NOW + 31 }), Some(Flaw::NotYetValid)),
            (json!({ "exp": NOW + 60, "iat": NOW, "nbf": NOW + 31 }), Some(Flaw::NotYetValid)),
            (json!({ "exp": NOW + 60, "iat": NOW - 86_400 }), None),
            (json!({ "exp": NOW + 60, "iat": NOW - 86_401 }), Some(Flaw::Expired)),
            (json!({ "exp": NOW + 20 * 365 * 86_400, "iat": NOW }), Some(Flaw::Claims)),
            (json!({ "exp": NOW, "iat": NOW + 10 }), Some(Flaw::Claims)),
            (json!({ "iat": NOW }), Some(Flaw::Claims)),
            (json!({ "exp": NOW + 60 }), None),
        ] {
            assert_eq!(check(claims.clone()).err(), flaw, "{claims}");
        }
        let until = check(json!({ "exp": NOW + 60, "iat": NOW })).unwrap().usable_until;
        assert_eq!(until, Time((NOW + 90) * 1000));
    }

    #[test]
    fn what_is_no_whole_second_is_no_time() {
        let odd = [
            json!(-1),
            json!(1.5e9),
            json!(1_800_000_060.5),
            json!("1800000060"),
            json!(null),
            json!(true),
            json!([NOW + 60]),
            json!({}),
            json!(LAST_SECOND + 1),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(1e300),
        ];
        for value in odd {
            for name in ["exp", "iat", "nbf"] {
                let mut claims = json!({ "exp": NOW + 60, "iat": NOW });
                claims[name] = value.clone();
                assert_eq!(check(claims).err(), Some(Flaw::Claims), "{name} {value}");
            }
        }
    }

    #[test]
    fn an_audience_is_a_text_or_texts_and_one_of_ours() {
        let own = ["agents".to_owned(), "tools".to_owned()];
        for (aud, flaw) in [
            (json!({ "aud": "agents" }), None),
            (json!({ "aud": ["other", "tools"] }), None),
            (json!({ "aud": "Agents" }), Some(Flaw::Audience)),
            (json!({ "aud": "agents tools" }), Some(Flaw::Audience)),
            (json!({ "aud": [] }), Some(Flaw::Audience)),
            (json!({}), Some(Flaw::Audience)),
            (json!({ "aud": null }), Some(Flaw::Claims)),
            (json!({ "aud": ["agents", 1] }), Some(Flaw::Claims)),
            (json!({ "aud": [["agents"]] }), Some(Flaw::Claims)),
            (json!({ "aud": { "agents": true } }), Some(Flaw::Claims)),
        ] {
            assert_eq!(is_for(&own, aud.as_object().unwrap()).err(), flaw, "{aud}");
        }
        for (aud, flaw) in
            [(json!({}), None), (json!({ "aud": "any" }), None), (json!({ "aud": 1 }), Some(Flaw::Claims))]
        {
            assert_eq!(is_for(&[], aud.as_object().unwrap()).err(), flaw, "{aud}");
        }
    }

    fn mapped(mapping: &Mapping, mut claims: Value) -> Result<Assertion, Flaw> {
        claims["exp"] = json!(NOW + 60);
        claims["iat"] = json!(NOW);
        let claims = claims.as_object().unwrap();
        mapping.assertion(&"i".into(), claims, times().check(claims, Time(NOW * 1000))?)
    }

    #[test]
    fn the_first_session_claim_that_is_there_names_the_session() {
        let fields = [("user_id".to_owned(), "sub".to_owned()), ("email".to_owned(), "email".to_owned())];
        let names = ["sid".to_owned(), "sub".to_owned()];
        let mapping = Mapping::new(&names, LoginTime::AuthTime, OnMissing::Create, &fields.into_iter().collect());
        let by_sid = mapped(&mapping, json!({ "sub": "u", "sid": "s", "jti": "j", "auth_time": NOW })).unwrap();
        assert_eq!((&**by_sid.session_claim(), &**by_sid.session_value()), ("sid", "s"));
        assert_eq!((by_sid.token_id().map(|id| &**id), by_sid.login_time()), (Some("j"), Some(NOW as i64)));
        assert_eq!(by_sid.claims()[0], ("user_id".into(), Some(json!("u"))));
        assert_eq!(by_sid.claims()[1], ("email".into(), None));
        let by_sub = mapped(&mapping, json!({ "sub": "u", "email": null })).unwrap();
        assert_eq!((&**by_sub.session_claim(), by_sub.login_time()), ("sub", None));
        assert_eq!(by_sub.claims()[1].1, None);
        for claims in [
            json!({ "sid": "s" }),
            json!({ "sub": "" }),
            json!({ "sub": 1 }),
            json!({ "sub": null }),
            json!({ "sub": ["u"] }),
            json!({ "sub": "u", "sid": 1 }),
            json!({ "sub": "u", "sid": "" }),
            json!({ "sub": "u", "jti": 1 }),
            json!({ "sub": "u".repeat(1025) }),
            json!({ "sub": "u", "auth_time": "now" }),
        ] {
            assert_eq!(mapped(&mapping, claims.clone()).err(), Some(Flaw::Claims), "{claims}");
        }
        let future = json!({ "sub": "u", "auth_time": NOW + 31 });
        assert_eq!(mapped(&mapping, future).err(), Some(Flaw::NotYetValid));
    }

    fn anything() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (NOW - 100..NOW + 100).prop_map(Value::from),
            ".{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| proptest::collection::vec(inner, 0..3).prop_map(Value::from))
    }

    proptest::proptest! {
        /// Whatever claims say there is an answer, and a yes only to what is sound.
        #[test]
        fn claims_of_any_kind_are_judged(exp in anything(), iat in anything(), sub in anything(), aud in anything()) {
            let claims = json!({ "exp": exp, "iat": iat, "sub": sub, "aud": aud });
            let members = claims.as_object().unwrap();
            let times = times().check(members, Time(NOW * 1000));
            if times.is_ok() {
                proptest::prop_assert!(exp.is_u64() && iat.is_u64(), "{}", claims);
            }
            let mapping = Mapping::new(&["sub".to_owned()], LoginTime::Iat, OnMissing::Create, &Default::default());
            if let Ok(lifetime) = times
                && let Ok(assertion) = mapping.assertion(&"i".into(), members, lifetime)
            {
                proptest::prop_assert_eq!(sub.as_str(), Some(&**assertion.subject()));
            }
            if is_for(&["a".to_owned()], members).is_ok() {
                proptest::prop_assert!(aud == "a" || aud.as_array().is_some_and(|names| names.contains(&json!("a"))));
            }
        }
    }
}
