//! What a sealing key is for: sealing values and vouching for audit records.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::derive::{self, hmac_key};
use super::file::{self, Generation};
use super::{KeyringError, MacError, OpenError};
use crate::clock::Time;
use crate::handle::{Birth, Handle, decode};

const PREFIX: &str = "seal:v1:";
const NONCE: usize = 12;
const TAG: usize = 16;

/// Where a sealed value belongs; it opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub environment: &'a str,
    pub session: Handle,
    pub birth: Birth,
    pub path: &'a str,
}

impl Place<'_> {
    /// The associated data: each part after its length (8 bytes, big-endian), so that no two places look alike.
    fn associated_data(&self) -> Vec<u8> {
        let parts = [self.environment.as_bytes(), &self.session.0, &self.birth.0, self.path.as_bytes()];
        let mut data = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum());
        for part in parts {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part);
        }
        data
    }
}

/// What vouches for some bytes, and the id of the sealing key that its own key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mac {
    pub key: String,
    /// A full HMAC-SHA-256 in base64url.
    pub mac: String,
}

/// Splits a sealed text into key id and base64url; what is no sealed text is `None`.
pub(super) fn parse(sealed: &str) -> Option<(&str, &str)> {
    sealed.strip_prefix(PREFIX)?.split_once(':').filter(|(id, _)| file::is_key_id(id))
}

/// One generation of the sealing keys.
pub(super) struct SealingKey {
    id: String,
    created_at: Time,
    /// Draws the nonce itself, so that none can be used twice by mistake.
    aead: RandomizedNonceKey,
    mac: hmac::Key,
}

impl SealingKey {
    pub(super) fn derive(generation: &Generation) -> Result<Self, KeyringError> {
        let seal = derive::key(&generation.secret, derive::SEAL)?;
        let aead = RandomizedNonceKey::new(&AES_256_GCM_SIV, &seal[..]).map_err(|_| KeyringError::Cryptography)?;
        let mac = hmac_key(&generation.secret, derive::MAC)?;
        Ok(Self { id: generation.id.clone(), created_at: generation.created_at, aead, mac })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn created_at(&self) -> Time {
        self.created_at
    }

    pub(super) fn seal(&self, at: &Place<'_>, plain: &[u8]) -> Result<String, KeyringError> {
        // Room for the tag from the start: growing would leave a copy of the plaintext behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(plain.len() + TAG));
        sealed.extend_from_slice(plain);
        let aad = Aad::from(at.associated_data());
        let nonce = self.aead.seal_in_place_append_tag(aad, &mut *sealed).map_err(|_| KeyringError::Cryptography)?;
        let blob = [nonce.as_ref(), sealed.as_slice()].concat();
        let mut text = format!("{PREFIX}{}:", self.id);
        URL_SAFE_NO_PAD.encode_string(blob, &mut text);
        Ok(text)
    }

    pub(super) fn open(&self, at: &Place<'_>, blob: &str) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(blob).map_err(|_| OpenError::Damaged)?);
        let nonce: [u8; NONCE] = *bytes.first_chunk().ok_or(OpenError::Damaged)?;
        bytes.drain(..NONCE);
        let aad = Aad::from(at.associated_data());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.aead.open_in_place(nonce, aad, &mut bytes).map_err(|_| OpenError::Damaged)?.len();
        bytes.truncate(opened);
        Ok(bytes)
    }

    pub(super) fn mac(&self, bytes: &[u8]) -> Mac {
        Mac { key: self.id.clone(), mac: URL_SAFE_NO_PAD.encode(hmac::sign(&self.mac, bytes)) }
    }

    pub(super) fn verify(&self, mac: &str, bytes: &[u8]) -> Result<(), MacError> {
        let mac: [u8; 32] = decode(mac).ok_or(MacError::Mismatch)?;
        hmac::verify(&self.mac, bytes, &mac).map_err(|_| MacError::Mismatch)
    }
}
