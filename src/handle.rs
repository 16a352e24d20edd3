//! The names that things go by: session ids and handles, births, commit ids, field handles.

use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// The system's source of randomness failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's source of randomness failed")]
pub struct NoEntropy;

pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(bytes)
}

/// Reads base64url without padding that stands for exactly `N` bytes, at most 64.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    // Larger than any name here, so that decoding needs no allocation and a secret leaves no copy on the heap.
    let mut buffer = Zeroizing::new([0u8; 64]);
    let written = URL_SAFE_NO_PAD.decode_slice(text, &mut buffer[..]).ok()?;
    buffer.get(..written)?.try_into().ok()
}

/// A name as it is written, without an allocation.
pub struct Text<const N: usize>([u8; N]);

impl<const N: usize> Deref for Text<N> {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// 64 bits in hexadecimal.
pub fn hex(bits: u64) -> Text<16> {
    Text(hex_digits(bits))
}

/// The same as they stand among others.
pub fn hex_digits(bits: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(bits.to_be_bytes()) {
        *pair = HEX.get(usize::from(byte)).copied().unwrap_or_default();
    }
    digits
}

/// The two digits of every byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut byte = 0;
    while byte < all.len() {
        all[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    all
};

/// 128 bits under a prefix: base64url without padding, one spelling for each value.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub [u8; 16]);

        impl $type {
            pub fn parse(text: &str) -> Option<Self> {
                decode(text.strip_prefix($prefix)?).map(Self)
            }
        }

        impl $type {
            /// As it is written.
            pub fn text(&self) -> Text<{ $prefix.len() + 22 }> {
                let mut text = [0u8; $prefix.len() + 22];
                let (prefix, name) = text.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                // 16 bytes make 22 characters: there is room for them.
                let _ = URL_SAFE_NO_PAD.encode_slice(self.0, name);
                Text(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.text())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom(concat!("not a ", stringify!($type))))
            }
        }
    };
}

name! {
    /// The public name of a session: its store key, safe in logs and prompts, proves nothing.
    Handle, "ses_"
}
name! {
    /// What a backend gets in place of a sensitive value.
    FieldHandle, "hdl_"
}
name! {
    /// Says which life of a handle a commit was meant for.
    Birth, ""
}
name! {
    /// Names one commit, so that one whose answer was lost can be asked for again.
    CommitId, ""
}
name! {
    /// A keyed hash of the user whose session it is.
    UserKey, "usr_"
}

name! {
    /// A keyed hash of a token's id.
    TokenKey, "tok_"
}

impl Birth {
    pub fn random() -> Result<Self, NoEntropy> {
        random().map(Self)
    }
}

impl CommitId {
    pub fn random() -> Result<Self, NoEntropy> {
        random().map(Self)
    }
}

/// A bearer token for one run of a program: 192 random bits in base64url.
pub fn random_token() -> Result<String, NoEntropy> {
    Ok(URL_SAFE_NO_PAD.encode(random::<24>()?))
}

/// What begins a field handle; no field may be given a string that begins so.
pub const FIELD_HANDLE_PREFIX: &str = "hdl_";

/// What begins a session id.
pub const SESSION_ID_PREFIX: &str = "cr_";

/// The client's credential: 16 bytes that name the session and 32 that prove it.
pub struct SessionId {
    handle: Handle,
    secret: Zeroizing<[u8; 32]>,
    hash: OnceLock<SecretHash>,
}

impl SessionId {
    pub fn random() -> Result<Self, NoEntropy> {
        Self::renewed(Handle(random()?))
    }

    /// A new secret for the session of that name.
    pub fn renewed(handle: Handle) -> Result<Self, NoEntropy> {
        Ok(Self { handle, secret: Zeroizing::new(random()?), hash: OnceLock::new() })
    }

    /// Reads `cr_` and 64 characters of base64url; anything else is not a session id.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(decode::<48>(text.strip_prefix(SESSION_ID_PREFIX)?)?);
        let (name, secret) = bytes.split_at_checked(16)?;
        let (handle, secret) = (Handle(name.try_into().ok()?), Zeroizing::new(secret.try_into().ok()?));
        Some(Self { handle, secret, hash: OnceLock::new() })
    }

    pub fn handle(&self) -> Handle {
        self.handle
    }

    pub fn hash(&self) -> SecretHash {
        *self.hash.get_or_init(|| {
            let mut hash = [0; 32];
            hash.copy_from_slice(digest::digest(&digest::SHA256, &self.secret[..]).as_ref());
            SecretHash(hash)
        })
    }

    /// The credential as the client holds it.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut bytes = [0u8; 48];
        bytes[..16].copy_from_slice(&self.handle.0);
        bytes[16..].copy_from_slice(&self.secret[..]);
        let mut text = Zeroizing::new(String::with_capacity(3 + 64));
        text.push_str(SESSION_ID_PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        bytes.zeroize();
        text
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}, …)", self.handle)
    }
}

/// SHA-256 of a session id's secret: all that the store knows of it.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As it is written.
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// Compares in constant time.
impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Serialize for SecretHash {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        decode(&text).map(Self).ok_or_else(|| serde::de::Error::custom("not a hash"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_id_reads_back_as_it_was_written() {
        let id = SessionId::random().unwrap();
        let text = id.reveal();
        assert_eq!(text.len(), 67);
        let again = SessionId::parse(&text).unwrap();
        assert_eq!(again.handle(), id.handle());
        assert!(again.hash() == id.hash());
    }

    #[test]
    fn only_one_spelling_names_a_handle() {
        let handle = Handle([0xff; 16]);
        let text = handle.to_string();
        assert_eq!(Handle::parse(&text), Some(handle));
        // The last character carries four bits; setting the two that are unused must not name the same handle.
        let twin = format!("{}x", &text[..text.len() - 1]);
        assert_eq!(Handle::parse(&twin), None);
        assert_eq!(Handle::parse(&format!("{text}=")), None);
    }

    #[test]
    fn debug_of_an_id_shows_no_secret() {
        let id = SessionId::random().unwrap();
        let secret = id.reveal()[3 + 22..].to_owned();
        assert!(!format!("{id:?} {:?}", id.hash()).contains(&secret));
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in ["", "cr_", "cr_AAAA", "ses_AAAAAAAAAAAAAAAAAAAAAA", "CR_", &format!("cr_{}", "!".repeat(64))] {
            assert!(SessionId::parse(text).is_none(), "{text}");
        }
    }
}
