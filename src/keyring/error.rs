//! What can be wrong with a keyring, a sealed value or a mac; never with a byte of a key in it.

use std::io;
use std::path::PathBuf;

use crate::clock::Time;
use crate::handle::NoEntropy;

/// Why there is no keyring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("{}: there is no keyring", path.display())]
    Missing { path: PathBuf },
    #[error("{}: a keyring is there already and is left as it is", path.display())]
    Exists { path: PathBuf },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: mode {mode:04o} lets others access the keyring or the group write it; allow 0640 at most", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// The parser's own words are left out: they may quote the file.
    #[error("{}:{line}:{column}: not a keyring: not JSON, or a member that is unknown, missing or of another type", path.display())]
    Malformed { path: PathBuf, line: usize, column: usize },
    #[error("{}: {fault}", path.display())]
    Unsound { path: PathBuf, fault: Fault },
    #[error("{}: the newest sealing key was made at {newest}, later than the clock shows", path.display())]
    ClockBehind { path: PathBuf, newest: Time },
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    #[error("the cryptographic library refused")]
    Cryptography,
}

/// What is wrong with a file that has the form of a keyring; sealing keys are counted from 1 as they stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("not a regular file")]
    NotAFile,
    #[error("larger than 64 KiB")]
    TooLarge,
    #[error("name_key is not 32 bytes in base64url without padding")]
    NameKey,
    #[error("there is no sealing key")]
    NoSealingKey,
    #[error("sealing key {0}: the id is not 1 to 32 letters, digits, '_' or '-'")]
    KeyId(usize),
    #[error("sealing key {0}: an earlier one has the same id")]
    DuplicateId(usize),
    #[error("sealing key {0}: created_at is not a time such as 2026-11-23T08:15:02Z")]
    CreatedAt(usize),
    #[error("sealing key {0}: the secret is not 32 bytes in base64url without padding")]
    Secret(usize),
}

/// Why a sealed value did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The value may be sound; a keyring that has the key would tell.
    #[error("sealed under key {0}, which this keyring does not have")]
    UnknownKey(String),
    /// Not a sealed value, altered, or sealed for another place.
    #[error("the sealed value is damaged or was sealed for another place")]
    Damaged,
}

/// Why a mac does not vouch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    #[error("made under a key that this keyring does not have")]
    UnknownKey,
    #[error("the mac does not fit")]
    Mismatch,
}
