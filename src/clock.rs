//! The wall clock, as the one place that time of day comes from.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    pub const MAX: Self = Self(u64::MAX);

    pub fn plus(self, length: Duration) -> Self {
        Self(self.0.saturating_add(millis(length)))
    }

    pub fn minus(self, length: Duration) -> Self {
        Self(self.0.saturating_sub(millis(length)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since the epoch.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    fn system(self) -> SystemTime {
        // The end of the year 9999, past which RFC 3339 has no notation.
        const LAST: u64 = 253_402_300_799_999;
        UNIX_EPOCH + Duration::from_millis(self.0.min(LAST))
    }

    /// RFC 3339 in UTC with milliseconds.
    pub fn precise(self) -> impl fmt::Display {
        humantime::format_rfc3339_millis(self.system())
    }

    /// Reads RFC 3339 in UTC.
    pub fn parse(text: &str) -> Option<Self> {
        let since = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self(millis(since)))
    }
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        time.system()
    }
}

/// RFC 3339 in UTC, whole seconds.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_rfc3339_seconds(self.system()))
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Tells the time; a clock set by hand stands still until it is moved.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that shows `start` until [`Clock::advance`] moves it.
    pub fn by_hand(start: Time) -> Self {
        Self(Some(Arc::new(AtomicU64::new(start.0))))
    }

    pub fn now(&self) -> Time {
        match &self.0 {
            Some(hand) => Time(hand.load(Ordering::Acquire)),
            None => Time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)),
        }
    }

    /// Moves a clock set by hand; the system's is not ours to move.
    pub fn advance(&self, length: Duration) {
        if let Some(hand) = &self.0 {
            hand.fetch_add(millis(length), Ordering::AcqRel);
        }
    }
}
