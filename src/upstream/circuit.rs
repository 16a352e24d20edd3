//! Whether a backend takes connections, so that one that does not is not waited for by every request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections in a row that came to nothing before requests are turned away: fewer may be a mere restart.
const TOLERATED: u32 = 3;
/// How long requests are turned away before one tries again. It bounds how late a backend that is back is noticed.
const PAUSE: Duration = Duration::from_secs(1);

/// Closed while a backend takes connections; open while it does not, but for one try now and then.
///
/// Only connections count, never what a backend answers or how long it takes: slow is not down.
#[derive(Debug, Default)]
pub struct Circuit(Mutex<State>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One request tries; the others are turned away.
    Trying,
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// Leave to connect. One that is dropped without a result, because its client left, says nothing of the backend.
#[derive(Debug)]
pub struct Attempt<'c> {
    circuit: &'c Circuit,
    tries: bool,
}

impl Circuit {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to connect; else how long until there may be some.
    pub fn attempt(&self, now: Instant) -> Result<Attempt<'_>, Duration> {
        let mut state = self.state();
        let tries = match *state {
            State::Closed { .. } => false,
            State::Open { until } if now >= until => {
                *state = State::Trying;
                true
            }
            State::Open { until } => return Err(until - now),
            State::Trying => return Err(PAUSE),
        };
        Ok(Attempt { circuit: self, tries })
    }

    /// Whether requests are turned away.
    pub fn is_open(&self) -> bool {
        !matches!(*self.state(), State::Closed { .. })
    }
}

impl Attempt<'_> {
    /// The backend took the connection: whatever was before, it is there.
    pub fn succeeded(mut self) {
        self.tries = false;
        *self.circuit.state() = State::default();
    }

    pub fn failed(mut self, now: Instant) {
        let mut state = self.circuit.state();
        *state = match *state {
            State::Closed { failures } if failures + 1 < TOLERATED => State::Closed { failures: failures + 1 },
            State::Closed { .. } => State::Open { until: now + PAUSE },
            State::Trying if self.tries => State::Open { until: now + PAUSE },
            // Begun before it opened, and late.
            other => other,
        };
        self.tries = false;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.tries {
            *self.circuit.state() = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Circuit {
        let circuit = Circuit::default();
        for _ in 0..TOLERATED {
            assert!(!circuit.is_open());
            circuit.attempt(now).unwrap().failed(now);
        }
        circuit
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_a_success_between_them_counts() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        for _ in 0..10 {
            circuit.attempt(now).unwrap().failed(now);
            circuit.attempt(now).unwrap().succeeded();
        }
        assert!(!circuit.is_open());
        let circuit = opened(now);
        assert_eq!(circuit.attempt(now).map(|_| ()), Err(PAUSE));
        assert_eq!(circuit.attempt(now + PAUSE / 4).map(|_| ()), Err(PAUSE / 4 * 3));
    }

    #[test]
    fn one_at_a_time_tries_again_and_a_success_closes_it_at_once() {
        let now = Instant::now();
        let circuit = opened(now);
        let first = circuit.attempt(now + PAUSE).unwrap();
        assert!(circuit.attempt(now + PAUSE).is_err(), "only one");
        first.failed(now + PAUSE);
        assert!(circuit.attempt(now + PAUSE + PAUSE / 2).is_err());
        let second = circuit.attempt(now + PAUSE + PAUSE).unwrap();
        second.succeeded();
        assert!(!circuit.is_open());
        assert!(circuit.attempt(now).is_ok() && circuit.attempt(now).is_ok());
    }

    #[test]
    fn a_try_whose_client_left_makes_room_for_the_next() {
        let now = Instant::now();
        let circuit = opened(now);
        drop(circuit.attempt(now + PAUSE).unwrap());
        assert!(circuit.attempt(Instant::now() + PAUSE).is_ok());
    }

    #[test]
    fn what_began_before_it_opened_closes_it_with_a_success_and_extends_nothing_with_a_failure() {
        let now = Instant::now();
        let circuit = Circuit::default();
        let (late, later) = (circuit.attempt(now).unwrap(), circuit.attempt(now).unwrap());
        for _ in 0..TOLERATED {
            circuit.attempt(now).unwrap().failed(now);
        }
        late.failed(now + PAUSE / 2);
        assert_eq!(circuit.attempt(now).map(|_| ()), Err(PAUSE));
        later.succeeded();
        assert!(!circuit.is_open());
    }
}
