//! The keys: what seals sensitive values, names things that must not be guessed, and vouches for audit records.
//!
//! One *name key* stays for the life of an installation; *sealing keys* come and go by rotation. No secret of
//! the file is used as it stands: every purpose has a key of its own, derived by HKDF-SHA-256 (RFC 5869) under
//! a label of its own, once, when the keyring is loaded.

mod derive;
mod error;
mod file;
mod mount;
mod name;
mod seal;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::Time;
use crate::handle::{Birth, FieldHandle, Handle, TokenKey, UserKey};

pub use error::{Fault, KeyringError, MacError, OpenError};
pub use file::rotate;
pub use seal::{Mac, Place};
pub use watch::{LiveKeyring, Watch};

use file::Keys;
use name::NameKeys;
use seal::SealingKey;

/// The keys of an installation, ready for use.
///
/// Immutable: a changed file is a new keyring. `Debug` shows ids and times, nothing else.
pub struct Keyring {
    names: NameKeys,
    newest: SealingKey,
    /// Newest first.
    older: Vec<SealingKey>,
    activate_after: Duration,
}

impl Keyring {
    /// Reads a keyring file.
    ///
    /// The order of its sealing keys is that of `created_at`, wherever they stand; of two made in the same
    /// second the one that stands first is the newer.
    ///
    /// # Errors
    /// Refuses a file that others can access or the group can write (the group may read, as Kubernetes mounts
    /// need), and one that is not exactly a keyring. No error shows key material.
    pub fn load(path: &Path, activate_after: Duration) -> Result<Self, KeyringError> {
        Self::compile(file::read(path)?, activate_after)
    }

    /// Makes a keyring file with mode 0600 and one sealing key; what stands there already is never touched.
    ///
    /// The file appears whole or not at all, and is on the disk when this returns.
    pub fn create(path: &Path, now: Time) -> Result<(), KeyringError> {
        file::create(path, &Keys::generate(now)?)
    }

    /// Reads the keyring file, which is made first if there is none.
    pub fn load_or_create(path: &Path, activate_after: Duration, now: Time) -> Result<Self, KeyringError> {
        match Self::load(path, activate_after) {
            Err(KeyringError::Missing { .. }) => {}
            found => return found,
        }
        match Self::create(path, now) {
            // Another process was first; its keys are as good.
            Ok(()) | Err(KeyringError::Exists { .. }) => Self::load(path, activate_after),
            Err(error) => Err(error),
        }
    }

    /// Makes a keyring that ends with the process.
    pub fn ephemeral(now: Time) -> Result<Self, KeyringError> {
        Self::compile(Keys::generate(now)?, Duration::ZERO)
    }

    fn compile(keys: Keys, activate_after: Duration) -> Result<Self, KeyringError> {
        let names = NameKeys::derive(&keys.name)?;
        let newest = SealingKey::derive(&keys.newest)?;
        let older = keys.older.iter().map(SealingKey::derive).collect::<Result<_, _>>()?;
        Ok(Self { names, newest, older, activate_after })
    }

    /// The sealing keys by id and time of creation, newest first.
    pub fn sealing_key_ids(&self) -> impl Iterator<Item = (&str, Time)> {
        self.generations().map(|key| (key.id(), key.created_at()))
    }

    /// The id of the key that seals: the newest that has reached `activate_after`, or the oldest while none has.
    pub fn active(&self, now: Time) -> &str {
        self.active_key(now).id()
    }

    /// Seals a value with AES-256-GCM-SIV (RFC 8452) for one place, as `seal:v1:<key id>:<base64url>`.
    pub fn seal(&self, at: &Place<'_>, plain: &[u8], now: Time) -> Result<String, KeyringError> {
        self.active_key(now).seal(at, plain)
    }

    /// Opens what [`Keyring::seal`] sealed for that very place.
    pub fn open(&self, at: &Place<'_>, sealed: &str) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (id, blob) = seal::parse(sealed).ok_or(OpenError::Damaged)?;
        let key = self.key(id).ok_or_else(|| OpenError::UnknownKey(id.into()))?;
        key.open(at, blob)
    }

    /// The id of the key that a sealed text names, whether or not this keyring has it.
    pub fn sealed_under(sealed: &str) -> Option<&str> {
        seal::parse(sealed).map(|(id, _)| id)
    }

    /// Names a field in one life of a session: stable whatever the value, different everywhere else.
    ///
    /// The first 16 bytes of HMAC-SHA-256 under the handle key over `field`, the session's handle, its birth
    /// and the path, separated by 0x00; handle and birth as they are written (`ses_…`, base64url).
    pub fn field_handle(&self, session: Handle, birth: Birth, path: &str) -> FieldHandle {
        self.names.field_handle(session, birth, path)
    }

    /// Whether another keyring gives everything the same names.
    fn names_as(&self, other: &Self) -> bool {
        let probe = |keyring: &Self| keyring.token_handle("probe", "probe", "probe");
        probe(self) == probe(other)
    }

    /// Names the session that tokens with this claim lead to.
    ///
    /// The first 16 bytes of HMAC-SHA-256 under the handle key over issuer, the claim's name and its value,
    /// separated by 0x00. Issuer and claim come from the configuration and hold no 0x00; the value may.
    pub fn token_handle(&self, issuer: &str, claim: &str, value: &str) -> Handle {
        self.names.token_handle(issuer, claim, value)
    }

    /// Names a user of an issuer, or of none where no token made the session.
    pub fn user_key(&self, issuer: Option<&str>, user: &str) -> UserKey {
        self.names.user_key(issuer, user)
    }

    /// Names a token by its id (`jti`), whoever issued it.
    pub fn token_key(&self, id: &str) -> TokenKey {
        self.names.token_key(id)
    }

    /// Says `fp:` and 64 bits in hexadecimal that are equal for equal values of one field of one session.
    pub fn fingerprint(&self, session: Handle, path: &str, value: &[u8]) -> String {
        self.names.fingerprint(session, path, value)
    }

    /// Vouches for bytes: HMAC-SHA-256 under a key derived from the active sealing key.
    pub fn mac(&self, bytes: &[u8], now: Time) -> Mac {
        self.active_key(now).mac(bytes)
    }

    /// Says whether a mac made by [`Keyring::mac`] fits the bytes; compares in constant time.
    pub fn verify_mac(&self, key: &str, mac: &str, bytes: &[u8]) -> Result<(), MacError> {
        self.key(key).ok_or(MacError::UnknownKey)?.verify(mac, bytes)
    }

    fn generations(&self) -> impl Iterator<Item = &SealingKey> {
        std::iter::once(&self.newest).chain(&self.older)
    }

    fn key(&self, id: &str) -> Option<&SealingKey> {
        self.generations().find(|key| key.id() == id)
    }

    fn active_key(&self, now: Time) -> &SealingKey {
        let oldest = self.older.last().unwrap_or(&self.newest);
        self.generations().find(|key| key.created_at().plus(self.activate_after) <= now).unwrap_or(oldest)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring ")?;
        f.debug_map().entries(self.sealing_key_ids().map(|(id, at)| (id, at.to_string()))).finish()
    }
}
