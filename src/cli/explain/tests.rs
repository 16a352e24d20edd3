use std::path::Path;

use clap::Parser;

use super::*;
use crate::clock::Clock;

const CONFIG: &str = r#"
version: 1
trusted_proxies: [10.0.0.0/8]
session:
  schema:
    version: 1
    fields:
      user_id: { type: string, section: auth, writable: false, user: true }
      email: { type: string, section: auth, sensitive: true }
      step: { type: integer, section: task }
routes:
  - { name: chat, match: { path: /chat }, upstream: "http://127.0.0.1:1", read: [auth, task], write: [step] }
  - name: gold
    match: { path: /chat, methods: [POST], headers: { x-tier: gold } }
    upstream: http://127.0.0.1:2
    rewrite: { strip_prefix: true }
    session: optional
    start: { carry: [step] }
    end: true
    headers: { X-User-Id: user_id, X-Email: email }
    require: { step: 4 }
  - { name: login, match: { path: /login, path_type: exact, methods: [GET] }, upstream: "http://127.0.0.1:3", session: none }
"#;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    explain: ExplainArgs,
}

fn explain(words: &[&str]) -> Explanation {
    explain_with("", words)
}

fn explain_with(more: &str, words: &[&str]) -> Explanation {
    let config = config::inspect(&format!("{CONFIG}{more}"), Path::new("c.yaml"), &|_| None).config.unwrap();
    let (rooms, schema) = Rooms::compile(&config, &mut Problems::default()).unwrap();
    let line = Line::try_parse_from(["explain", "--config", "c.yaml"].iter().chain(words)).unwrap();
    Explained { config: &config, rooms: &rooms, schema: &schema }.explain(&line.explain)
}

fn refused(words: &[&str]) -> Option<(u16, &'static str)> {
    explain(words).refused.map(|refused| (refused.status, refused.code))
}

fn text(told: &Explanation) -> String {
    let mut out = Vec::new();
    text::put(&mut out, told).unwrap();
    anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string()
}

#[test]
fn the_most_specific_route_is_told_with_those_that_it_precedes() {
    let told = explain(&["POST", "https://app.example/chat/x?q=1", "-H", "X-Tier: gold"]);
    let route = told.route.unwrap();
    assert_eq!((route.name.as_str(), route.forwarded.as_str(), route.session), ("gold", "/x?q=1", "optional"));
    assert_eq!(route.pattern, "path prefix /chat, method POST, header x-tier: gold");
    assert_eq!(route.require, ["step is or holds 4"]);
    let verdicts: Vec<_> = told.candidates.iter().map(|one| (one.name.as_str(), one.verdict)).collect();
    assert_eq!(verdicts, [("gold", "takes the request"), ("chat", "would match, and is less specific")]);
    let told = explain(&["GET", "/chat", "-H", "X-Tier: gold"]);
    assert_eq!(told.route.unwrap().name, "chat");
    assert_eq!(told.candidates[0].verdict, "matches with other methods only");
    assert_eq!(explain(&["POST", "/chat"]).candidates[0].verdict, "matches with other headers only");
}

#[test]
fn what_no_route_takes_is_refused_as_it_would_be() {
    for (words, expected) in [
        (&["GET", "/nowhere"][..], (404, "route-not-found")),
        (&["POST", "/login"], (405, "method-not-allowed")),
        (&["TRACE", "/chat"], (405, "method-not-allowed")),
        (&["GET", "/chat/../login"], (400, "request-malformed")),
        (&["GET", "/chat/%2e%2e/login"], (400, "request-malformed")),
        (&["GET", "/chat#x"], (400, "request-malformed")),
        (&["GET", "/chat\\x"], (400, "request-malformed")),
        (&["GET", "/chat", "-H", "Host: a", "-H", "Host: b"], (400, "request-malformed")),
        (&["GET", "/chat", "-H", "Cookie: __Host-session=a; __Host-session=b"], (400, "request-malformed")),
        (
            &["POST", "/chat", "-H", "Cookie: __Host-session=a", "-H", "Origin: https://evil.example"],
            (403, "forbidden"),
        ),
    ] {
        assert_eq!(refused(words), Some(expected), "{words:?}");
    }
    assert_eq!(refused(&["GET", "/chat"]), None);
}

#[test]
fn what_is_taken_out_is_told_with_the_reason() {
    let headers = [
        "-H",
        "cloakroom_context: x",
        "-H",
        "X_User_Id: u-1",
        "-H",
        "X-Forwarded-For: 1.2.3.4",
        "-H",
        "Connection: x-a",
        "-H",
        "X-A: 1",
        "-H",
        "X-Passes: 1",
        "-H",
        "Cookie: a=1; __Host-session=cr_x",
    ];
    let told = explain(&[&["GET", "/chat"], &headers[..]].concat());
    let mut stripped: Vec<_> = told
        .stripped
        .iter()
        .map(|one| (one.header.as_str(), one.reason.split(' ').next().unwrap(), one.replaced))
        .collect();
    stripped.sort_unstable();
    let expected = [
        ("cloakroom_context", "only", false),
        ("connection", "it", true),
        ("cookie", "a", false),
        ("x-a", "it", false),
        ("x-forwarded-for", "the", true),
        ("x_user_id", "a", false),
    ];
    assert_eq!(stripped, expected);
    let trusted = explain(&[&["GET", "/chat", "--peer", "10.1.1.1"], &headers[..]].concat());
    assert!(!trusted.stripped.iter().any(|one| one.header == "x-forwarded-for"));
}

#[test]
fn a_credential_is_told_by_kind_and_carrier_and_never_by_value() {
    let id = crate::handle::SessionId::random().unwrap().reveal().to_string();
    let bearer = format!("Authorization: Bearer {id}");
    let told = explain(&["GET", "/chat", "-H", &bearer]);
    let found = told.credentials.first().unwrap();
    assert_eq!((found.carrier, found.well_formed, found.decides), ("bearer", true, true));
    let json = serde_json::to_string(&told).unwrap();
    assert!(!format!("{json}{}", text(&told)).contains(&id[3..]));
    let found = explain(&["GET", "/login", "-H", &bearer]).credentials.remove(0);
    assert!(!found.decides);
    assert!(!explain(&["GET", "/chat", "-H", "Authorization: Bearer cr_x"]).credentials[0].well_formed);
    assert!(explain(&["GET", "/chat", "-H", "Authorization: Bearer sk-x"]).credentials.is_empty());
    assert!(text(&explain(&["GET", "/chat"])).contains("none came: 401"));
}

#[test]
fn a_token_is_told_by_its_issuer_and_its_flaw() {
    const IDENTITY: &str = "identity: { jwt: [{ issuer: i, audience: [a], jwks: { url: 'https://i/keys' }, algorithms: [ES256], session_claim: sub }] }\n";
    let encoded = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let now = Clock::system().now().seconds();
    let claims = format!(r#"{{"iss":"i","aud":"a","sub":"u-SECRET","iat":{now},"exp":{}}}"#, now + 600);
    let token = format!("{}.{}.{}", encoded(r#"{"alg":"ES256"}"#), encoded(&claims), encoded("signature"));
    let told = explain_with(IDENTITY, &["GET", "/chat", "-H", &format!("Authorization: Bearer {token}")]);
    let found = told.credentials.first().unwrap();
    assert_eq!((found.kind, found.issuer.as_deref(), found.decides), ("JWT", Some("i"), true));
    let shown = format!("{}{}", text(&told), serde_json::to_string(&told).unwrap());
    assert!(shown.contains("its signature would be checked") && !shown.contains("SECRET"), "{shown}");
    assert!(!shown.contains(&token[..30]));
    let told = explain_with(IDENTITY, &["GET", "/chat", "-H", "Authorization: Bearer a.b.c"]);
    assert!(text(&told).contains("it decides, and is refused: 401\n    it is no good"), "{}", text(&told));
}

#[test]
fn the_backends_view_and_rights_are_told() {
    let chat = explain(&["GET", "/chat"]).backend.unwrap();
    let reads: Vec<_> = chat.reads.iter().map(|one| (one.field.as_str(), one.shown_as)).collect();
    assert_eq!(reads, [("user_id", "value"), ("email", "handle"), ("step", "value")]);
    assert_eq!(chat.context, ["cloakroom-session", "cloakroom-etag", "cloakroom-schema", "cloakroom-context"]);
    assert_eq!((chat.writes.as_slice(), chat.starts, chat.ends), (&["step".to_owned()][..], false, false));
    assert!(chat.forwarding.contains(&"x-forwarded-for".to_owned()));

    let told = explain(&["POST", "/chat", "-H", "X-Tier: gold"]);
    let gold = told.backend.as_ref().unwrap();
    let headers: Vec<_> = gold.headers.iter().map(|one| (one.header.as_deref().unwrap(), one.shown_as)).collect();
    assert_eq!(headers, [("x-user-id", "value"), ("x-email", "handle")]);
    assert_eq!((gold.starts, gold.carries.as_slice(), gold.ends), (true, &["step".to_owned()][..], true));
    let text = text(&told);
    assert!(
        text.contains("x-email, the handle of email") && text.contains("start a session: yes, carrying step"),
        "{text}"
    );
}
