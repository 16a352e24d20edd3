//! A side of TLS that follows its files.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};

use super::error::{Part, TlsError};
use super::file::Pem;

type Hash = [u8; 32];

/// What files make of a side, as of the last time when they were of use.
///
/// All of it changes at once: a connection is never made with a certificate of one time and a key of another.
pub struct Live<C> {
    current: ArcSwap<C>,
    files: Vec<(Part, PathBuf)>,
    make: fn(&[Pem]) -> Result<C, TlsError>,
    seen: Mutex<Seen>,
}

struct Seen {
    /// What is in use, or was found to be of no use.
    judged: Option<Hash>,
    /// What stood there at the last look, if that is something else.
    fresh: Option<Hash>,
}

impl<C> Live<C> {
    pub(super) fn of<const N: usize>(
        files: [(Part, Option<PathBuf>); N],
        make: fn(&[Pem]) -> Result<C, TlsError>,
    ) -> Result<Self, TlsError> {
        let files: Vec<_> = files.into_iter().filter_map(|(part, path)| Some((part, path?))).collect();
        let read = read(&files)?;
        let made = make(&read)?;
        let seen = Seen { judged: Some(hash(&read)), fresh: None };
        Ok(Self { current: ArcSwap::from_pointee(made), files, make, seen: Mutex::new(seen) })
    }

    /// For the next connection; those that are open keep what they began with.
    pub fn current(&self) -> Arc<C> {
        self.current.load_full()
    }

    /// Takes the files on if they have changed, and been the same at two looks: one that is half written, or whose
    /// key is still to come, is not judged. What cannot be used is logged once, and what is in use stays.
    ///
    /// It compares what the files hold, not events: a mounted Secret changes by a swapped link. Says whether they were
    /// taken on.
    pub fn look(&self) -> bool {
        if self.files.is_empty() {
            return false;
        }
        let read = read(&self.files);
        let now = read.as_ref().ok().map(|read| hash(read));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now == seen.judged {
            seen.fresh = None;
            return false;
        }
        if now.is_some() && seen.fresh != now {
            seen.fresh = now;
            return false;
        }
        *seen = Seen { judged: now, fresh: None };
        drop(seen);
        let path = self.files.first().map(|(_, path)| path.display().to_string()).unwrap_or_default();
        match read.and_then(|read| (self.make)(&read)) {
            Ok(made) => {
                self.current.store(Arc::new(made));
                tracing::info!(target: "cloakroom::tls", path, "new TLS files are in use");
                true
            }
            Err(error) => {
                tracing::error!(target: "cloakroom::tls", path, %error, "new TLS files are not used");
                false
            }
        }
    }
}

impl<C> std::fmt::Debug for Live<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("files", &self.files).finish_non_exhaustive()
    }
}

fn read(files: &[(Part, PathBuf)]) -> Result<Vec<Pem>, TlsError> {
    files.iter().map(|(part, path)| Pem::read(*part, path)).collect()
}

fn hash(files: &[Pem]) -> Hash {
    let mut context = Context::new(&SHA256);
    for file in files {
        context.update(&(file.bytes.len() as u64).to_be_bytes());
        context.update(&file.bytes);
    }
    let mut hash = Hash::default();
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}
