//! Opening the file, and saying plainly why not.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableHandle as _};

use super::table;
use crate::store::StoreError;

/// The version of the file's layout that this cloakroom reads and writes.
const LAYOUT: u64 = 1;

/// The database's own cache of pages, in bytes; it stands behind the cache of entries.
const PAGES: usize = 32 << 20;

/// Opens the database, also again after it failed.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, OpenError> + Send>;

/// Why the store's file could not be opened; the caller knows its path.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("its folder does not exist")]
    NoFolder,
    #[error("permission denied")]
    Permission,
    #[error("it is already open, most likely in another process: an embedded store serves one")]
    AlreadyOpen,
    #[error("it is not a cloakroom database")]
    Foreign,
    #[error("it is a damaged database: {0}")]
    Damaged(String),
    #[error("a newer cloakroom wrote it (layout {found}; this one knows {LAYOUT})")]
    Newer { found: u64 },
    #[error("it belongs to environment '{0}': each environment has a file of its own")]
    OtherEnvironment(String),
    #[error("{0}")]
    Io(io::Error),
}

/// Opens the file, or creates it, readable by its owner alone.
pub(super) fn create(path: &Path) -> Result<Database, OpenError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let database = on(FileBackend::new(file)?)?;
    if layout(&database)?.is_none() {
        prepare(&database).map_err(damaged)?;
    }
    check(&database)?;
    // A new file's name is durable only once its folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(database)
}

/// Gives a new file to an environment; one that is another's is refused, so that two environments never meet.
pub(super) fn claim(database: &Database, environment: &str) -> Result<(), OpenError> {
    let owner = owner(database).map_err(damaged)?;
    match owner {
        Some(owner) if owner == environment.as_bytes() => Ok(()),
        Some(owner) => Err(OpenError::OtherEnvironment(String::from_utf8_lossy(&owner).into_owned())),
        None => set_owner(database, environment).map_err(damaged),
    }
}

fn owner(database: &Database) -> Result<Option<Vec<u8>>, redb::Error> {
    let meta = database.begin_read()?.open_table(table::META)?;
    Ok(meta.get(table::ENVIRONMENT)?.map(|owner| owner.value().to_vec()))
}

fn set_owner(database: &Database, environment: &str) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(table::META)?.insert(table::ENVIRONMENT, environment.as_bytes())?;
    Ok(write.commit()?)
}

/// Opens the file again. One that has vanished or is empty is not begun anew: that would end every session.
pub(super) fn reopen(path: &Path) -> Result<Database, OpenError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(OpenError::Io)?;
    let database = on(FileBackend::new(file)?)?;
    check(&database)?;
    Ok(database)
}

/// Opens the database on that backend, and checks every page of it: later, damage could end the process.
pub(super) fn on(backend: impl redb::StorageBackend) -> Result<Database, OpenError> {
    let mut builder = Database::builder();
    builder.set_cache_size(PAGES).set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(backend)?)
}

pub(super) fn check(database: &Database) -> Result<(), OpenError> {
    match layout(database)? {
        Some(LAYOUT) => Ok(()),
        Some(0) => Err(OpenError::Foreign),
        Some(found) => Err(OpenError::Newer { found }),
        None => Err(OpenError::Damaged("it is empty".into())),
    }
}

/// The file's layout: none where there are no tables yet, 0 where they are not ours.
fn layout(database: &Database) -> Result<Option<u64>, OpenError> {
    stored_layout(database).map_err(damaged)
}

fn stored_layout(database: &Database) -> Result<Option<u64>, redb::Error> {
    let read = database.begin_read()?;
    let names: Vec<_> = read.list_tables()?.map(|table| table.name().to_owned()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    if !names.iter().any(|name| name == table::META.name()) {
        return Ok(Some(0));
    }
    let Ok(meta) = read.open_table(table::META) else { return Ok(Some(0)) };
    let version = meta.get(table::LAYOUT)?.and_then(|version| table::leading(version.value()));
    Ok(Some(version.unwrap_or(0)))
}

pub(super) fn prepare(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    for definition in table::ALL {
        write.open_table(definition)?;
    }
    write.open_table(table::META)?.insert(table::LAYOUT, &LAYOUT.to_be_bytes()[..])?;
    Ok(write.commit()?)
}

fn damaged(error: redb::Error) -> OpenError {
    match error {
        redb::Error::Io(error) => error.into(),
        error => OpenError::Damaged(error.to_string()),
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::NoFolder,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::Permission,
            ErrorKind::InvalidData => Self::Foreign,
            ErrorKind::UnexpectedEof => Self::Damaged("it ends too early".into()),
            _ => Self::Io(error),
        }
    }
}

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::AlreadyOpen,
            DatabaseError::UpgradeRequired(_) => Self::Foreign,
            DatabaseError::Storage(StorageError::Io(error)) => error.into(),
            error => Self::Damaged(error.to_string()),
        }
    }
}

/// Says what failed in the database's words, which hold nothing of what it keeps.
macro_rules! unavailable {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Unavailable(error.to_string())
            }
        }
    )*};
}

unavailable!(StorageError, TableError, TransactionError, CommitError);
