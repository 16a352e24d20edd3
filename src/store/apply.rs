//! What a commit does to the entry under its handle.

use super::{Commit, Entry, Outcome};

/// A commit's effect, for the home to write.
#[derive(Debug)]
pub struct Applied {
    pub outcome: Outcome,
    /// The entry that is to stand under the handle from now on; none if nothing changes.
    pub entry: Option<Entry>,
}

/// Decides a commit against what stands under its handle.
pub fn apply(_current: Option<&Entry>, _commit: &Commit) -> Applied {
    Applied { outcome: Outcome::NotFound, entry: None }
}
