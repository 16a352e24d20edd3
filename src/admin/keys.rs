//! The sealing keys: which is active, what rests on each, and the sweep that finishes a rotation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::FutureExt as _;
use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;

use crate::drain::Drain;
use crate::handle::Handle;
use crate::session::{KeyUse, KeyUses, Moved, Sessions};
use crate::store::StoreError;

use super::Admin;
use super::caller::Operator;
use super::problem::Problem;

/// How long a request may count: in a large store it says what it has counted until then.
const COUNTING: Duration = Duration::from_secs(5);

#[derive(Serialize)]
pub struct Listing {
    keys: Vec<Key>,
    /// Whether every session was counted.
    complete: bool,
    sweep: Progress,
}

#[derive(Serialize)]
struct Key {
    id: String,
    /// Absent for a key that something rests on and the keyring does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    active: bool,
    #[serde(flatten)]
    uses: KeyUse,
}

/// The sweep that seals with the active key what older keys sealed; at most one at a time.
#[derive(Debug, Clone, Default)]
pub struct Sweep(Arc<Mutex<Progress>>);

/// How far a sweep is.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Progress {
    state: Stage,
    #[serde(flatten)]
    moved: Moved,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// Where one that was broken off goes on.
    #[serde(skip)]
    after: Option<Handle>,
    /// The key that it seals with.
    #[serde(skip)]
    key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    #[default]
    Idle,
    Running,
    Done,
    /// The store failed, or the process ended. The next sweep goes on from there.
    Stopped,
}

pub async fn list(State(admin): State<Arc<Admin>>, _: Operator) -> Result<Json<Listing>, Problem> {
    let (mut uses, complete) = count(&admin.sessions).await?;
    let now = admin.sessions.now();
    let keyring = admin.sessions.keyring();
    let active = keyring.active(now);
    let held = keyring.sealing_key_ids().map(|(id, created_at)| Key {
        id: id.to_owned(),
        created_at: Some(created_at.to_string()),
        active: id == active,
        uses: uses.remove(id).unwrap_or_default(),
    });
    let mut keys: Vec<Key> = held.collect();
    keys.extend(uses.into_iter().map(|(id, uses)| Key { id, created_at: None, active: false, uses }));
    Ok(Json(Listing { keys, complete, sweep: admin.sweep.progress() }))
}

async fn count(sessions: &Sessions) -> Result<(KeyUses, bool), StoreError> {
    let (began, mut uses, mut after) = (Instant::now(), KeyUses::new(), None);
    loop {
        after = sessions.count_keys(after, &mut uses).await?;
        if after.is_none() || began.elapsed() > COUNTING {
            return Ok((uses, after.is_none()));
        }
    }
}

/// Starts the sweep; where one runs already, that one is told of.
pub async fn reseal(State(admin): State<Arc<Admin>>, _: Operator) -> (StatusCode, Json<Progress>) {
    if let Some(after) = admin.sweep.begin(&admin.sessions) {
        let (sweep, sessions, drain) = (admin.sweep.clone(), admin.sessions.clone(), admin.drain.clone());
        admin.drain.spawn(async move {
            let stage = sweep.run(&sessions, &drain, after).await;
            sweep.end(&sessions, stage);
        });
    }
    (StatusCode::ACCEPTED, Json(admin.sweep.progress()))
}

impl Sweep {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> Progress {
        self.lock().clone()
    }

    /// Where to begin, unless a sweep runs already.
    fn begin(&self, sessions: &Sessions) -> Option<Option<Handle>> {
        let mut progress = self.lock();
        if progress.state == Stage::Running {
            return None;
        }
        let key = sessions.keyring().active(sessions.now()).to_owned();
        // What was looked at under another key has to be looked at again.
        let after = progress.after.filter(|_| progress.key == key);
        // One that goes on also goes on counting.
        let moved = after.map(|_| progress.moved).unwrap_or_default();
        let started_at = Some(sessions.now().to_string());
        *progress = Progress { state: Stage::Running, moved, started_at, ended_at: None, after, key };
        Some(after)
    }

    /// Walks page by page, so that it ends soon after the drain has begun; another sweep finds what it left.
    async fn run(&self, sessions: &Sessions, drain: &Drain, mut after: Option<Handle>) -> Stage {
        while drain.begun().now_or_never().is_none() {
            let mut moved = self.lock().moved;
            let page = sessions.reseal(after, &mut moved).await;
            let mut progress = self.lock();
            progress.moved = moved;
            match page {
                Ok(next) => {
                    after = next;
                    progress.after = next;
                }
                Err(error) => {
                    tracing::warn!(target: "cloakroom::keyring", %error, "the sweep was broken off");
                    return Stage::Stopped;
                }
            }
            if after.is_none() {
                return Stage::Done;
            }
        }
        Stage::Stopped
    }

    fn end(&self, sessions: &Sessions, state: Stage) {
        let mut progress = self.lock();
        progress.state = state;
        progress.ended_at = Some(sessions.now().to_string());
    }
}
