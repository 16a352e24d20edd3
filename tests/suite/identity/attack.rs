//! Tokens that attackers make: every one is refused, in little time, and the store is not asked.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value as Json, json};

use super::login::{Login, changed};
use crate::house::{Fault, House, Signer};

/// However a token is made, this is more than its refusal takes.
const LITTLE: Duration = Duration::from_secs(2);

struct Attack {
    login: Login,
    house: House,
}

impl Attack {
    fn new() -> Self {
        let login = Login::new();
        let house = login.open();
        // What the attacks differ from does pass.
        house.verified(&login.token());
        // Whoever asks the store now gets 503.
        house.faults.set(Fault::Down);
        Self { login, house }
    }

    #[track_caller]
    fn refused(&self, case: &str, token: &str) {
        let began = Instant::now();
        let reply = self.house.with_token("/chat", token).send();
        let told = reply.json();
        assert_eq!(
            (reply.status, told["type"].as_str()),
            (401, Some("urn:cloakroom:problem:credential-invalid")),
            "{case}"
        );
        assert!(began.elapsed() < LITTLE, "{case} took {:?}", began.elapsed());
    }

    /// A sound signature of a token with this header.
    fn header(&self, case: &str, header: Json) {
        let payload = self.login.claims().to_string();
        self.refused(case, &self.login.ec.token_with(&header.to_string(), &payload));
    }

    /// A sound signature of a token with these claims.
    fn says(&self, case: &str, changes: Json) {
        self.refused(case, &self.login.token_saying(changes));
    }

    /// No token but these bytes, in place of the payload, soundly signed.
    fn payload(&self, case: &str, payload: &str) {
        self.refused(case, &self.login.ec.token_with(&self.login.ec.header().to_string(), payload));
    }

    fn end(self) {
        self.house.faults.set(Fault::None);
        self.house.verified(&self.login.token());
        self.house.close();
    }
}

fn encoded(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

#[test]
fn no_algorithm_is_none() {
    let attack = Attack::new();
    let payload = encoded(attack.login.claims().to_string());
    for name in ["none", "None", "NONE", "nOnE", "noNe", "none ", " none", "", "null", "n\\u006fne"] {
        let header = encoded(format!(r#"{{"alg":"{name}","typ":"JWT"}}"#));
        attack.refused(name, &format!("{header}.{payload}."));
        attack.refused(name, &format!("{header}.{payload}"));
        let (_, signature) = attack.login.token().rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        attack.refused(name, &format!("{header}.{payload}.{signature}"));
        attack.refused(name, &format!("{header}.{payload}.e30"));
    }
    for header in [r#"{"typ":"JWT"}"#, r#"{"alg":null}"#, r#"{"alg":[]}"#, r#"{"alg":{}}"#, r#"{"alg":false}"#, "{}"] {
        attack.refused(header, &format!("{}.{payload}.e30", encoded(header)));
        attack.refused(header, &attack.login.ec.token_with(header, &attack.login.claims().to_string()));
    }
    attack.end();
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let attack = Attack::new();
    let Login { rsa, ec, ed, .. } = &attack.login;
    for key in [rsa, ec, ed] {
        let jwk = key.jwk();
        let member = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap_or_default()).unwrap();
        let der = if jwk["kty"] == "RSA" { rsa_der(&member("n"), &member("e")) } else { member("x") };
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", wrapped(&STANDARD.encode(&der)));
        for secret in
            [der.clone(), pem.clone().into_bytes(), pem.trim_end().into(), jwk.to_string().into(), member("n")]
        {
            for alg in ["HS256", "HS384", "HS512"] {
                let forged = Signer::shared(alg, key.kid.as_deref(), &secret);
                attack.refused(alg, &forged.token(&attack.login.claims()));
            }
        }
    }
    attack.end();
}

#[test]
fn a_key_is_for_no_other_algorithm_than_its_own() {
    let attack = Attack::new();
    let Login { rsa, ec, ed, .. } = &attack.login;
    let payload = attack.login.claims().to_string();
    for key in [rsa, ec, ed] {
        for alg in [
            "RS256", "RS384", "RS512", "PS256", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA", "HS256",
            "RSA-OAEP", "dir", "A128KW",
        ] {
            if alg != key.alg {
                let header = json!({ "alg": alg, "kid": key.kid });
                attack.refused(alg, &key.token_with(&header.to_string(), &payload));
            }
        }
    }
    // A sound signature by an algorithm that the issuer does not use.
    attack.refused("ES384", &Signer::new("ES384", "ec-1").token(&attack.login.claims()));
    attack.end();
}

#[test]
fn a_token_brings_no_key_of_its_own() {
    let attack = Attack::new();
    let thief = Signer::new("ES256", "ec-1");
    let own = crate::house::Issuer::open();
    own.publishes(&[&thief]);
    let url = own.url("/keys");
    let claims = attack.login.claims().to_string();
    let certificate = STANDARD.encode(b"a certificate");
    for (case, extra) in [
        ("jwk", json!({ "jwk": thief.jwk() })),
        ("jku", json!({ "jku": url })),
        ("x5u", json!({ "x5u": url })),
        ("x5c", json!({ "x5c": [certificate] })),
        ("jku of ours and more", json!({ "jku": format!("{}@{}", attack.login.name(), url) })),
        ("all", json!({ "jwk": thief.jwk(), "jku": url, "x5u": url, "x5c": [certificate], "x5t": "AAAA" })),
    ] {
        for kid in [json!("ec-1"), json!("thief"), Json::Null] {
            let header = changed(json!({ "alg": "ES256", "typ": "JWT", "kid": kid }), extra.clone());
            attack.refused(case, &thief.token_with(&header.to_string(), &claims));
            let header = changed(header, json!({ "kid": null }));
            attack.refused(case, &thief.token_with(&header.to_string(), &claims));
        }
    }
    assert_eq!(own.times_asked("/keys"), 0, "nobody asks where a token says");
    attack.end();
}

#[test]
fn a_keys_name_is_a_name_and_nothing_else() {
    let attack = Attack::new();
    let thief = Signer::new("ES256", "x");
    let long = "k".repeat(10_000);
    for kid in [
        "../../../../../../dev/null",
        "..\\..\\..\\windows\\win.ini",
        "/proc/sys/kernel/randomize_va_space",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "x' UNION SELECT 'AA'; --",
        "\"; DROP TABLE keys; --",
        "| sleep 10",
        "$(sleep 10)",
        "${jndi:ldap://x/y}",
        "ec-1\u{0}",
        "ec-1 ",
        "EC-1",
        "\r\nx-injected: 1",
        "*",
        &long,
    ] {
        let header = json!({ "alg": "ES256", "kid": kid });
        attack.refused(kid, &thief.token_with(&header.to_string(), &attack.login.claims().to_string()));
    }
    for kid in [json!(1), json!(null), json!(["ec-1"]), json!({ "ec-1": 1 }), json!(true), json!("")] {
        attack.header(&kid.to_string(), json!({ "alg": "ES256", "kid": kid }));
    }
    assert!(attack.login.issuer.times_asked("/keys") <= 2, "one fetch for all of them, beside the first");
    attack.end();
}

#[test]
fn a_weak_signature_is_none() {
    let attack = Attack::new();
    let Login { rsa, ec, ed, .. } = &attack.login;
    for key in [rsa, ec, ed] {
        let token = key.token(&attack.login.claims());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let whole = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let with = |case: &str, bytes: &[u8]| attack.refused(case, &format!("{signed}.{}", encoded(bytes)));
        with("zeros: the psychic signature", &vec![0; whole.len()]);
        with("ones", &vec![0xff; whole.len()]);
        with("one zero byte", &[0]);
        with("truncated", &whole[..whole.len() - 1]);
        with("half", &whole[..whole.len() / 2]);
        with("longer", &[&whole[..], &[0]].concat());
        with("led by a zero", &[&[0], &whole[..]].concat());
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut bent = whole.clone();
            bent[at] ^= 1;
            with("a bit flipped", &bent);
        }
        attack.refused("empty", &format!("{signed}."));
        attack.refused("of something else", &format!("{}x.{signature}", &signed[..signed.len() - 1]));
        let other = key.token(&changed(attack.login.claims(), json!({ "sub": "admin" })));
        let (other, _) = other.rsplit_once('.').unwrap();
        attack.refused("of another token", &format!("{other}.{signature}"));
    }
    // r or s alone zero, r = s = n, and DER where JOSE has none.
    let token = ec.token(&attack.login.claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let whole = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let order: Vec<u8> = (0..32)
        .map(|at| {
            u8::from_str_radix(
                &"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"[at * 2..at * 2 + 2],
                16,
            )
            .unwrap()
        })
        .collect();
    for (case, bytes) in [
        ("r = 0", [&[0; 32][..], &whole[32..]].concat()),
        ("s = 0", [&whole[..32], &[0; 32]].concat()),
        ("r = s = n", [&order[..], &order[..]].concat()),
        ("r = s = 1", [&[&[0; 31][..], &[1]].concat()[..], &[&[0; 31][..], &[1]].concat()[..]].concat()),
        ("DER", [&[0x30, 68, 2, 32][..], &whole[..32], &[2, 32], &whole[32..]].concat()),
    ] {
        attack.refused(case, &format!("{signed}.{}", encoded(bytes)));
    }
    attack.end();
}

#[test]
fn a_member_that_stands_twice_is_no_member() {
    let attack = Attack::new();
    let claims = attack.login.claims().to_string();
    let inner = claims.trim_start_matches('{').trim_end_matches('}');
    for payload in [
        format!(r#"{{{inner},"sub":"admin"}}"#),
        format!(r#"{{"sub":"admin",{inner}}}"#),
        format!(r#"{{{inner},"exp":9999999999}}"#),
        format!(r#"{{{inner},"\u0073ub":"admin"}}"#),
        format!(r#"{{{inner},"x":{{"a":1,"a":2}}}}"#),
    ] {
        attack.payload(&payload, &payload);
    }
    for header in [
        r#"{"alg":"ES256","alg":"none","kid":"ec-1"}"#,
        r#"{"alg":"none","alg":"ES256","kid":"ec-1"}"#,
        r#"{"alg":"ES256","kid":"ec-1","kid":"rsa-1"}"#,
        r#"{"alg":"ES256","\u0061lg":"none","kid":"ec-1"}"#,
    ] {
        attack.refused(header, &attack.login.ec.token_with(header, &claims));
    }
    attack.end();
}

#[test]
fn claims_have_their_types() {
    let attack = Attack::new();
    for name in ["iss", "sub", "exp", "iat", "nbf", "jti", "aud", "sid", "auth_time"] {
        for value in [json!(true), json!({}), json!({ "a": 1 }), json!([[]]), json!([1]), json!("")] {
            attack.says(&format!("{name}: {value}"), json!({ name: value }));
        }
        // Not by way of json!, where null takes a claim away.
        let mut claims = attack.login.claims();
        claims[name] = Json::Null;
        attack.payload(name, &claims.to_string());
    }
    for name in ["iss", "sub", "jti", "sid", "aud"] {
        attack.says(name, json!({ name: 5 }));
    }
    for name in ["exp", "iat", "nbf", "auth_time"] {
        attack.says(name, json!({ name: "1795422302" }));
    }
    for name in ["iss", "sub", "exp", "iat", "aud"] {
        attack.says(name, json!({ name: null }));
    }
    attack.end();
}

#[test]
fn who_it_is_from_and_for_is_read_to_the_letter() {
    let attack = Attack::new();
    let name = attack.login.name();
    for issuer in [
        format!("{name}/"),
        name.to_uppercase(),
        format!(" {name}"),
        format!("{name}#x"),
        format!("{name}\u{0}"),
        "https://evil.example".into(),
        "".into(),
    ] {
        attack.says(&issuer, json!({ "iss": issuer }));
    }
    attack.says("a list", json!({ "iss": [name] }));
    for audience in [
        json!("Agents"),
        json!("agents "),
        json!("agent"),
        json!("agents,other"),
        json!([]),
        json!(["other"]),
        json!(["agents", 5]),
        json!(["agents", null]),
        json!("*"),
    ] {
        attack.says(&audience.to_string(), json!({ "aud": audience }));
    }
    attack.end();
}

#[test]
fn times_are_whole_seconds_of_this_age() {
    let attack = Attack::new();
    let now = crate::house::BEGIN.seconds();
    for exp in [
        json!(now - 31),
        json!(0),
        json!(-1),
        json!(now as f64 + 600.5),
        json!(1e10),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(253_402_300_800_u64),
        json!((now + 600) * 1000),
        json!(now + 100 * 365 * 86_400),
    ] {
        attack.says(&format!("exp {exp}"), json!({ "exp": exp }));
    }
    for iat in [
        json!(now + 31),
        json!(now + 601),
        json!(-1),
        json!(now as f64 - 0.5),
        json!(u64::MAX),
        json!(now * 1000),
        json!(0),
        json!(now - 31 * 86_400),
    ] {
        attack.says(&format!("iat {iat}"), json!({ "iat": iat }));
    }
    for nbf in [json!(now + 31), json!(-1), json!(now as f64 + 0.5), json!(u64::MAX), json!(now * 1000)] {
        attack.says(&format!("nbf {nbf}"), json!({ "nbf": nbf }));
    }
    let claims = attack.login.claims().to_string();
    for huge in [
        "1e400",
        "-1e400",
        "99999999999999999999999999999999999999",
        "0x7fffffff",
        "1795422302L",
        "+1795422302",
        "Infinity",
        "NaN",
    ] {
        attack.payload(huge, &claims.replace(&format!("\"exp\":{}", now + 600), &format!("\"exp\":{huge}")));
    }
    attack.end();
}

#[test]
fn size_and_depth_are_bounded() {
    let attack = Attack::new();
    let claims = |more: &str| {
        let claims = attack.login.claims().to_string();
        format!("{},\"x\":{more}}}", claims.trim_end_matches('}'))
    };
    attack.payload("20 KiB", &claims(&format!("\"{}\"", "x".repeat(20 << 10))));
    attack.payload("deep lists", &claims(&format!("{}{}", "[".repeat(3000), "]".repeat(3000))));
    attack.payload("deep objects", &claims(&format!("{}1{}", "{\"a\":".repeat(1500), "}".repeat(1500))));
    attack.payload("deep, never closed", &claims(&"[".repeat(6000)));
    let header = format!(r#"{{"alg":"ES256","kid":"ec-1","x":{}{}}}"#, "[".repeat(2000), "]".repeat(2000));
    attack.refused("a deep header", &attack.login.ec.token_with(&header, &attack.login.claims().to_string()));
    attack.refused("dots", &".".repeat(16_000));
    attack.refused("letters", &format!("eyJ{}", "A".repeat(16_000)));
    attack.refused("parts", &"a.".repeat(8_000));
    attack.refused("over 16 KiB", &format!("eyJ{}.a.b", "A".repeat(16 << 10)));
    attack.end();
}

#[test]
fn base64url_has_one_spelling() {
    let attack = Attack::new();
    // A payload with characters that the two alphabets differ in, at every length.
    for filler in ["", "?", "??", "???>"] {
        let token = attack.login.token_saying(json!({ "x": format!("{filler}>>>???ÿÿ") }));
        let parts: Vec<&str> = token.split('.').collect();
        let (header, payload, signature) = (parts[0], parts[1], parts[2]);
        for (case, spelt) in [
            ("padded header", format!("{header}=.{payload}.{signature}")),
            ("padded payload", format!("{header}.{payload}=.{signature}")),
            ("padded twice", format!("{header}.{payload}==.{signature}")),
            ("padded signature", format!("{header}.{payload}.{signature}==")),
            ("a blank", format!("{header}.{payload}. {signature}")),
            ("a tab", format!("{header}\t.{payload}.{signature}")),
            ("a star", format!("{header}.{payload}*.{signature}")),
            ("percent", format!("{header}%2E{payload}.{signature}.")),
            ("quoted", format!("\"{header}.{payload}.{signature}\"")),
            ("idle bits", format!("{header}.{payload}.{}", with_idle_bits(signature))),
            ("a sixth bit alone", format!("{header}.{payload}.{signature}AAA")),
        ] {
            attack.refused(case, &spelt);
        }
        let plain = STANDARD.encode(URL_SAFE_NO_PAD.decode(payload).unwrap());
        if plain.trim_end_matches('=') != payload {
            attack.refused("the other alphabet", &format!("{header}.{}.{signature}", plain.trim_end_matches('=')));
        }
        // Soundly signed as it is spelt.
        for spelt in [URL_SAFE.encode(URL_SAFE_NO_PAD.decode(payload).unwrap()), plain, format!("{payload}\t")] {
            if spelt != payload {
                let signed = format!("{header}.{spelt}");
                attack.refused("signed", &format!("{signed}.{}", encoded(attack.login.ec.sign(signed.as_bytes()))));
            }
        }
    }
    attack.end();
}

#[test]
fn what_is_no_plain_token_is_refused() {
    let attack = Attack::new();
    let ec = &attack.login.ec;
    let inner = attack.login.token();
    let claims = attack.login.claims().to_string();
    attack.refused("nested, by its type", &ec.token_with(r#"{"alg":"ES256","kid":"ec-1","cty":"JWT"}"#, &inner));
    attack.refused("nested, untold", &ec.token_with(r#"{"alg":"ES256","kid":"ec-1"}"#, &inner));
    attack.refused("nested, as text", &ec.token_with(r#"{"alg":"ES256","kid":"ec-1"}"#, &format!("\"{inner}\"")));
    attack.refused(
        "nested, lower case",
        &ec.token_with(r#"{"alg":"ES256","kid":"ec-1","cty":"application/jwt"}"#, &claims),
    );
    let jwe = encoded(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
    attack.refused("JWE", &format!("{jwe}.OKOawDo13gRp.48V1_ALb6US04U3b.5eym8TW_c8SuK0lt.XFBoMYUZodetZdvT"));
    attack.refused(
        "JWE, dir",
        &format!("{}..48V1_ALb6US04U3b.5eym8TW_c8SuK0lt.XFBoMYUZ", encoded(r#"{"alg":"dir","enc":"A256GCM"}"#)),
    );
    attack.refused("a header of JWE", &ec.token_with(r#"{"alg":"ES256","kid":"ec-1","enc":"A256GCM"}"#, &claims));
    let parts: Vec<&str> = inner.split('.').collect();
    let json = json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] }).to_string();
    attack.refused("JSON, flat", &format!("eyJ{}..", encoded(&json)));
    attack.refused("unencoded", &ec.token_with(r#"{"alg":"ES256","kid":"ec-1","b64":false,"crit":["b64"]}"#, &claims));
    let header = encoded(r#"{"alg":"ES256","kid":"ec-1","b64":false,"crit":["b64"]}"#);
    let signed = format!("{header}.plain");
    attack.refused("unencoded, so signed", &format!("{signed}.{}", encoded(ec.sign(signed.as_bytes()))));
    attack.refused("b64 alone", &ec.token_with(r#"{"alg":"ES256","kid":"ec-1","b64":false}"#, &claims));
    for crit in [json!(["exp"]), json!(["x"]), json!([]), json!("x"), json!(null), json!(["alg"]), json!([1])] {
        attack.header(&crit.to_string(), json!({ "alg": "ES256", "kid": "ec-1", "crit": crit, "x": 1 }));
    }
    attack.header("compressed", json!({ "alg": "ES256", "kid": "ec-1", "zip": "DEF" }));
    for typ in ["dpop+jwt", "logout+jwt", "secevent+jwt", "JWE", "JOSE+JSON", "", "application/", "at+jwt+jwt"] {
        attack.header(typ, json!({ "alg": "ES256", "kid": "ec-1", "typ": typ }));
    }
    for payload in ["", "[]", "null", "1", "\"x\"", "{", "{}", "\u{feff}{}", "{}{}", "<xml/>"] {
        attack.payload(payload, payload);
    }
    attack.refused("binary", &ec.token_with("\u{0}\u{1}\u{2}", &claims));
    attack.refused("four parts", &format!("{inner}.e30"));
    attack.refused("two parts", inner.rsplit_once('.').unwrap().0);
    attack.end();
}

#[test]
fn two_tokens_in_one_line_are_none() {
    let attack = Attack::new();
    let token = attack.login.token();
    attack.refused("a list", &format!("{token},{token}"));
    attack.refused("two schemes", &format!("{token}, Bearer {token}"));
    attack.refused("two words", &format!("{token} {token}"));
    attack.end();
}

fn wrapped(text: &str) -> String {
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join("\n")
}

/// A `SubjectPublicKeyInfo` of an RSA key.
fn rsa_der(n: &[u8], e: &[u8]) -> Vec<u8> {
    let long = |tag: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, body].concat()
    };
    let key = long(0x30, &[long(2, &[&[0], n].concat()), long(2, e)].concat());
    let algorithm = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    long(0x30, &[&algorithm[..], &long(3, &[&[0], &key[..]].concat())].concat())
}

/// The same bytes to a lenient reader.
fn with_idle_bits(text: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = text.chars().last().unwrap();
    let at = ALPHABET.find(last).unwrap();
    format!("{}{}", &text[..text.len() - 1], &ALPHABET[at + 1..at + 2])
}
