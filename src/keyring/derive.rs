//! From a secret of the file to the key of one purpose.

use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use super::KeyringError;
use super::file::KeyBytes;

pub(super) const SEAL: &str = "cloakroom/v1 seal";
pub(super) const MAC: &str = "cloakroom/v1 mac";
pub(super) const HANDLE: &str = "cloakroom/v1 handle";
pub(super) const FINGERPRINT: &str = "cloakroom/v1 fingerprint";
pub(super) const USER: &str = "cloakroom/v1 user";
pub(super) const TOKEN: &str = "cloakroom/v1 token";

/// Fixed and public: the secrets are uniformly random already, and FIPS builds want a salt that is not empty.
const SALT: &[u8] = b"cloakroom keyring";

pub(super) fn key(secret: &KeyBytes, label: &str) -> Result<KeyBytes, KeyringError> {
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
        .extract(&secret[..])
        .expand(&[label.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key[..]))
        .map_err(|_| KeyringError::Cryptography)?;
    Ok(key)
}

pub(super) fn hmac_key(secret: &KeyBytes, label: &str) -> Result<hmac::Key, KeyringError> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &key(secret, label)?[..]))
}
