//! One field's change, as the store and the audit trail need it.

use std::sync::Arc;

use crate::clock::Time;

use super::vault::{Plain, Vault};

/// What a commit does to one field, in clear.
pub struct Delta {
    pub path: Arc<str>,
    /// None where the field was absent, or only its default applied.
    pub before: Option<Plain>,
    /// None unsets.
    pub after: Option<Plain>,
    pub sensitive: bool,
    /// Whether the audit trail shows the values themselves.
    pub shown: bool,
}

/// Fields to set, with the JSON to store, and fields to unset.
pub type Writes = (Vec<(Arc<str>, Arc<str>)>, Vec<Arc<str>>);

/// What to write for these changes; none if a value could not be sealed.
pub fn writes(deltas: &[Delta], vault: &Vault<'_>, now: Time) -> Option<Writes> {
    let mut set = Vec::new();
    let mut unset = Vec::new();
    for delta in deltas {
        match &delta.after {
            None => unset.push(delta.path.clone()),
            Some(plain) if delta.sensitive => set.push((delta.path.clone(), vault.seal(&delta.path, plain, now)?)),
            Some(plain) => set.push((delta.path.clone(), plain.as_str().into())),
        }
    }
    Some((set, unset))
}
