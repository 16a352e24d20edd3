//! The files behind a configuration, looked at now and then.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use zeroize::Zeroizing;

/// More than a configuration may have, and so as much of a file as is looked at.
const FILE_SIZE: u64 = 2 << 20;

/// What files hold, each by its hash; none for what cannot be read.
type Seen = Vec<(PathBuf, Option<[u8; 32]>)>;

/// A configuration file, and those whose contents stand in it.
///
/// It compares what they hold, not events: a mounted ConfigMap or Secret changes by a swapped link, which no event on
/// the file itself tells.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    referred: BTreeSet<PathBuf>,
    /// What they held when they were last read as a configuration.
    read: Seen,
    /// What they held at the last look, where that was something else.
    changing: Option<Seen>,
}

impl Watch {
    /// Notes what the file holds; to be made before it is read.
    pub fn new(path: PathBuf) -> Self {
        let mut watch = Self { path, referred: BTreeSet::new(), read: Vec::new(), changing: None };
        watch.reading();
        watch
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the configuration is to be read anew: what the files hold has changed, and was the same at two looks,
    /// so that nothing is read that somebody is still writing.
    pub fn has_changed(&mut self) -> bool {
        let now = self.see();
        if now == self.read {
            self.changing = None;
            return false;
        }
        if self.changing.as_ref() == Some(&now) {
            return true;
        }
        self.changing = Some(now);
        false
    }

    /// Notes what the files hold, before they are read.
    pub fn reading(&mut self) {
        self.read = self.see();
        self.changing = None;
    }

    /// Notes which files a configuration that was just read refers to.
    pub fn refers_to(&mut self, referred: impl IntoIterator<Item = PathBuf>) {
        let referred: BTreeSet<PathBuf> = referred.into_iter().collect();
        let new = referred.difference(&self.referred);
        self.read.extend(new.map(|path| (path.clone(), hash(path))));
        self.read.retain(|(path, _)| *path == self.path || referred.contains(path));
        self.read.sort();
        self.referred = referred;
    }

    fn see(&self) -> Seen {
        let mut seen: Seen = self.referred.iter().chain([&self.path]).map(|path| (path.clone(), hash(path))).collect();
        seen.sort();
        seen
    }
}

fn hash(path: &Path) -> Option<[u8; 32]> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).ok()?.take(FILE_SIZE).read_to_end(&mut bytes).ok()?;
    digest::digest(&digest::SHA256, &bytes).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_stands_still() {
        let folder = tempfile::tempdir().unwrap();
        let (path, token) = (folder.path().join("cloakroom.yaml"), folder.path().join("token"));
        std::fs::write(&path, "a").unwrap();
        let mut watch = Watch::new(path.clone());
        watch.refers_to([token.clone()]);
        assert!(!watch.has_changed() && !watch.has_changed());
        for file in [&path, &token] {
            std::fs::write(file, "half").unwrap();
            assert!(!watch.has_changed());
            std::fs::write(file, "whole").unwrap();
            assert!(!watch.has_changed());
            assert!(watch.has_changed());
            watch.reading();
            assert!(!watch.has_changed() && !watch.has_changed());
        }
        std::fs::remove_file(&token).unwrap();
        assert!(!watch.has_changed() && watch.has_changed());
    }

    #[test]
    fn what_is_written_as_it_was_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloakroom.yaml");
        std::fs::write(&path, "a").unwrap();
        let mut watch = Watch::new(path.clone());
        std::fs::write(&path, "a").unwrap();
        assert!(!watch.has_changed() && !watch.has_changed());
    }

    #[test]
    fn files_that_are_referred_to_no_more_are_not_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let (path, token) = (folder.path().join("cloakroom.yaml"), folder.path().join("token"));
        std::fs::write(&path, "a").unwrap();
        let mut watch = Watch::new(path);
        watch.refers_to([token.clone()]);
        std::fs::write(&token, "new").unwrap();
        assert!(!watch.has_changed() && watch.has_changed());
        watch.reading();
        watch.refers_to([]);
        std::fs::write(&token, "newer").unwrap();
        assert!(!watch.has_changed() && !watch.has_changed());
    }
}
