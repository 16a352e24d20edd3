//! What is in force now, and may be replaced while it is used.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// One value that all holders share until another takes its place.
///
/// Who needs more than one look at it keeps what [`InForce::current`] gave, and so sees one value throughout.
#[derive(Debug)]
pub struct InForce<T>(Arc<ArcSwap<T>>);

impl<T> InForce<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    pub fn current(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Puts another in its place; who has the one before keeps it.
    pub fn replace(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

impl<T> Clone for InForce<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
