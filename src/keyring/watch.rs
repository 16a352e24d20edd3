//! The keyring in use, and its file when that changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use crate::in_force::InForce;

use super::{Keyring, KeyringError};

/// The keyring in use; every holder of it sees when another takes its place.
#[derive(Debug, Clone)]
pub struct LiveKeyring(InForce<Keyring>);

impl LiveKeyring {
    pub fn new(keyring: Keyring) -> Self {
        Self(InForce::new(keyring))
    }

    pub fn current(&self) -> Arc<Keyring> {
        self.0.current()
    }

    /// Puts another in its place, unless it would give everything another name.
    fn replace(&self, keyring: Keyring) -> Result<(), Renamed> {
        if !self.0.current().names_as(&keyring) {
            return Err(Renamed);
        }
        self.0.replace(keyring);
        Ok(())
    }
}

/// The new keyring has another name key.
#[derive(Debug, thiserror::Error)]
#[error("its name key is another: every handle would change, and no session of a token be found again")]
struct Renamed;

/// Looks at a keyring's file now and then.
///
/// It compares what the file holds, not events: a mounted Secret changes by a swapped link, which no event on the
/// file itself tells.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    activate_after: Duration,
    /// What was taken on last.
    seen: Option<[u8; 32]>,
    /// What was not, and why: told once, and tried again, since the reason may be the file's mode.
    refused: Option<(Option<[u8; 32]>, String)>,
}

impl Watch {
    pub fn new(path: PathBuf, activate_after: Duration) -> Self {
        let seen = hash(&path);
        Self { path, activate_after, seen, refused: None }
    }

    /// Looks at another place, or by another rule, from now on; what is there counts as new.
    pub fn follow(&mut self, path: PathBuf, activate_after: Duration) {
        if (&path, activate_after) != (&self.path, self.activate_after) {
            // No file's hash: one that is not there is told of as well.
            *self = Self { path, activate_after, seen: Some([0; 32]), refused: None };
        }
    }

    /// Takes the file on if it changed. One that cannot be used is logged once, and the keyring in use stays.
    pub fn look(&mut self, keys: &LiveKeyring) {
        let now = hash(&self.path);
        if now == self.seen {
            self.refused = None;
            return;
        }
        let path = self.path.display();
        let taken = Keyring::load(&self.path, self.activate_after)
            .map_err(|error: KeyringError| error.to_string())
            .and_then(|keyring| keys.replace(keyring).map_err(|error| error.to_string()));
        match taken {
            Ok(()) => {
                tracing::info!(target: "cloakroom::keyring", %path, "the keyring's new file is in use");
                (self.seen, self.refused) = (now, None);
            }
            Err(error) => {
                let refused = Some((now, error));
                if refused != self.refused {
                    let error = refused.as_ref().map(|(_, error)| error);
                    tracing::error!(target: "cloakroom::keyring", %path, error, "the keyring's new file is not used");
                }
                self.refused = refused;
            }
        }
    }
}

fn hash(path: &std::path::Path) -> Option<[u8; 32]> {
    let bytes = zeroize::Zeroizing::new(std::fs::read(path).ok()?);
    digest::digest(&digest::SHA256, &bytes).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    fn ids(keys: &LiveKeyring) -> Vec<String> {
        keys.current().sealing_key_ids().map(|(id, _)| id.to_string()).collect()
    }

    /// A keyring in use and its file, which is looked at.
    fn watched() -> (tempfile::TempDir, PathBuf, LiveKeyring, Watch) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring.json");
        Keyring::create(&path, Time(1_000_000)).unwrap();
        let keys = LiveKeyring::new(Keyring::load(&path, Duration::ZERO).unwrap());
        let watch = Watch::new(path.clone(), Duration::ZERO);
        (folder, path, keys, watch)
    }

    #[test]
    fn a_file_that_was_refused_for_its_mode_is_taken_on_once_that_is_right() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, path, keys, mut watch) = watched();
        crate::keyring::rotate(&path, Time(2_000_000)).unwrap();
        for (mode, count) in [(0o644, 1), (0o644, 1), (0o600, 2)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            watch.look(&keys);
            assert_eq!(ids(&keys).len(), count, "{mode:o}");
        }
    }

    #[test]
    fn a_rotated_file_is_taken_on_and_a_broken_one_is_not() {
        let (_folder, path, keys, mut watch) = watched();
        let handle = keys.current().token_handle("i", "c", "v");
        crate::keyring::rotate(&path, Time(2_000_000)).unwrap();
        watch.look(&keys);
        assert_eq!(ids(&keys).len(), 2);
        assert_eq!(keys.current().token_handle("i", "c", "v"), handle);
        std::fs::write(&path, "{").unwrap();
        watch.look(&keys);
        assert_eq!(ids(&keys).len(), 2);
    }

    #[test]
    fn a_file_with_another_name_key_is_not_taken_on() {
        let (folder, path, keys, mut watch) = watched();
        let other = folder.path().join("other.json");
        Keyring::create(&other, Time(2_000_000)).unwrap();
        let handle = keys.current().token_handle("i", "c", "v");
        std::fs::rename(&other, &path).unwrap();
        watch.look(&keys);
        assert_eq!(keys.current().token_handle("i", "c", "v"), handle);
    }
}
