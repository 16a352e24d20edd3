//! Field values between their stored and their plain form, for one session.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::clock::Time;
use crate::handle::{Birth, Handle};
use crate::keyring::{Keyring, OpenError, Place};

/// A value's JSON in clear; zeroed on drop, since it may be a sensitive one.
pub type Plain = Zeroizing<String>;

/// What begins the JSON of a sealed value.
const SEALED: &str = "\"seal:";

/// Whether a stored JSON text is that of a sealed value.
pub fn is_sealed(json: &str) -> bool {
    json.starts_with(SEALED)
}

/// Why a stored value cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// Sealed under a key that this sidecar does not have: an outage, not an absence.
    UnknownKey(String),
    /// It does not open under its key, or is no JSON.
    Damaged,
}

/// Seals and opens the values of one birth of one session.
pub struct Vault<'a> {
    pub keyring: Arc<Keyring>,
    pub environment: &'a str,
    pub session: Handle,
    pub birth: Birth,
}

impl Vault<'_> {
    fn place<'p>(&'p self, path: &'p str) -> Place<'p> {
        Place { environment: self.environment, session: self.session, birth: self.birth, path }
    }

    /// The JSON text to store for a sensitive value; none if sealing failed.
    pub fn seal(&self, path: &str, plain: &str, now: Time) -> Option<Arc<str>> {
        let sealed = self.keyring.seal(&self.place(path), plain.as_bytes(), now).ok()?;
        // Nothing in a sealed text needs escaping.
        Some(format!("\"{sealed}\"").into())
    }

    /// The value's JSON, opened if it is sealed.
    pub fn open(&self, path: &str, json: &str) -> Result<Plain, Closed> {
        if !is_sealed(json) {
            return Ok(Plain::new(json.to_owned()));
        }
        let sealed = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(Closed::Damaged)?;
        let mut opened = self.keyring.open(&self.place(path), sealed).map_err(|error| match error {
            OpenError::UnknownKey(id) => Closed::UnknownKey(id),
            OpenError::Damaged => Closed::Damaged,
        })?;
        String::from_utf8(std::mem::take(&mut *opened)).map(Plain::new).map_err(|_| Closed::Damaged)
    }
}
