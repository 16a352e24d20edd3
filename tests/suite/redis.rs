//! The store in Redis, beyond what every home promises: its layout, its cache, and what it does when the server
//! or the way to it fails.

mod cache;
mod cluster;
mod example;
mod fault;
mod fleet;
mod layout;
mod limit;
mod own;
mod refusal;
mod relay;
mod replicas;
mod sentinel;
mod sidecar;
mod start;
mod tls;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cloakroom::clock::Clock;
use cloakroom::config::{self, CacheMode, Period};
use cloakroom::store::{Counts, Listener, Redis, Revocation};

use crate::redis_server::{Server, environment};
use crate::store::fixture::{Home, bounds, redis_config};

/// What callers wait for an answer, where a test is about that.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A home as a sidecar has it, by the true time.
async fn home(url: &str, environment: &str) -> Home {
    home_with(redis_config(url), environment).await
}

/// One that waits no longer than `TIMEOUT`.
async fn hasty_home(url: &str) -> Home {
    let timeout = Period::millis(TIMEOUT.as_millis() as u64);
    home_with(config::Store { timeout, ..redis_config(url) }, "prod").await
}

async fn home_with(config: config::Store, environment: &str) -> Home {
    let clock = Clock::system();
    let store = Redis::open(&config, environment, bounds(), clock.clone(), Counts::default()).await.unwrap();
    Home::of(Arc::new(store), clock)
}

fn with_mode(url: &str, mode: CacheMode) -> config::Store {
    config::Store { cache: config::StoreCache { mode, ..Default::default() }, ..redis_config(url) }
}

/// Two sidecars on one server, in an environment that nobody else has.
async fn two() -> (Home, Home, Arc<Server>, String) {
    let (server, environment) = (Server::shared(), environment());
    let (first, second) = (home(&server.url(), &environment).await, home(&server.url(), &environment).await);
    (first, second, server, environment)
}

/// Tries until it holds, and says how long that took.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} does not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    begun.elapsed()
}

/// Keeps what a home tells of the feed.
fn heard(home: &Home) -> Arc<Mutex<Vec<Revocation>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = heard.clone();
    let listener: Listener = Arc::new(move |revocation: &Revocation| ears.lock().unwrap().push(revocation.clone()));
    assert!(home.store.follow(listener));
    heard
}
