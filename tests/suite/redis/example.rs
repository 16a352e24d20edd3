//! The published examples, each started as it is but for the addresses.

use cloakroom::keyring::Keyring;

use super::sidecar::ready;
use super::*;
use crate::binary::Binary;
use crate::redis_server::{Certificates, Cluster, Raw, Watched, wait_for};

/// The user of every example, with what docs/redis.md says that it needs.
fn admit(raw: &mut Raw) {
    let needed = super::start::NEEDED;
    let line = format!("ACL SETUSER cloakroom on >shared-secret ~shop:* {needed} +cluster|slots +cluster|info +wait");
    raw.say::<()>(&line);
}

/// Starts an example, these addresses in the place of those, until it is ready and serves a session.
fn starts(example: &str, addresses: &[(&str, String)]) {
    let folder = tempfile::tempdir().unwrap();
    Keyring::load_or_create(&folder.path().join("keyring.json"), Duration::ZERO, Clock::system().now()).unwrap();
    for (name, secret) in [("secret", "shared-secret"), ("token", crate::durability::TOKEN)] {
        std::fs::write(folder.path().join(name), secret).unwrap();
    }
    let mut text = example
        .replace("/keys/keyring.json", "./keyring.json")
        .replace("${env:CLOAKROOM_REDIS_PASSWORD}", "${file:secret}")
        .replace("token: ${env:CLOAKROOM_ADMIN_TOKEN}", "token: ${file:token}\n  address: '127.0.0.1:0'");
    for (there, here) in addresses {
        assert!(text.contains(there), "{there}");
        text = text.replace(there, here);
    }
    let path = folder.path().join("cloakroom.yaml");
    let listeners = "listeners: [{ address: '127.0.0.1:0' }]\nstatus: { address: '127.0.0.1:0' }\n";
    std::fs::write(&path, format!("{text}{listeners}")).unwrap();
    let binary = Binary::serve(&path);
    wait_for("readiness", || ready(binary.admin).starts_with("HTTP/1.1 200").then_some(()));
    let fields = r#"{"fields":{"user_id":"u-1","basket":"b-1"}}"#;
    let created = crate::durability::admin(&binary, "POST", "/v1/sessions", fields);
    let place = format!("/v1/sessions/{}", created["session"].as_str().unwrap());
    let read = crate::durability::admin(&binary, "GET", &place, "");
    assert_eq!(read["fields"]["basket"], "b-1");
    assert_eq!(binary.terminate(), Some(0));
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[test]
fn example_of_one_server_starts() {
    let server = Server::start();
    admit(&mut server.raw());
    starts(include_str!("../../../config/redis.yaml"), &[("redis:6379", local(server.port))]);
}

#[test]
fn example_of_tls_starts() {
    let certificates = Certificates::of("127.0.0.1");
    let (server, port) = certificates.server(&[]);
    admit(&mut server.raw());
    let ca = certificates.path("ca").display().to_string();
    let addresses = [("redis:6380", local(port)), ("/tls/redis-ca.crt", ca)];
    starts(include_str!("../../../config/redis-tls.yaml"), &addresses);
}

#[test]
fn example_of_sentinels_starts() {
    let watched = Watched::start();
    watched.servers.iter().for_each(|server| admit(&mut server.raw()));
    let dead = crate::redis_server::free_port();
    let addresses = [("sentinel-0:26379", dead), ("sentinel-1:26379", watched.port), ("sentinel-2:26379", dead)];
    let addresses = addresses.map(|(there, port)| (there, local(port)));
    starts(include_str!("../../../config/redis-sentinel.yaml"), &addresses);
}

#[test]
fn example_of_a_cluster_starts() {
    let cluster = Cluster::shared();
    cluster.raws().iter_mut().for_each(admit);
    let there = ["redis-0:6379", "redis-1:6379", "redis-2:6379"];
    let here = cluster.primaries.iter().map(|primary| local(primary.port));
    starts(include_str!("../../../config/redis-cluster.yaml"), &there.into_iter().zip(here).collect::<Vec<_>>());
}
