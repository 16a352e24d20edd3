//! A JWS in the compact form (RFC 7515, section 7.1), taken apart without any trust in it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::config::Algorithm;

use super::super::CREDENTIAL_BYTES;
use super::{Flaw, json};

/// Longer than any name of a key.
const KID_BYTES: usize = 256;

/// What stands in a token; nothing of it is verified.
pub struct Compact<'t> {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    pub claims: Map<String, Value>,
    /// What the signature is of, as it came.
    pub signed: &'t [u8],
    pub signature: Vec<u8>,
}

impl<'t> Compact<'t> {
    /// Takes a token apart.
    ///
    /// Refused are: more than 16 KiB; other than three parts, so encrypted ones too; an empty part; any base64url
    /// that is not the one spelling of its bytes; a header or a payload that is no JSON object, or can be read in
    /// two ways; and a header that asks for what is not done here.
    pub fn parse(token: &'t [u8]) -> Result<Self, Flaw> {
        if token.len() > CREDENTIAL_BYTES {
            return Err(Flaw::TooLarge);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Flaw::Malformed);
        };
        let signed = token.get(..header.len() + 1 + payload.len()).ok_or(Flaw::Malformed)?;
        let header = json::object(&decoded(header)?).ok_or(Flaw::Malformed)?;
        let (algorithm, kid) = read_header(&header)?;
        let signature = decoded(signature)?;
        let claims = json::object(&decoded(payload)?).ok_or(Flaw::Malformed)?;
        Ok(Self { algorithm, kid, claims, signed, signature })
    }
}

/// The engine takes no padding, no white space, no `+` and `/`, and no bits that stand for nothing.
fn decoded(part: &[u8]) -> Result<Vec<u8>, Flaw> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Malformed)?;
    if bytes.is_empty() { Err(Flaw::Malformed) } else { Ok(bytes) }
}

/// The members that mean something here. Keys that a token brings along or points to (`jwk`, `jku`, `x5u`, `x5c`)
/// are not looked at: keys come from the configuration alone.
fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), Flaw> {
    // Extensions that must be understood, of which there are none; RFC 7797; encryption and compression.
    if ["crit", "b64", "enc", "zip"].iter().any(|name| header.contains_key(*name)) {
        return Err(Flaw::Header);
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(typ)) if is_token(typ) => {}
        Some(_) => return Err(Flaw::Header),
    }
    match header.get("cty") {
        None => {}
        Some(Value::String(cty)) if !media_type(cty).eq_ignore_ascii_case("jwt") => {}
        // A token in a token.
        Some(_) => return Err(Flaw::Header),
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if !kid.is_empty() && kid.len() <= KID_BYTES => Some(kid.clone()),
        Some(_) => return Err(Flaw::Header),
    };
    let Some(Value::String(name)) = header.get("alg") else { return Err(Flaw::Header) };
    let algorithm = Algorithm::named(name).ok_or(Flaw::Algorithm)?;
    Ok((algorithm, kid))
}

/// A token for access, and none that was made for another purpose (RFC 8725, section 3.11).
fn is_token(typ: &str) -> bool {
    let typ = media_type(typ);
    typ.eq_ignore_ascii_case("jwt") || typ.eq_ignore_ascii_case("at+jwt")
}

/// Without `application/`, which may be left out (RFC 7515, section 4.1.9).
fn media_type(name: &str) -> &str {
    const PREFIX: &str = "application/";
    match name.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", encode(header), encode(payload), encode("signature"))
    }

    fn flaw(token: &str) -> Option<Flaw> {
        Compact::parse(token.as_bytes()).err()
    }

    #[test]
    fn a_plain_token_is_taken_apart() {
        let token = token(r#"{"alg":"ES256","kid":"k1","typ":"application/AT+JWT"}"#, r#"{"sub":"u"}"#);
        let compact = Compact::parse(token.as_bytes()).unwrap();
        assert_eq!((compact.algorithm, compact.kid.as_deref()), (Algorithm::ES256, Some("k1")));
        assert_eq!((compact.claims["sub"].as_str(), &*compact.signature), (Some("u"), &b"signature"[..]));
        assert_eq!(compact.signed, token.rsplit_once('.').unwrap().0.as_bytes());
    }

    #[test]
    fn a_header_that_asks_for_more_is_refused() {
        for header in [
            r#"{"alg":"ES256","crit":["exp"],"exp":1}"#,
            r#"{"alg":"ES256","crit":[]}"#,
            r#"{"alg":"ES256","b64":false,"crit":["b64"]}"#,
            r#"{"alg":"ES256","b64":false}"#,
            r#"{"alg":"ES256","zip":"DEF"}"#,
            r#"{"alg":"ES256","enc":"A256GCM"}"#,
            r#"{"alg":"ES256","typ":"dpop+jwt"}"#,
            r#"{"alg":"ES256","typ":"logout+jwt"}"#,
            r#"{"alg":"ES256","typ":1}"#,
            r#"{"alg":"ES256","cty":"JWT"}"#,
            r#"{"alg":"ES256","cty":"application/jwt"}"#,
            r#"{"alg":"ES256","kid":1}"#,
            r#"{"alg":"ES256","kid":""}"#,
            r#"{"alg":"ES256","kid":null}"#,
            r#"{"alg":1}"#,
            r#"{"alg":["ES256"]}"#,
            "{}",
        ] {
            assert_eq!(flaw(&token(header, "{}")), Some(Flaw::Header), "{header}");
        }
        let long = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(KID_BYTES + 1));
        assert_eq!(flaw(&token(&long, "{}")), Some(Flaw::Header));
    }

    #[test]
    fn no_algorithm_has_two_spellings() {
        for name in ["none", "None", "NONE", "nOnE", "", " none", "es256", "ES256 ", "HS1", "RSA-OAEP", "ES256K"] {
            let token = token(&format!(r#"{{"alg":"{name}"}}"#), "{}");
            assert_eq!(flaw(&token), Some(Flaw::Algorithm), "{name:?}");
        }
    }

    #[test]
    fn bytes_have_one_spelling() {
        let sound = token(r#"{"alg":"ES256"}"#, r#"{"a":"??>"}"#);
        assert_eq!(flaw(&sound), None);
        let parts: Vec<&str> = sound.split('.').collect();
        let (header, payload, signature) = (parts[0], parts[1], parts[2]);
        for spelt in [
            format!("{header}=.{payload}.{signature}"),
            format!("{header}.{payload}==.{signature}"),
            format!("{header}.{payload}.{signature}="),
            format!(" {header}.{payload}.{signature}"),
            format!("{header}.{payload}.{signature}\n"),
            format!("{header}.{}.{signature}", payload.replace('_', "/").replace('-', "+") + "+"),
            // The last character's idle bits, set.
            format!("{header}.{payload}.{}", signature.strip_suffix('U').map(|s| format!("{s}V")).unwrap_or_default()),
            format!("{header}.{payload}"),
            format!("{header}.{payload}."),
            format!("{header}..{signature}"),
            format!(".{payload}.{signature}"),
            format!("{header}.{payload}.{signature}.{signature}.{signature}"),
            "..".into(),
            String::new(),
            r#"{"payload":"e30","signatures":[]}"#.into(),
        ] {
            assert_eq!(flaw(&spelt), Some(Flaw::Malformed), "{spelt}");
        }
    }

    #[test]
    fn a_huge_token_is_not_looked_at() {
        let long = format!("{}.e30.e30", "A".repeat(CREDENTIAL_BYTES));
        assert_eq!(flaw(&long), Some(Flaw::TooLarge));
    }

    proptest::proptest! {
        /// Whatever comes, there is an answer.
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Compact::parse(&bytes);
        }

        #[test]
        fn never_panics_on_what_looks_like_one(header in ".{0,40}", payload in ".{0,40}", tail in "[A-Za-z0-9._=-]{0,20}") {
            let _ = Compact::parse(format!("{}{tail}", token(&header, &payload)).as_bytes());
        }
    }
}
