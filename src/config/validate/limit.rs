use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::{Problems, Rate, RateLimit, RateLimitPer, RateLimitScope, Route, SessionUse, StoreKind};

/// What comes back more slowly is no rate, and what is counted in nanoseconds must not overflow.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

pub(super) fn validate(base: &str, route: &Route, store: StoreKind, problems: &mut Problems) {
    for (index, limit) in route.rate_limits.iter().enumerate() {
        let place = format!("{base}/{index}");
        if route.session == SessionUse::None && matches!(limit.per, RateLimitPer::Session | RateLimitPer::User) {
            problems.error(format!("{place}/per"), "this route has no session");
        }
        quota(&place, limit.rate, limit.burst, problems);
        scope(&place, limit, store, problems);
    }
}

/// Refuses what cannot be counted.
pub(super) fn quota(place: &str, rate: Rate, burst: NonZeroU32, problems: &mut Problems) {
    let period = rate.per / rate.count.get();
    if period.is_zero() {
        problems.error(format!("{place}/rate"), "no more than a thousand million a second can be counted");
    } else if period.saturating_mul(burst.get()) > LONGEST {
        problems.error(format!("{place}/burst"), "at this rate, what is used up would not be back within a year");
    }
}

fn scope(place: &str, limit: &RateLimit, store: StoreKind, problems: &mut Problems) {
    match limit.scope {
        RateLimitScope::Local if limit.on_failure.is_some() => {
            let help = "remove it, or set `scope: cluster`";
            problems.error_with_help(format!("{place}/on_failure"), "a limit of one sidecar does not fail", help);
        }
        RateLimitScope::Cluster if store != StoreKind::Redis => {
            problems.warning(format!("{place}/scope"), "no other sidecar shares this store; it counts as `local` does");
        }
        RateLimitScope::Local | RateLimitScope::Cluster => {}
    }
}
