//! The keyring's file: read with suspicion, written whole or not at all.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize, Serializer};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::{Fault, KeyringError, mount};
use crate::clock::Time;
use crate::handle::{decode, random};
use crate::secret::Secret;

/// A secret of the file.
pub(super) type KeyBytes = Zeroizing<[u8; 32]>;

/// In bytes; some four hundred sealing keys.
const MAX_SIZE: usize = 64 * 1024;

/// Any access for others, and write access for the group.
const EXPOSING: u32 = 0o027;

/// Write access for anybody but the owner.
const WRITABLE: u32 = 0o022;

const MODE: u32 = 0o600;

/// What the file holds, checked.
pub(super) struct Keys {
    pub(super) name: KeyBytes,
    pub(super) newest: Generation,
    /// Newest first.
    pub(super) older: Vec<Generation>,
}

/// A sealing key of the file.
pub(super) struct Generation {
    pub(super) id: String,
    pub(super) created_at: Time,
    pub(super) secret: KeyBytes,
}

impl Keys {
    pub(super) fn generate(now: Time) -> Result<Self, KeyringError> {
        let newest = Generation::random("k1".into(), now)?;
        Ok(Self { name: Zeroizing::new(random()?), newest, older: Vec::new() })
    }

    fn ids(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.newest).chain(&self.older).map(|key| key.id.as_str())
    }

    /// `k` and one more than the highest number that a key has, so that the id of a key removed for its age
    /// does not come back.
    fn fresh_id(&self) -> String {
        let numbers = self.ids().filter_map(|id| id.strip_prefix('k')?.parse::<u32>().ok());
        let mut next = numbers.max().map_or(1, |highest| u64::from(highest) + 1);
        loop {
            let id = format!("k{next}");
            if self.ids().all(|used| used != id) {
                return id;
            }
            next += 1;
        }
    }
}

impl Generation {
    fn random(id: String, created_at: Time) -> Result<Self, KeyringError> {
        Ok(Self { id, created_at, secret: Zeroizing::new(random()?) })
    }
}

/// Says whether a text may be a sealing key's id: 1 to 32 letters, digits, `_` or `-`.
pub(super) fn is_key_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(serialize_with = "reveal")]
    name_key: Secret,
    sealing_keys: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    created_at: String,
    #[serde(serialize_with = "reveal")]
    secret: Secret,
}

fn reveal<S: Serializer>(secret: &Secret, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(secret.reveal())
}

fn encode(key: &KeyBytes) -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(&key[..]))
}

impl Document {
    fn of(keys: &Keys) -> Self {
        let generations = std::iter::once(&keys.newest).chain(&keys.older);
        Self { name_key: encode(&keys.name), sealing_keys: generations.map(Entry::of).collect() }
    }

    fn check(&self) -> Result<Keys, Fault> {
        let name = decode(self.name_key.reveal()).map(Zeroizing::new).ok_or(Fault::NameKey)?;
        let mut keys = Vec::<Generation>::with_capacity(self.sealing_keys.len());
        for (number, entry) in (1..).zip(&self.sealing_keys) {
            let key = entry.check(number)?;
            if keys.iter().any(|earlier| earlier.id == key.id) {
                return Err(Fault::DuplicateId(number));
            }
            keys.push(key);
        }
        keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
        let mut by_age = keys.into_iter();
        let newest = by_age.next().ok_or(Fault::NoSealingKey)?;
        Ok(Keys { name, newest, older: by_age.collect() })
    }
}

impl Entry {
    fn of(key: &Generation) -> Self {
        Self { id: key.id.clone(), created_at: key.created_at.to_string(), secret: encode(&key.secret) }
    }

    fn check(&self, number: usize) -> Result<Generation, Fault> {
        if !is_key_id(&self.id) {
            return Err(Fault::KeyId(number));
        }
        let created_at = Time::parse(&self.created_at).ok_or(Fault::CreatedAt(number))?;
        let secret = decode(self.secret.reveal()).map(Zeroizing::new).ok_or(Fault::Secret(number))?;
        Ok(Generation { id: self.id.clone(), created_at, secret })
    }
}

pub(super) fn read(path: &Path) -> Result<Keys, KeyringError> {
    read_with_metadata(path).map(|(keys, _)| keys)
}

fn read_with_metadata(path: &Path) -> Result<(Keys, Metadata), KeyringError> {
    // Asked before opening, which would wait for a writer if it were a pipe.
    if !fs::metadata(path).map_err(missing(path))?.is_file() {
        return Err(unsound(path)(Fault::NotAFile));
    }
    let file = File::open(path).map_err(of(path))?;
    let metadata = file.metadata().map_err(of(path))?;
    let mode = metadata.mode() & 0o7777;
    if mode & EXPOSING != 0 && !(mode & WRITABLE == 0 && mount::is_private(&file)) {
        return Err(KeyringError::Exposed { path: path.into(), mode });
    }
    let text = slurp(file).map_err(of(path))?;
    if text.len() > MAX_SIZE {
        return Err(unsound(path)(Fault::TooLarge));
    }
    let document: Document = serde_json::from_slice(&text).map_err(|at| KeyringError::Malformed {
        path: path.into(),
        line: at.line(),
        column: at.column(),
    })?;
    Ok((document.check().map_err(unsound(path))?, metadata))
}

/// Reads at most one byte more than a keyring may have, into memory that is never moved and is zeroed on drop.
fn slurp(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_SIZE + 1));
    file.take(MAX_SIZE as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

pub(super) fn create(path: &Path, keys: &Keys) -> Result<(), KeyringError> {
    let file = write_beside(path, keys)?;
    file.persist_noclobber(path).map_err(|failed| of(path)(failed.error))?;
    sync_folder(path)
}

/// Adds a sealing key to a keyring file and gives the new key's id; everything else stays as it is.
///
/// The file is replaced as a whole, with the owner and mode that it had; where it is a symbolic link, the file
/// that it leads to. The new key seals once it has reached `activate_after`. Two rotations at the same moment
/// leave one new key.
///
/// # Errors
/// Whatever [`Keyring::load`](super::Keyring::load) refuses; a clock that is behind the newest key, which would
/// keep the new key from ever sealing; a folder that cannot be written.
pub fn rotate(path: &Path, now: Time) -> Result<String, KeyringError> {
    let path = fs::canonicalize(path).map_err(missing(path))?;
    let (keys, before) = read_with_metadata(&path)?;
    if keys.newest.created_at > now {
        return Err(KeyringError::ClockBehind { newest: keys.newest.created_at, path });
    }
    let newest = Generation::random(keys.fresh_id(), now)?;
    let id = newest.id.clone();
    let older = std::iter::once(keys.newest).chain(keys.older).collect();
    let file = write_beside(&path, &Keys { name: keys.name, newest, older })?;
    adopt(file.as_file(), &before).map_err(of(&path))?;
    file.persist(&path).map_err(|failed| of(&path)(failed.error))?;
    sync_folder(&path)?;
    Ok(id)
}

/// Writes the keys to a new file in the folder of `path`, with mode 0600, down to the disk; gone if dropped.
fn write_beside(path: &Path, keys: &Keys) -> Result<NamedTempFile, KeyringError> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_SIZE + 1));
    serde_json::to_writer_pretty(&mut *text, &Document::of(keys)).map_err(|_| unsound(path)(Fault::TooLarge))?;
    text.push(b'\n');
    if text.len() > MAX_SIZE {
        return Err(unsound(path)(Fault::TooLarge));
    }
    write_down(&folder(path), &text).map_err(of(path))
}

fn write_down(folder: &Path, text: &[u8]) -> io::Result<NamedTempFile> {
    let mode = fs::Permissions::from_mode(MODE);
    let mut file = tempfile::Builder::new().prefix(".keyring-").permissions(mode).tempfile_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Gives a new file the owner and mode of the one that it replaces, so that who could read it still can.
fn adopt(file: &File, before: &Metadata) -> io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
        fchown(file, Some(before.uid()), Some(before.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))?;
    file.sync_all()
}

fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).into()
}

/// Makes a new name in the folder of `path` outlive a power cut.
fn sync_folder(path: &Path) -> Result<(), KeyringError> {
    File::open(folder(path)).and_then(|folder| folder.sync_all()).map_err(of(path))
}

fn of(path: &Path) -> impl Fn(io::Error) -> KeyringError {
    move |source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyringError::Exists { path: path.into() },
        _ => KeyringError::File { path: path.into(), source },
    }
}

/// For the first look at a file; later, what is not found is something else.
fn missing(path: &Path) -> impl Fn(io::Error) -> KeyringError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => KeyringError::Missing { path: path.into() },
        _ => of(path)(source),
    }
}

fn unsound(path: &Path) -> impl Fn(Fault) -> KeyringError {
    move |fault| KeyringError::Unsound { path: path.into(), fault }
}
