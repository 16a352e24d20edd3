//! Keys that signatures are checked against: each for the algorithms of its own kind alone.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::signature::{self as scheme, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::config::{Algorithm, InlineKey};

/// Weaker ones are broken, and larger ones would be slow to check.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key as a key set has it (RFC 7517); other members are not looked at.
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Why a key is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFlaw {
    #[error("its type is not one of RSA, EC, OKP and oct")]
    Type,
    #[error("its curve is not supported")]
    Curve,
    #[error("its `alg` is no signature algorithm of its type")]
    Algorithm,
    #[error("it is not for verifying signatures")]
    Usage,
    #[error("a member is missing or is not base64url")]
    Member,
    #[error("an RSA key has 2048 to 8192 bits")]
    Size,
    #[error("a shared secret has at least as many bytes as its hash: 32, 48 or 64")]
    Short,
    #[error("the key itself is not sound")]
    Unsound,
}

/// A key, and whether it still is one of its issuer's.
pub struct Key {
    pub kid: Option<Box<str>>,
    checks: Vec<(Algorithm, Check)>,
    /// Of all that it is, so that a key which comes again is known.
    print: [u8; 32],
    retired: AtomicBool,
}

enum Check {
    Public(ParsedPublicKey),
    Shared(Box<hmac::Key>),
}

impl Key {
    /// Reads a public key.
    ///
    /// # Errors
    /// Says why the key is of no use: a shared secret, for one, never comes out of a published set.
    pub(super) fn public(jwk: &Jwk) -> Result<Self, KeyFlaw> {
        let verifies = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") || !verifies {
            return Err(KeyFlaw::Usage);
        }
        let own = jwk.alg.as_deref();
        let counts = |algorithm: &Algorithm| own.is_none_or(|name| name == algorithm.name());
        let kinds: Vec<Algorithm> = public_kinds(jwk)?.iter().copied().filter(counts).collect();
        if kinds.is_empty() {
            return Err(KeyFlaw::Algorithm);
        }
        let material = Material::of(jwk)?;
        let checks = kinds.iter().map(|kind| Ok((*kind, Check::Public(material.parsed(*kind)?))));
        let print = print(jwk.kid.as_deref(), &kinds, &material.bytes());
        Ok(Self::new(jwk.kid.as_deref(), checks.collect::<Result<_, KeyFlaw>>()?, print))
    }

    /// Reads a key out of the configuration, which alone may hold shared secrets.
    pub fn inline(raw: &InlineKey) -> Result<Self, KeyFlaw> {
        if raw.kty != "oct" {
            return Self::public(&raw.into());
        }
        let secret = raw.k.as_ref().ok_or(KeyFlaw::Member)?;
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret.reveal()).map_err(|_| KeyFlaw::Member)?);
        let own = raw.alg.as_deref();
        let kinds = [
            (Algorithm::HS256, hmac::HMAC_SHA256, 32),
            (Algorithm::HS384, hmac::HMAC_SHA384, 48),
            (Algorithm::HS512, hmac::HMAC_SHA512, 64),
        ];
        let mut kinds = kinds.into_iter().filter(|(kind, ..)| own.is_none_or(|name| name == kind.name())).peekable();
        kinds.peek().ok_or(KeyFlaw::Algorithm)?;
        let long_enough = kinds.filter(|(.., least)| secret.len() >= *least);
        let checks: Vec<_> =
            long_enough.map(|(kind, hash, _)| (kind, Check::Shared(Box::new(hmac::Key::new(hash, &secret))))).collect();
        if checks.is_empty() {
            return Err(KeyFlaw::Short);
        }
        let names: Vec<Algorithm> = checks.iter().map(|(kind, _)| *kind).collect();
        let print = print(raw.kid.as_deref(), &names, &secret);
        Ok(Self::new(raw.kid.as_deref(), checks, print))
    }

    fn new(kid: Option<&str>, checks: Vec<(Algorithm, Check)>, print: [u8; 32]) -> Self {
        Self { kid: kid.map(Into::into), checks, print, retired: AtomicBool::new(false) }
    }

    /// Whether tokens may be signed with it by this algorithm.
    pub fn takes(&self, algorithm: Algorithm) -> bool {
        self.check(algorithm).is_some()
    }

    /// Whether this is the key's signature of these bytes, by this algorithm.
    pub fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        match self.check(algorithm) {
            Some(Check::Public(key)) => key.verify_sig(signed, signature).is_ok(),
            Some(Check::Shared(key)) => hmac::verify(key, signed, signature).is_ok(),
            None => false,
        }
    }

    fn check(&self, algorithm: Algorithm) -> Option<&Check> {
        self.checks.iter().find(|(kind, _)| *kind == algorithm).map(|(_, check)| check)
    }

    pub fn is_same_as(&self, other: &Self) -> bool {
        self.print == other.print
    }

    /// Takes the key out of use: what was verified with it counts no more.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The algorithms that a key of this type and curve can be for.
fn public_kinds(jwk: &Jwk) -> Result<&'static [Algorithm], KeyFlaw> {
    use Algorithm::{ES256, ES384, ES512, Ed25519, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match (&*jwk.kty, jwk.crv.as_deref()) {
        ("RSA", _) => Ok(&[RS256, RS384, RS512, PS256, PS384, PS512]),
        ("EC", Some("P-256")) => Ok(&[ES256]),
        ("EC", Some("P-384")) => Ok(&[ES384]),
        ("EC", Some("P-521")) => Ok(&[ES512]),
        // Two names for the same thing here, the older of which is for other curves too.
        ("OKP", Some("Ed25519")) => Ok(&[EdDSA, Ed25519]),
        ("EC" | "OKP", _) => Err(KeyFlaw::Curve),
        _ => Err(KeyFlaw::Type),
    }
}

enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point, or an Edwards one.
    Point(Vec<u8>),
}

impl Material {
    fn of(jwk: &Jwk) -> Result<Self, KeyFlaw> {
        let bytes = |member: &Option<String>| {
            let text = member.as_deref().ok_or(KeyFlaw::Member)?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyFlaw::Member)
        };
        match &*jwk.kty {
            "RSA" => {
                let (n, e) = (without_zeros(bytes(&jwk.n)?), without_zeros(bytes(&jwk.e)?));
                let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
                if RSA_BITS.contains(&bits) { Ok(Self::Rsa { n, e }) } else { Err(KeyFlaw::Size) }
            }
            "EC" => {
                let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
                // Unequal halves could be told apart in two ways.
                let whole = x.len() == y.len();
                if whole { Ok(Self::Point([&[4], &*x, &*y].concat())) } else { Err(KeyFlaw::Member) }
            }
            _ => Ok(Self::Point(bytes(&jwk.x)?)),
        }
    }

    fn parsed(&self, algorithm: Algorithm) -> Result<ParsedPublicKey, KeyFlaw> {
        use Algorithm::{ES256, ES384, ES512, Ed25519, EdDSA};
        let parsed = match (self, algorithm) {
            (Self::Rsa { n, e }, _) => {
                RsaPublicKeyComponents { n, e }.to_parsed_public_key(rsa(algorithm).ok_or(KeyFlaw::Algorithm)?)
            }
            (Self::Point(point), ES256) => ParsedPublicKey::new(&scheme::ECDSA_P256_SHA256_FIXED, point),
            (Self::Point(point), ES384) => ParsedPublicKey::new(&scheme::ECDSA_P384_SHA384_FIXED, point),
            (Self::Point(point), ES512) => ParsedPublicKey::new(&scheme::ECDSA_P521_SHA512_FIXED, point),
            (Self::Point(point), EdDSA | Ed25519) => ParsedPublicKey::new(&scheme::ED25519, point),
            _ => return Err(KeyFlaw::Algorithm),
        };
        parsed.map_err(|_| KeyFlaw::Unsound)
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Rsa { n, e } => [&**n, &[0], &**e].concat(),
            Self::Point(point) => point.clone(),
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &scheme::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &scheme::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &scheme::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &scheme::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &scheme::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &scheme::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// Some issuers write the sign byte of DER along.
fn without_zeros(mut bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    bytes
}

fn print(kid: Option<&str>, kinds: &[Algorithm], material: &[u8]) -> [u8; 32] {
    let mut all = digest::Context::new(&digest::SHA256);
    for part in [kid.unwrap_or_default().as_bytes(), format!("{kinds:?}").as_bytes(), material] {
        all.update(&part.len().to_be_bytes());
        all.update(part);
    }
    let mut print = [0; 32];
    print.copy_from_slice(all.finish().as_ref());
    print
}

impl From<&InlineKey> for Jwk {
    fn from(raw: &InlineKey) -> Self {
        let raw = raw.clone();
        Self {
            kty: raw.kty,
            kid: raw.kid,
            alg: raw.alg,
            usage: raw.usage,
            key_ops: raw.key_ops,
            crv: raw.crv,
            n: raw.n,
            e: raw.e,
            x: raw.x,
            y: raw.y,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwk(text: &str) -> Result<Key, KeyFlaw> {
        Key::public(&serde_json::from_str(text).unwrap())
    }

    /// RFC 7515, appendix A.3.
    const EC: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    #[test]
    fn a_key_is_for_the_algorithms_of_its_kind() {
        let key = jwk(&format!("{{{EC}}}")).unwrap();
        assert!(key.takes(Algorithm::ES256) && !key.takes(Algorithm::ES384) && !key.takes(Algorithm::HS256));
        assert_eq!(jwk(&format!(r#"{{{EC},"alg":"ES384"}}"#)).err(), Some(KeyFlaw::Algorithm));
        assert_eq!(jwk(&format!(r#"{{{EC},"alg":"HS256"}}"#)).err(), Some(KeyFlaw::Algorithm));
        assert_eq!(jwk(&format!(r#"{{{EC},"use":"enc"}}"#)).err(), Some(KeyFlaw::Usage));
        assert_eq!(jwk(&format!(r#"{{{EC},"key_ops":["sign"]}}"#)).err(), Some(KeyFlaw::Usage));
        assert!(jwk(&format!(r#"{{{EC},"use":"sig","key_ops":["verify"],"x5c":["MII"]}}"#)).is_ok());
    }

    /// RFC 7515, appendix A.3: an independent implementation's signature.
    #[test]
    fn the_signature_of_the_rfc_is_verified() {
        let signed = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = URL_SAFE_NO_PAD
            .decode("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")
            .unwrap();
        let key = jwk(&format!("{{{EC}}}")).unwrap();
        assert!(key.verifies(Algorithm::ES256, signed.as_bytes(), &signature));
        assert!(!key.verifies(Algorithm::ES256, &signed.as_bytes()[1..], &signature));
        assert!(!key.verifies(Algorithm::ES256, signed.as_bytes(), &[0; 64]));
        assert!(!key.verifies(Algorithm::ES256, signed.as_bytes(), &[]));
    }

    #[test]
    fn what_is_no_sound_public_key_is_refused() {
        for (text, flaw) in [
            (r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMko"}"#, KeyFlaw::Type),
            (r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#, KeyFlaw::Curve),
            (r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#, KeyFlaw::Curve),
            (r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#, KeyFlaw::Unsound),
            (r#"{"kty":"EC","crv":"P-256","x":"AA"}"#, KeyFlaw::Member),
            (r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#, KeyFlaw::Size),
            (r#"{"kty":"RSA","n":"","e":""}"#, KeyFlaw::Size),
        ] {
            assert_eq!(jwk(text).err(), Some(flaw), "{text}");
        }
        let off_the_curve = EC.replace("x_FE", "y_FE");
        assert_eq!(jwk(&format!("{{{off_the_curve}}}")).err(), Some(KeyFlaw::Unsound));
    }

    #[test]
    fn a_shared_secret_is_as_long_as_its_hash() {
        let secret = |bytes: usize, alg: Option<&str>| InlineKey {
            kty: "oct".into(),
            alg: alg.map(Into::into),
            k: Some(crate::secret::Secret::new(URL_SAFE_NO_PAD.encode(vec![7; bytes]))),
            ..InlineKey::default()
        };
        assert_eq!(Key::inline(&secret(31, None)).err(), Some(KeyFlaw::Short));
        let key = Key::inline(&secret(48, None)).unwrap();
        assert!(key.takes(Algorithm::HS384) && !key.takes(Algorithm::HS512));
        assert_eq!(Key::inline(&secret(48, Some("HS512"))).err(), Some(KeyFlaw::Short));
        assert_eq!(Key::inline(&secret(48, Some("RS256"))).err(), Some(KeyFlaw::Algorithm));
    }
}
