//! Whole sidecars on one server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use cloakroom::keyring::Keyring;
use cloakroom::session::{Actor, ActorKind, CommitError, KeyUses, Moved};
use serde_json::json;

use super::*;
use crate::binary::Binary;
use crate::house::{Answer, Gate, Guest, House, Plan};
use crate::identity::login::Login;
use crate::redis_server::wait_for;
use crate::session::by_token::{CLAIMS, enters, token};
use crate::store::fixture::SECOND;

/// What sidecars of one fleet share.
struct Fleet {
    server: Arc<Server>,
    environment: String,
    folder: tempfile::TempDir,
}

impl Fleet {
    fn new(server: Arc<Server>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keyring = folder.path().join("keyring.json");
        Keyring::load_or_create(&keyring, Duration::ZERO, Clock::system().now()).unwrap();
        Self { server, environment: environment(), folder }
    }

    fn plan(&self) -> Plan {
        self.of(Plan::new())
    }

    fn of(&self, plan: Plan) -> Plan {
        plan.redis(&self.server.url(), &self.environment, &self.folder.path().join("keyring.json"))
    }

    fn with(&self, plan: Plan) -> House {
        self.of(plan).open()
    }

    fn house(&self) -> House {
        self.plan().open()
    }

    /// A file for the program itself.
    fn file(&self, url: &str) -> std::path::PathBuf {
        let text = format!(
            "version: 1
environment: {}
listeners: [{{ address: '127.0.0.1:0' }}]
admin: {{ address: '127.0.0.1:0' }}
status: {{ address: '127.0.0.1:0' }}
store: {{ kind: redis, url: '{url}' }}
keyring: {{ path: ./keyring.json }}
session: {{ schema: {{ version: 1, fields: {{ step: {{ type: integer }} }} }} }}
routes: [{{ name: a, upstream: 'http://127.0.0.1:9' }}]
",
            self.environment
        );
        let path = self.folder.path().join("cloakroom.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }
}

#[test]
fn session_of_one_sidecar_is_every_sidecars() {
    let fleet = Fleet::new(Server::shared());
    let (first, second) = (fleet.house(), fleet.house());
    let guest = first.guest(json!({ "user_id": "u-1", "email": "ada@example.com" }));
    second.backend.next(Answer::set("step=7"));
    second.get("/chat").cookie(&guest).send().passed();
    let begun = Instant::now();
    first.until("the other's write", || first.revision(&guest) == 2);
    assert!(begun.elapsed() < SECOND);
    assert_eq!(first.resolved(&guest, "email"), second.resolved(&guest, "email"));
}

#[test]
fn revocation_by_one_sidecar_closes_the_streams_of_another_within_a_second() {
    let fleet = Fleet::new(Server::shared());
    let (first, second) = (fleet.house(), fleet.house());
    for by_user in [false, true] {
        let guest = first.guest(json!({ "user_id": "u-1" }));
        let gate = Gate::closed();
        second.backend.next(Answer::ok().body("begun").wait(&gate));
        let stream = second.get("/chat").cookie(&guest).start();
        let begun = Instant::now();
        if by_user {
            first.revoke_user("u-1")
        } else {
            first.revoke(&guest)
        }
        assert!(stream.breaks_off());
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
        second.get("/chat").cookie(&guest).send().is(401, "session-revoked");
    }
}

#[test]
fn hanging_server_is_an_outage_and_no_logout() {
    let fleet = Fleet::new(Server::start());
    let house = fleet.house();
    let guest = house.guest(json!({}));
    house.get("/chat").cookie(&guest).send().passed();
    fleet.server.freeze();
    let begun = Instant::now();
    let mut codes = Vec::new();
    while begun.elapsed() < 2 * SECOND {
        codes.push(house.get("/chat").cookie(&guest).send().status);
    }
    fleet.server.thaw();
    assert!(codes.contains(&503) && codes.iter().all(|code| [200, 503].contains(code)), "{codes:?}");
    let thawed = Instant::now();
    house.until("recovery", || house.get("/chat").cookie(&guest).send().status == 200);
    assert!(thawed.elapsed() < 2 * SECOND, "{:?}", thawed.elapsed());
}

#[test]
fn a_new_id_is_good_everywhere_at_once() {
    let fleet = Fleet::new(Server::start());
    let (one, other) = (fleet.house(), fleet.house());
    for _ in 0..100 {
        let guest = one.guest(json!({ "step": 1 }));
        other.get("/chat").bearer(&guest).send().passed();
        one.backend.next(Answer::ok().header("cloakroom-rotate", "?1"));
        let renewed = one.get("/chat").bearer(&guest).send();
        let id = renewed.passed().header("cloakroom-session-id").unwrap().to_owned();
        other.get("/chat").bearer(&Guest::of(&id)).send().passed();
    }
}

#[test]
fn a_revocation_that_is_repeated_is_told_again() {
    let fleet = Fleet::new(Server::start());
    let (one, other) = (fleet.house(), fleet.house());
    let guest = one.guest(json!({}));
    one.revoke(&guest);
    // As if whoever revoked it had died before it could tell.
    let feed = format!("{}:revocations", fleet.environment);
    assert_eq!(fleet.server.raw().say::<u64>(&format!("DEL {feed}")), 1);
    let actor = Actor::new(ActorKind::Admin);
    let again = other.wait_for(other.sessions().revoke(guest.handle, None, &actor));
    assert_eq!(again, Err(CommitError::Revoked));
    assert_eq!(fleet.server.raw().say::<u64>(&format!("XLEN {feed}")), 1);
}

#[test]
fn sessions_that_are_served_through_an_outage_are_taken_from_nobody_by_what_is_known_of_them() {
    let fleet = Fleet::new(Server::start());
    let house = fleet.plan().store("on_failure: stale, stale_for: 30s").open();
    let guest = house.guest(json!({}));
    house.get("/chat").cookie(&guest).send().passed();
    // Its secret may have been renewed where we could not hear of it.
    let renewed = guest.impostor();
    house.get("/chat").cookie(&renewed).send().is(401, "credential-invalid");
    fleet.server.kill();
    house.until("the outage", || house.get("/chat").cookie(&renewed).send().status != 401);
    house.get("/chat").cookie(&renewed).send().is(503, "store-unavailable");
    house.get("/chat").cookie(&guest).send().passed();
    // And it may have been used.
    house.clock.advance(Duration::from_secs(10 * 24 * 60 * 60));
    house.get("/chat").cookie(&guest).send().is(503, "store-unavailable");
    fleet.server.revive();
    house.until("recovery", || house.get("/chat").cookie(&renewed).send().status == 401);
}

#[test]
fn a_session_that_cannot_be_read_keeps_nobody_from_the_others() {
    let fleet = Fleet::new(Server::start());
    let house = fleet.house();
    let [damaged, other] = [(); 2].map(|()| house.guest(json!({ "user_id": "u-1" })));
    let key = format!("{}:sessions:{{{}}}", fleet.environment, damaged.handle);
    assert_eq!(fleet.server.raw().say::<u64>(&format!("HDEL {key} @birth")), 1);
    house.until("the damage", || house.get("/chat").cookie(&damaged).send().status == 503);
    house.wait_for(async {
        let sessions = house.sessions();
        let (mut uses, mut moved) = (KeyUses::default(), Moved::default());
        sessions.count_keys(None, &mut uses).await.unwrap();
        sessions.reseal(None, &mut moved).await.unwrap();
        assert_eq!((moved.sessions, moved.skipped), (2, 1));
        let listed = sessions.sessions_of(&sessions.keys_of_user(None, "u-1")).await.unwrap();
        assert_eq!(listed.iter().map(|session| session.handle()).collect::<Vec<_>>(), [other.handle]);
    });
    house.revoke_user("u-1");
    house.get("/chat").cookie(&other).send().is(401, "session-revoked");
}

pub fn ready(admin: SocketAddr) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn sidecar_is_ready_once_its_server_is() {
    let fleet = Fleet::new(Server::start());
    fleet.server.kill();
    let binary = Binary::serve(&fleet.file(&fleet.server.url()));
    let answer = ready(binary.admin);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("the connection was refused"), "{answer}");
    fleet.server.revive();
    wait_for("readiness", || ready(binary.admin).starts_with("HTTP/1.1 200").then_some(()));
    assert_eq!(binary.terminate(), Some(0));
}

#[test]
fn wrong_password_ends_the_program_with_one_line() {
    let fleet = Fleet::new(Server::start_with(&["--requirepass", "right-password"]));
    let path = fleet.file(&format!("redis://127.0.0.1:{}/0", fleet.server.port));
    let output = Binary::run(&["run", "--config", &text(&path)]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = said.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("store.url: the server asks for a password"), "{said}");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_user_has_no_more_sessions_than_the_bound_on_all_sidecars_together() {
    let fleet = Fleet::new(Server::shared());
    let open = || fleet.plan().session("max_per_user: 2").open();
    let (first, second) = (open(), open());
    let guests: Vec<_> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..10)
            .map(|n| {
                let house = if n % 2 == 0 { &first } else { &second };
                scope.spawn(move || {
                    let path = format!("/login/{n}");
                    house.backend.next_to(&path, Answer::ok().header("cloakroom-start", "user_id=\"u-1\""));
                    house.get(&path).send().guest()
                })
            })
            .collect();
        tasks.into_iter().map(|task| task.join().unwrap()).collect()
    });
    let living =
        |house: &House| guests.iter().filter(|guest| house.get("/chat").cookie(guest).send().status == 200).count();
    let begun = Instant::now();
    for house in [&first, &second] {
        house.until("the surplus is revoked", || living(house) == 2);
    }
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

#[test]
fn first_requests_of_a_token_on_two_sidecars_make_one_session() {
    let login = Login::new();
    let fleet = Fleet::new(Server::shared());
    let houses = [fleet.with(login.plan(CLAIMS)), fleet.with(login.plan(CLAIMS))];
    let bearer = token(&login, &houses[0], json!({}));
    std::thread::scope(|scope| {
        for n in 0..16 {
            let (house, bearer) = (&houses[n % 2], &bearer);
            scope.spawn(move || assert_eq!(house.with_token("/chat", bearer).send().status, 200));
        }
    });
    let guest = enters(&houses[0], &bearer);
    let trail = houses[1].trail(&guest);
    assert_eq!(trail.iter().map(|record| record["action"].clone()).collect::<Vec<_>>(), ["create"]);
}

#[test]
fn revocation_of_a_tokens_session_user_or_id_is_every_sidecars_within_a_second() {
    let login = Login::new();
    let fleet = Fleet::new(Server::shared());
    let (first, second) = (fleet.with(login.plan(CLAIMS)), fleet.with(login.plan(CLAIMS)));
    for by in ["session", "user", "token"] {
        let bearer = token(&login, &first, json!({ "sub": by, "jti": by }));
        let guest = enters(&first, &bearer);
        let gate = Gate::closed();
        second.backend.next(Answer::ok().body("begun").wait(&gate));
        let stream = second.with_token("/chat", &bearer).start();
        let begun = Instant::now();
        match by {
            "session" => first.revoke(&guest),
            "user" => {
                first.clock.advance(SECOND);
                first.revoke_user(by);
            }
            _ => first.revoke_token(by, 600),
        }
        assert!(stream.breaks_off(), "{by}");
        assert!(begun.elapsed() < SECOND, "{by}: {:?}", begun.elapsed());
        second.with_token("/chat", &bearer).send().is(401, "session-revoked");
        gate.open();
    }
}
