//! What the name key is for: names that are stable, unguessable, and say nothing of what they name.

use aws_lc_rs::hmac;

use super::KeyringError;
use super::derive::{self, hmac_key};
use super::file::KeyBytes;
use crate::handle::{Birth, FieldHandle, Handle, TokenKey, UserKey, hex};

pub(super) struct NameKeys {
    handle: hmac::Key,
    fingerprint: hmac::Key,
    user: hmac::Key,
    token: hmac::Key,
}

impl NameKeys {
    pub(super) fn derive(name: &KeyBytes) -> Result<Self, KeyringError> {
        Ok(Self {
            handle: hmac_key(name, derive::HANDLE)?,
            fingerprint: hmac_key(name, derive::FINGERPRINT)?,
            user: hmac_key(name, derive::USER)?,
            token: hmac_key(name, derive::TOKEN)?,
        })
    }

    pub(super) fn field_handle(&self, session: Handle, birth: Birth, path: &str) -> FieldHandle {
        let mut message = Message::under(&self.handle);
        [b"field", session.text().as_bytes(), birth.text().as_bytes()].iter().for_each(|part| message.part(part));
        FieldHandle(message.last(path.as_bytes()))
    }

    pub(super) fn token_handle(&self, issuer: &str, claim: &str, value: &str) -> Handle {
        let mut message = Message::under(&self.handle);
        [issuer, claim].iter().for_each(|part| message.part(part.as_bytes()));
        Handle(message.last(value.as_bytes()))
    }

    /// Over one byte that says whether there is an issuer, the issuer's length (8 bytes, big-endian), the issuer
    /// and the user, so that no two pairs meet, whatever they hold.
    pub(super) fn user_key(&self, issuer: Option<&str>, user: &str) -> UserKey {
        let mut message = Message::under(&self.user);
        let name = issuer.unwrap_or_default();
        message.0.update(&[u8::from(issuer.is_some())]);
        message.0.update(&(name.len() as u64).to_be_bytes());
        message.0.update(name.as_bytes());
        UserKey(message.last(user.as_bytes()))
    }

    pub(super) fn token_key(&self, id: &str) -> TokenKey {
        TokenKey(Message::under(&self.token).last(id.as_bytes()))
    }

    /// Over the session's handle as it is written, the path and the value, separated by 0x00.
    pub(super) fn fingerprint(&self, session: Handle, path: &str, value: &[u8]) -> String {
        let mut message = Message::under(&self.fingerprint);
        [&*session.text(), path].iter().for_each(|part| message.part(part.as_bytes()));
        let bits: [u8; 8] = message.last(value);
        ["fp:", &hex(u64::from_be_bytes(bits))].concat()
    }
}

/// A message fed to HMAC piece by piece, so that names cost no allocation.
struct Message(hmac::Context);

impl Message {
    fn under(key: &hmac::Key) -> Self {
        Self(hmac::Context::with_key(key))
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
        self.0.update(&[0]);
    }

    /// Ends the message and gives the first bytes of its HMAC.
    fn last<const N: usize>(mut self, bytes: &[u8]) -> [u8; N] {
        const { assert!(N <= 32) };
        self.0.update(bytes);
        let tag = self.0.sign();
        let mut first = [0; N];
        first.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        first
    }
}
