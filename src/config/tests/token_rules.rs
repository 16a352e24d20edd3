use super::*;

const ISSUER: &str = "issuer: \"https://login.example/\", audience: [agents], jwks: { url: \"https://login.example/keys\" }, algorithms: [ES256]";

/// Asserts that an issuer is refused, or warned about, at the mark; `ISSUER` stands for one that is sound.
#[track_caller]
fn issuer(text: &str, message: &str) {
    let text = text.replace("ISSUER", ISSUER);
    reported(&format!("{SOUND}identity: {{ jwt: [{{ {text} }}] }}\n"), &[message]);
}

#[track_caller]
fn accepted(identity: &str) {
    assert_eq!(all(&format!("{SOUND}identity: {{ {} }}\n", identity.replace("ISSUER", ISSUER))), []);
}

/// An issuer with this in the place of its keys.
#[track_caller]
fn keys(jwks: &str, message: &str) {
    issuer(&ISSUER.replace("jwks: { url: \"https://login.example/keys\" }", &format!("jwks: {jwks}")), message);
}

#[test]
fn an_issuer_is_named_once_and_has_an_audience() {
    accepted("jwt: [{ ISSUER }]");
    accepted("jwt: null, introspection: null");
    accepted("jwt: [{ ISSUER, session_claim: [sid, sub], login_time: iat, on_missing: reinit, leeway: 0s }]");
    issuer(&ISSUER.replace("\"https://login.example/\"", "‸\"\""), "this is nobody");
    let twice = format!("{ISSUER} }}, {{ {}", ISSUER.replacen('"', "‸\"", 1));
    issuer(&twice, "this issuer is there already");
    let bare = ISSUER.replace("audience: [agents], ", "").replacen('"', "‸\"", 1);
    issuer(&bare, "tokens that were meant for any other service count here too");
    issuer("ISSUER, leeway: ‸10m", "expired tokens count for more than five minutes longer");
    issuer("ISSUER, session_claim: ‸[]", "no claim has this name");
    issuer("ISSUER, claims: { ‸nobody: sub }", "the schema has no field of this name");
}

#[test]
fn keys_come_from_one_safe_place() {
    keys("‸{}", "keys come from one place");
    keys("‸{ url: \"https://a/keys\", discovery: true }", "keys come from one place");
    keys("{ file: a, ca: ‸b }", "nothing is fetched here");
    keys("{ keys: ‸[] }", "without a key no token counts");
    keys("{ url: \"https://a/keys\", refresh: ‸0s }", "a duration above zero is needed here");
    for url in [
        "http://login.example/keys",
        "ftp://a/keys",
        "https://user@a/keys",
        "https://a/k#x",
        "/keys",
        "https://",
        "http://127.0.0.1@a/",
    ] {
        keys(&format!("{{ url: ‸\"{url}\" }}"), "keys cannot come from here");
    }
    for url in ["https://a/keys", "http://localhost:9/keys?x=1", "http://127.0.0.1/keys", "http://[::1]:9/keys"] {
        accepted(&format!("jwt: [{{ {} }}]", ISSUER.replace("https://login.example/keys", url)));
    }
    let named = ISSUER.replace("https://login.example/\"", "internal\"");
    issuer(
        &named.replace("url: \"https://login.example/keys\"", "discovery: ‸true"),
        "the issuer's name is no URL to ask",
    );
}

#[test]
fn algorithms_are_named_and_never_none() {
    let with = |list: &str| ISSUER.replace("[ES256]", list);
    issuer(&with("‸[]"), "without an algorithm no token counts");
    issuer(&with("[ES256, ‸ES256]"), "this algorithm is in the list already");
    issuer(&with("[ES256, ‸HS256]"), "this algorithm needs a secret that is shared with the issuer");
    let message = "`none` is not one of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `ES512`, `EdDSA`, `Ed25519`, `HS256`, `HS384`, `HS512`";
    issuer(&with("[‸none]"), message);
    let missing = ISSUER.replace(", algorithms: [ES256]", "");
    let text = format!("{SOUND}identity: {{ jwt: [{{ {missing} }}] }}\n");
    assert!(
        all(&text).iter().any(|found| found.message.contains("the key `algorithms` is missing here")),
        "{:?}",
        all(&text)
    );
}

#[test]
fn a_shared_secret_comes_by_reference_and_is_used() {
    let with = |key: &str, algorithms: &str| {
        let keys = format!("keys: [{{ kty: oct, {key} }}]");
        ISSUER.replace("url: \"https://login.example/keys\"", &keys).replace("[ES256]", algorithms)
    };
    accepted(&format!("jwt: [{{ {} }}]", with("k: \"${env:TOKEN}\"", "[HS256]")));
    issuer(&with("k: ‸c2VjcmV0", "[HS256]"), "a secret is written out here");
    issuer(&with("k: \"${env:TOKEN}\", ‸d: AQAB", "[HS256]"), "unknown key `d`");
    let unused = with("k: \"${env:TOKEN}\"", "[ES256]").replace("keys: [", "keys: ‸[");
    issuer(&unused, "a shared secret is among the keys, and no algorithm uses it");
}

#[test]
fn whoever_is_asked_about_tokens_is_asked_in_secret() {
    const SERVER: &str =
        "url: \"https://login.example/introspect\", client_id: agents, client_secret: \"${env:TOKEN}\"";
    let server = |text: &str, message: &str| {
        reported(&format!("{SOUND}identity: {{ introspection: [{{ {text} }}] }}\n"), &[message]);
    };
    accepted(&format!("introspection: [{{ {SERVER}, cache: 10s, claims: {{ user_id: sub }} }}]"));
    server(&SERVER.replace("\"https:", "‸\"http:"), "tokens and the client's secret cannot go here");
    server(&SERVER.replace("agents", "‸\"\""), "this is nobody");
    server(&SERVER.replace("\"${env:TOKEN}\"", "‸hunter2"), "a secret is written out here");
    server(&format!("{SERVER}, cache: ‸0s"), "a duration above zero is needed here");
    server(&format!("{SERVER}, session_claim: ‸\"\""), "no claim has this name");
}

#[test]
fn a_route_goes_by_what_is_configured() {
    let route = |identity: &str| {
        format!(
            "{SESSION}identity: {{ {identity} }}\nroutes: [{{ name: a, upstream: \"http://127.0.0.1:1\", identity: [session_id, ‸jwt] }}]\n"
        )
    };
    reported(&route(""), &["no credential of this kind is configured"]);
    assert_eq!(all(&route(&format!("jwt: [{{ {ISSUER} }}]")).replace('‸', "")), []);
}
