//! What is no longer to be believed, held in memory so that it costs no request a look into the store.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::clock::Time;
use crate::handle::{TokenKey, UserKey};
use crate::store::{Revocation, Revoked};

/// Users, and tokens, whose revocations are held at most: some 100 MB of them. Past that no more are taken on.
const MOST: usize = 1 << 20;

/// How often what has ended is let go.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Every revocation of the feed that stands, but those of single sessions, whose tombstones say it.
#[derive(Debug, Default)]
pub struct Revocations(RwLock<Held>);

#[derive(Debug, Default)]
struct Held {
    users: HashMap<UserKey, Void>,
    tokens: HashMap<TokenKey, Time>,
    swept: Time,
}

/// Nothing of the user's from before that time counts.
#[derive(Debug, Clone, Copy)]
struct Void {
    not_before: Time,
    until: Time,
}

/// What of a session a revocation may be about.
#[derive(Debug, Clone, Copy)]
pub struct Believed {
    pub user: Option<UserKey>,
    pub created_at: Time,
    /// None where the session was proven by something else than a token.
    pub bearing: Option<Bearing>,
}

/// What of a token a revocation may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bearing {
    /// When the user logged in, in whole seconds, if the token says so.
    pub login: Option<u64>,
    /// None of a token without an id.
    pub token: Option<TokenKey>,
}

impl Revocations {
    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one on; what another sidecar has written is taken on also past the bound, which it keeps as well.
    pub fn take(&self, revocation: &Revocation) {
        let until = revocation.until;
        match revocation.of {
            Revoked::User { user, not_before } => {
                let mut held = self.write();
                let void = held.users.entry(user).or_insert(Void { not_before, until });
                void.not_before = void.not_before.max(not_before);
                void.until = void.until.max(until);
            }
            Revoked::Token { token } => {
                let mut held = self.write();
                let end = held.tokens.entry(token).or_insert(until);
                *end = until.max(*end);
            }
            Revoked::Session { .. } => {}
        }
    }

    pub fn have_room(&self) -> bool {
        let held = self.read();
        held.users.len().max(held.tokens.len()) < MOST
    }

    /// Whether a session may no longer be served to who proved it, by its user or by its token.
    pub fn void(&self, session: &Believed) -> bool {
        let held = self.read();
        let user = session.user.and_then(|user| held.users.get(&user));
        user.is_some_and(|void| void.covers(session))
            || session.bearing.and_then(|bearing| bearing.token).is_some_and(|token| held.tokens.contains_key(&token))
    }

    pub fn sweep(&self, now: Time) {
        if now.since(self.read().swept) < SWEEP_EVERY {
            return;
        }
        let mut held = self.write();
        held.users.retain(|_, void| now < void.until);
        held.tokens.retain(|_, until| now < *until);
        held.swept = now;
    }
}

impl Void {
    /// A token that does not say when its user logged in is taken for an old one.
    fn covers(&self, session: &Believed) -> bool {
        let early = |login: Option<u64>| login.is_none_or(|login| login.saturating_mul(1000) < self.not_before.0);
        session.created_at < self.not_before || session.bearing.is_some_and(|bearing| early(bearing.login))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserKey = UserKey([1; 16]);
    const TOKEN: TokenKey = TokenKey([2; 16]);
    const UNTIL: Time = Time(90_000);

    fn revoked(of: Revoked) -> Revocations {
        let held = Revocations::default();
        held.take(&Revocation { of, until: UNTIL });
        held
    }

    fn session(created_at: u64, bearing: Option<Bearing>) -> Believed {
        Believed { user: Some(USER), created_at: Time(created_at), bearing }
    }

    #[test]
    fn a_users_sessions_and_logins_from_before_are_void() {
        let held = revoked(Revoked::User { user: USER, not_before: Time(5_000) });
        let by_token = |created_at, login| session(created_at, Some(Bearing { login, token: None }));
        assert!(held.void(&session(4_999, None)) && !held.void(&session(5_000, None)));
        assert!(held.void(&by_token(6_000, Some(4))) && !held.void(&by_token(6_000, Some(5))));
        assert!(held.void(&by_token(4_999, Some(5))) && held.void(&by_token(6_000, None)));
        assert!(!held.void(&Believed { user: Some(UserKey([9; 16])), ..session(0, None) }));
        assert!(!held.void(&Believed { user: None, ..session(0, None) }));
        // A login of the second in which the revocation was may have been before it.
        let held = revoked(Revoked::User { user: USER, not_before: Time(5_001) });
        assert!(held.void(&by_token(6_000, Some(5))) && !held.void(&by_token(6_000, Some(6))));
    }

    #[test]
    fn the_later_of_two_revocations_holds_whichever_comes_first() {
        let held = revoked(Revoked::User { user: USER, not_before: Time(5_000) });
        held.take(&Revocation { of: Revoked::User { user: USER, not_before: Time(3_000) }, until: Time(1) });
        assert!(held.void(&session(4_000, None)));
        held.sweep(Time(80_000));
        assert!(held.void(&session(4_000, None)));
    }

    #[test]
    fn a_token_is_void_whoever_its_user_is_until_its_time() {
        let held = revoked(Revoked::Token { token: TOKEN });
        let by = |token| Believed { user: None, ..session(0, Some(Bearing { login: Some(9), token })) };
        assert!(held.void(&by(Some(TOKEN))));
        assert!(!held.void(&by(None)) && !held.void(&by(Some(TokenKey([3; 16])))) && !held.void(&session(0, None)));
        held.sweep(UNTIL);
        assert!(!held.void(&by(Some(TOKEN))));
    }
}
