//! What was verified already, so that it is not verified again.

use std::sync::Arc;

use aws_lc_rs::digest;
use quick_cache::sync::Cache;

use crate::clock::Time;

use super::assertion::Assertion;
use super::key::Key;

/// Tokens that are remembered as good; more only cost their signature again.
const REMEMBERED: usize = 10_000;

/// A good token's assertion, and for how long it is one.
#[derive(Debug)]
pub struct Verified {
    pub assertion: Arc<Assertion>,
    pub until: Time,
    /// What proved it; it counts no longer than its key does.
    pub key: Option<Arc<Key>>,
}

/// The hash of a whole token: it names the token and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn of(token: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
        Self(hash)
    }
}

/// Good tokens by their hashes; of one configuration, since another may ask for more.
#[derive(Debug)]
pub struct Memory(Cache<TokenHash, Arc<Verified>>);

impl Default for Memory {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl Memory {
    /// What a token asserts that proved good before and still would.
    pub fn recall(&self, hash: TokenHash, now: Time) -> Option<Arc<Assertion>> {
        let known = self.0.get(&hash)?;
        if now < known.until && known.key.as_ref().is_none_or(|key| !key.is_retired()) {
            return Some(known.assertion.clone());
        }
        self.0.remove(&hash);
        None
    }

    pub fn keep(&self, hash: TokenHash, verified: Verified) -> Arc<Assertion> {
        let assertion = verified.assertion.clone();
        self.0.insert(hash, Arc::new(verified));
        assertion
    }

    pub fn forget(&self, hash: TokenHash) {
        self.0.remove(&hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_expires_or_is_forgotten() {
        let memory = Memory::default();
        let hash = TokenHash::of(b"a token");
        let verified = || Verified {
            assertion: Arc::new(Assertion::sample("i", "u", ("sub", "u"), 1)),
            until: Time(1000),
            key: None,
        };
        assert!(memory.recall(hash, Time(0)).is_none());
        memory.keep(hash, verified());
        assert!(memory.recall(hash, Time(999)).is_some());
        assert!(memory.recall(TokenHash::of(b"a token."), Time(999)).is_none());
        assert!(memory.recall(hash, Time(1000)).is_none());
        memory.keep(hash, verified());
        memory.forget(hash);
        assert!(memory.recall(hash, Time(0)).is_none());
    }
}
