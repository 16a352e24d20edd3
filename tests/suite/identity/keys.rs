//! Where keys come from, and what becomes of tokens when keys change or cannot be had.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cloakroom::handle::Handle;
use serde_json::json;

use super::login::{AUDIENCE, Login, changed, claims_at, key_set, plan_of};
use crate::house::{BEGIN, Guest, House, Issuer, Says, Signer};

const MOMENT: Duration = Duration::from_millis(50);

#[test]
fn tokens_of_every_family_pass() {
    let issuer = Issuer::open();
    let algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];
    let signers: Vec<Signer> = algorithms.iter().map(|alg| Signer::new(alg, alg)).collect();
    issuer.publishes(&signers.iter().collect::<Vec<_>>());
    let entry = format!(
        "issuer: '{}', audience: [{AUDIENCE}], jwks: {{ url: '{}' }}, algorithms: [{}], session_claim: sub",
        issuer.url(""),
        issuer.url("/keys"),
        algorithms.join(", ")
    );
    let house = plan_of(&[entry]).open();
    for signer in &signers {
        house.verified(&signer.token(&claims_at(&issuer.url(""), BEGIN)));
    }
    assert_eq!(issuer.times_asked("/keys"), 1);
    house.close();
}

#[test]
fn the_tokens_issuer_picks_its_keys_and_its_rules() {
    let (one, other) = (Login::new(), Login::new());
    let house = plan_of(&[one.entry(""), other.entry("audience: [other]")]).open();
    house.verified(&one.token());
    house.unverified(&other.token());
    house.verified(&other.token_saying(json!({ "aud": ["x", "other"] })));
    // Of the same name as a key of the other.
    house.unverified(&one.ec.token(&changed(other.claims(), json!({ "aud": "other" }))));
    house.unverified(&other.ec.token(&one.claims()));
    house.close();
}

#[test]
fn keys_come_by_discovery_from_a_file_and_in_place() {
    let login = Login::new();
    let name = login.name();
    let document = json!({ "issuer": name, "jwks_uri": login.issuer.url("/keys"), "more": [1] });
    login.issuer.says("/.well-known/openid-configuration", Says::Json(document, None));
    let house = login.plan("jwks: { discovery: true }").open();
    house.verified(&login.token());
    house.close();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, json!({ "keys": [login.ec.jwk()] }).to_string()).unwrap();
    let house = login.plan(&format!("jwks: {{ file: '{}' }}", path.display())).open();
    house.verified(&login.token());
    let next = Signer::new("ES256", "ec-2");
    // As Kubernetes swaps a mounted file.
    let fresh = folder.path().join("fresh.json");
    std::fs::write(&fresh, json!({ "keys": [next.jwk()] }).to_string()).unwrap();
    std::fs::rename(&fresh, &path).unwrap();
    house.clock.advance(Duration::from_secs(4));
    house.verified(&next.token(&login.claims()));
    house.unverified(&login.token());
    // What cannot be read leaves what is held.
    std::fs::write(&path, "{").unwrap();
    house.clock.advance(Duration::from_secs(4));
    house.until("the file was looked at", || house.logged().contains("could not be loaded"));
    house.verified(&next.token(&changed(login.claims(), json!({ "jti": "another" }))));
    house.close();

    let house = login.plan(&format!("jwks: {{ keys: [{}] }}", login.ed.jwk())).open();
    house.verified(&login.ed.token(&login.claims()));
    house.unverified(&login.token());
    house.close();
}

#[test]
fn keys_come_over_tls_from_whom_the_configuration_trusts() {
    let (issuer, ca) = Issuer::open_tls();
    let login = Login { issuer, ..Login::new() };
    login.issuer.publishes(&[&login.ec]);
    let document = json!({ "issuer": login.name(), "jwks_uri": login.issuer.url("/keys") });
    login.issuer.says("/.well-known/openid-configuration", Says::Json(document, None));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.crt");
    std::fs::write(&path, ca).unwrap();
    let house = login.plan(&format!("jwks: {{ discovery: true, ca: '{}' }}", path.display())).open();
    house.verified(&login.token());
    house.close();

    // Over TLS a document leads nowhere else, and no other authority will do.
    let document = json!({ "issuer": login.name(), "jwks_uri": Login::new().issuer.url("/keys") });
    login.issuer.says("/.well-known/openid-configuration", Says::Json(document, None));
    let house = login.plan(&format!("jwks: {{ discovery: true, ca: '{}' }}", path.display())).open();
    house.with_token("/chat", &login.token()).send().is(503, "identity-unavailable");
    house.close();
    let (_, other) = Issuer::open_tls();
    std::fs::write(&path, other).unwrap();
    let asked = login.issuer.times_asked("/keys");
    let house =
        login.plan(&format!("jwks: {{ url: '{}', ca: '{}' }}", login.issuer.url("/keys"), path.display())).open();
    house.with_token("/chat", &login.token()).send().is(503, "identity-unavailable");
    assert_eq!(login.issuer.times_asked("/keys"), asked);
    house.close();
}

#[test]
fn a_discovery_document_of_another_issuer_is_not_believed() {
    let login = Login::new();
    let document = json!({ "issuer": "https://evil.example", "jwks_uri": login.issuer.url("/keys") });
    login.issuer.says("/.well-known/openid-configuration", Says::Json(document, None));
    let house = login.plan("jwks: { discovery: true }").open();
    house.with_token("/chat", &login.token()).send().is(503, "identity-unavailable");
    assert_eq!(login.issuer.times_asked("/keys"), 0);
    house.close();
}

#[test]
fn a_new_key_is_fetched_once_however_many_ask() {
    let login = Login::new();
    let house = login.open();
    house.verified(&login.token());
    let next = Signer::new("ES256", "ec-2");
    login.issuer.publishes(&[&login.ec, &next]);
    login.issuer.close_gate();
    let tokens: Vec<String> =
        (0..20).map(|n| next.token(&changed(login.claims(), json!({ "jti": format!("t-{n}") })))).collect();
    thread::scope(|scope| {
        let asking: Vec<_> = tokens.iter().map(|token| scope.spawn(|| house.verified(token).status)).collect();
        house.until("the set is asked for", || login.issuer.times_asked("/keys") == 2);
        thread::sleep(MOMENT);
        login.issuer.open_gate();
        asking.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), 200));
    });
    assert_eq!(login.issuer.times_asked("/keys"), 2);
    house.close();
}

#[test]
fn a_second_change_within_five_seconds_is_waited_for() {
    let login = Login::new();
    let house = login.open();
    house.verified(&login.token());
    let (second, third) = (Signer::new("ES256", "ec-2"), Signer::new("ES256", "ec-3"));
    login.issuer.publishes(&[&second]);
    house.verified(&second.token(&login.claims()));
    login.issuer.publishes(&[&second, &third]);
    let token = third.token(&login.claims());
    thread::scope(|scope| {
        let asking = scope.spawn(|| house.verified(&token).status);
        thread::sleep(MOMENT);
        assert_eq!(login.issuer.times_asked("/keys"), 2, "no sooner than after five seconds");
        assert!(!asking.is_finished());
        house.clock.advance(Duration::from_secs(5));
        assert_eq!(asking.join().unwrap(), 200);
    });
    house.close();
}

#[test]
fn whoever_asks_in_vain_is_not_waited_for() {
    let login = Login::new();
    let house = login.open();
    house.verified(&login.token());
    for n in 0..10 {
        house.unverified(&Signer::new("ES256", &format!("bogus-{n}")).token(&login.claims()));
    }
    assert_eq!(login.issuer.times_asked("/keys"), 2);
    assert_eq!(house.rejected("unknown-key"), 10);
    house.clock.advance(Duration::from_secs(5));
    house.unverified(&Signer::new("ES256", "bogus").token(&login.claims()));
    assert_eq!(login.issuer.times_asked("/keys"), 3);
    house.close();
}

/// Keys change again and again while requests come; no token that was good when it was made is refused.
#[test]
fn rotation_under_load_refuses_nobody() {
    let login = Login::new();
    let house = login.open();
    house.verified(&login.token());
    let signers: Vec<Signer> = (0..4).map(|n| Signer::new("ES256", &format!("key-{n}"))).collect();
    let (current, served, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    login.issuer.publishes(&[&signers[0]]);
    thread::scope(|scope| {
        for worker in 0..4 {
            let (house, login, signers) = (&house, &login, &signers);
            let (current, served, over) = (&current, &served, &over);
            scope.spawn(move || {
                let mut n = 0;
                while !over.load(Ordering::Acquire) {
                    n += 1;
                    let jti = json!({ "jti": format!("{worker}-{n}") });
                    let token = signers[current.load(Ordering::Acquire)].token(&changed(login.claims(), jti));
                    house.get("/chat").header("authorization", &format!("Bearer {token}")).send().passed();
                    served.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        for next in 1..signers.len() {
            let so_far = served.load(Ordering::Acquire);
            house.until("the keys are in use", || served.load(Ordering::Acquire) > so_far + 20);
            // The issuer publishes before it signs, and keeps the key of before for what is under way.
            login.issuer.publishes(&[&signers[next - 1], &signers[next]]);
            current.store(next, Ordering::Release);
            thread::sleep(MOMENT);
            house.clock.advance(Duration::from_secs(5));
        }
        let so_far = served.load(Ordering::Acquire);
        house.until("the last key is in use", || served.load(Ordering::Acquire) > so_far + 20);
        over.store(true, Ordering::Release);
    });
    assert_eq!(
        house
            .metrics
            .encode(cloakroom::telemetry::Exposition::Prometheus)
            .unwrap()
            .matches("cloakroom_credentials_rejected_total{")
            .count(),
        0
    );
    house.close();
}

#[test]
fn a_key_that_goes_takes_its_tokens_along() {
    let login = Login::new();
    let house = login.open();
    let (by_ec, by_ed) = (login.token(), login.ed.token(&login.claims()));
    house.verified(&by_ec);
    house.verified(&by_ed);
    login.issuer.publishes(&[&login.rsa, &login.ed]);
    house.clock.advance(Duration::from_secs(601));
    house.until("the set is fetched again", || login.issuer.times_asked("/keys") == 2);
    let fresh = |signer: &Signer| signer.token(&claims_at(&login.name(), house.clock.now()));
    house.until("the key is out of use", || house.with_token("/chat", &by_ec).send().status == 401);
    house.unverified(&fresh(&login.ec));
    house.verified(&fresh(&login.ed));
    house.close();
}

#[test]
fn a_server_that_fails_leaves_the_keys_that_are_held() {
    let login = Login::new();
    let house = login.open();
    house.verified(&login.token());
    let oversized = format!("{{\"keys\":[{}],\"x\":\"{}\"}}", login.ec.jwk(), "x".repeat(1 << 20));
    let long = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{oversized}", oversized.len());
    let thief = Signer::new("ES256", "thief");
    let elsewhere = Issuer::open();
    elsewhere.publishes(&[&thief]);
    let mut asked = 1;
    for (case, says) in [
        ("500", Says::Status(500)),
        ("404", Says::Status(404)),
        ("a redirect", Says::RedirectTo(elsewhere.url("/keys"))),
        ("a page", Says::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n<html".to_vec())),
        ("no HTTP", Says::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec())),
        ("cut off", Says::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"keys\":[".to_vec())),
        ("over 1 MiB", Says::Bytes(long.into_bytes())),
        ("no keys", Says::Json(json!({ "keys": [] }), None)),
        ("no set", Says::Json(json!([]), None)),
        ("a hang-up", Says::Hangup),
    ] {
        login.issuer.says("/keys", says);
        house.clock.advance(Duration::from_secs(61));
        // An unknown key has the set fetched, now or as a repetition; what failed says nothing against it.
        house
            .with_token("/chat", &thief.token(&claims_at(&login.name(), house.clock.now())))
            .send()
            .is(503, "identity-unavailable");
        assert!(login.issuer.times_asked("/keys") > asked, "{case}");
        asked = login.issuer.times_asked("/keys");
        house.verified(&login.ec.token(&claims_at(&login.name(), house.clock.now())));
        assert_eq!(house.readyz().0, 200, "{case}");
    }
    assert_eq!(elsewhere.times_asked("/keys"), 0, "no redirect is followed");
    login.issuer.says("/keys", key_set(&[&login.ec, &thief]));
    house.clock.advance(Duration::from_secs(61));
    house.verified(&thief.token(&claims_at(&login.name(), house.clock.now())));
    house.close();
}

#[test]
fn without_any_keys_it_is_an_outage_and_not_a_logout() {
    let login = Login::new();
    login.issuer.says("/keys", Says::Status(503));
    let house = login.open();
    house.until("the first fetch has failed", || login.issuer.times_asked("/keys") >= 1);
    for path in ["/chat", "/visit"] {
        let reply = house.with_token(path, &login.token()).send();
        reply.is(503, "identity-unavailable");
        assert!(reply.header("retry-after").is_some());
        assert_eq!((reply.header("www-authenticate"), reply.header("set-cookie")), (None, None));
    }
    house.get("/public").send().passed();
    let (status, report) = house.readyz();
    assert_eq!((status, report["checks"]["jwks"]["ready"].as_bool()), (503, Some(false)), "{report}");
    // What is no good anyway is told so.
    house.unverified(&login.token_saying(json!({ "aud": "other" })));
    login.issuer.publishes(&[&login.ec]);
    house.clock.advance(Duration::from_secs(2));
    house.until("the keys are loaded", || house.readyz().0 == 200);
    house.verified(&login.token());
    house.close();
}

#[test]
fn a_server_says_how_long_its_keys_hold() {
    let login = Login::new();
    login.issuer.says("/keys", Says::Json(json!({ "keys": [login.ec.jwk()] }), Some("max-age=60")));
    let house = login.open();
    house.verified(&login.token());
    house.clock.advance(Duration::from_secs(59));
    thread::sleep(Duration::from_millis(400));
    assert_eq!(login.issuer.times_asked("/keys"), 1);
    house.clock.advance(Duration::from_secs(1));
    house.until("they are fetched again", || login.issuer.times_asked("/keys") == 2);
    house.close();
}

#[test]
fn a_reload_keeps_the_keys_of_issuers_that_stay() {
    let login = Login::new();
    let house = login.open();
    house.verified(&login.token());
    house.reload(&login.plan("leeway: 10s"));
    house.verified(&login.token());
    assert_eq!(login.issuer.times_asked("/keys"), 1, "the keys were kept");
    house.reload(&login.plan("audience: [other]"));
    // What was verified under other rules is verified anew.
    house.unverified(&login.token());
    let other = Login::new();
    house.reload(&other.plan(""));
    house.verified(&other.token());
    house.unverified(&login.token());
    house.close();
}

#[test]
fn a_token_without_a_name_of_a_key_is_tried_with_those_of_its_algorithm() {
    let login = Login::new();
    let mut nameless = Signer::new("ES256", "");
    nameless.kid = None;
    login.issuer.publishes(&[&login.rsa, &login.ec, &nameless]);
    let house = login.open();
    house.verified(&nameless.token(&login.claims()));
    let header = json!({ "alg": "ES256" }).to_string();
    house.verified(&login.ec.token_with(&header, &login.claims().to_string()));
    house.close();
}

#[test]
fn a_shared_secret_is_one_of_the_configuration() {
    let login = Login::new();
    let secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, secret).unwrap();
    let keys =
        format!("jwks: {{ keys: [{{ kty: oct, kid: h, k: '${{file:{}}}' }}, {}] }}", path.display(), login.ec.jwk());
    let house = login.plan(&format!("{keys}, algorithms: [HS256, ES256]")).open();
    house.sensitive(secret);
    let shared = Signer::shared("HS256", Some("h"), b"0123456789abcdef0123456789abcdef");
    house.verified(&shared.token(&login.claims()));
    house.verified(&login.token());
    house.unverified(&Signer::shared("HS256", Some("h"), b"0123456789abcdef0123456789abcdeg").token(&login.claims()));
    house.unverified(&Signer::shared("HS512", Some("h"), b"0123456789abcdef0123456789abcdef").token(&login.claims()));
    house
        .unverified(&Signer::shared("HS256", Some("ec-1"), b"0123456789abcdef0123456789abcdef").token(&login.claims()));
    house.close();
}

impl House {
    /// Spends every try of the client's address.
    pub fn spend_tries(&self, burst: usize) {
        for n in 0..burst {
            self.unverified(&format!("eyJ.bad.{n}"));
        }
    }
}

#[test]
fn bad_tokens_are_limited_before_a_signature_is_checked() {
    let login = Login::new();
    let entry = login.entry("");
    let section = format!("identity: {{ bad_credentials: {{ rate: 1/h, burst: 3 }}, jwt: [{{ {entry} }}] }}");
    let house = crate::house::Plan::new().section(&section).open();
    let known = login.token();
    house.verified(&known);
    house.spend_tries(3);
    house.with_token("/chat", "eyJ.bad.4").send().is(429, "rate-limited");
    let fresh = login.token_saying(json!({ "jti": "fresh" }));
    house.with_token("/chat", &fresh).send().is(429, "rate-limited");
    house.verified(&known);
    assert_eq!(house.rejected("malformed"), 3);
    // Once it is revoked, it is none of the known ones any more.
    let handle = house.backend.last().header("cloakroom-session").and_then(Handle::parse).unwrap();
    house.revoke(&Guest { id: String::new(), handle });
    house.with_token("/chat", &known).send().is(401, "session-revoked");
    house.with_token("/chat", &known).send().is(429, "rate-limited");
    house.close();
}

#[test]
fn a_token_is_good_until_it_expires_however_often_it_came() {
    let login = Login::new();
    let house = login.open();
    let token = login.token();
    house.verified(&token);
    house.clock.advance(Duration::from_secs(629));
    house.verified(&token);
    house.clock.advance(Duration::from_secs(1));
    house.unverified(&token);
    assert_eq!(house.rejected("expired"), 1);
    house.close();
}

#[test]
fn only_a_jwt_goes_on_and_only_where_it_may() {
    let login = Login::new();
    let section = format!(
        "identity: {{ session_id: {{ header: X-Key }}, bad_credentials: null, jwt: [{{ {} }}] }}",
        login.entry("")
    );
    let house = crate::house::Plan::new()
        .section(&section)
        .route("name: onward, match: { path: /onward }, upstream: 'http://BACKEND', session: optional, forward_credential: true")
        .route("name: open, match: { path: /open }, upstream: 'http://BACKEND', session: none, forward_credential: true")
        .open();
    // It is to be seen by the backend, so that it is no secret here.
    let token = login.token_saying(json!({ "jti": "onward" }));
    let guest = house.visitor();
    for path in ["/onward", "/open"] {
        let bearer = format!("Bearer {token}");
        house.get(path).header("authorization", &bearer).cookie(&guest).send().passed();
        assert_eq!(house.backend.last().header("authorization"), Some(&*bearer), "{path}");
        assert_eq!(house.backend.last().header("cookie"), None);
        house.get(path).header("x-key", &token).send().passed();
        assert_eq!(house.backend.last().header("x-key"), Some(&*token), "{path}");
        house.get(path).bearer(&guest).header("x-key", &guest.id).send().passed();
        assert_eq!((house.backend.last().header("authorization"), house.backend.last().header("x-key")), (None, None));
    }
    for path in ["/chat", "/visit", "/public", "/login"] {
        house.get(path).header("authorization", &format!("Bearer {token}")).header("x-key", &token).send().passed();
        let seen = house.backend.last();
        assert_eq!((seen.header("authorization"), seen.header("x-key")), (None, None), "{path}");
    }
    house.close();
}

#[test]
fn a_routes_list_says_what_decides() {
    let login = Login::new();
    let house = login
        .plan("")
        .route("name: ids, match: { path: /ids }, upstream: 'http://BACKEND', read: [auth], identity: [session_id]")
        .route("name: tokens, match: { path: /tokens }, upstream: 'http://BACKEND', read: [auth], identity: [jwt, session_id]")
        .open();
    let (guest, token) = (house.visitor(), login.token());
    let own = Some(guest.handle.to_string());
    let by = |path: &str| {
        house.with_token(path, &token).cookie(&guest).send().passed();
        house.backend.last().header("cloakroom-session").map(str::to_owned)
    };
    assert_eq!((by("/chat"), by("/ids")), (own.clone(), own.clone()), "the cookie comes first");
    assert_ne!(by("/tokens"), own, "the list comes first");
    house.with_token("/ids", &token).send().is(401, "credential-missing");
    house.unverified("a.b.c");
    house.with_token("/ids", "a.b.c").cookie(&guest).send().passed();
    house.with_token("/visit", "a.b.c").send().is(401, "credential-invalid");
    house.close();
}
