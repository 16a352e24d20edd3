//! Servers that show certificates.

use cloakroom::store::{Counts, StoreError};

use super::*;
use crate::redis_server::Certificates;
use crate::store::fixture::*;

fn config(port: u16, certificates: &Certificates) -> config::Store {
    config::Store { ca: Some(certificates.path("ca")), ..redis_config(&format!("rediss://127.0.0.1:{port}/0")) }
}

async fn refused(config: &config::Store) -> String {
    match Redis::open(config, "prod", bounds(), Clock::system(), Counts::default()).await {
        Ok(_) => panic!("it was taken"),
        Err(unusable) => unusable.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_travel_over_tls_by_a_user_with_the_least_permissions() {
    let certificates = Certificates::of("127.0.0.1");
    let (server, port) = certificates.server(&[]);
    let needed = super::start::NEEDED;
    server.raw().say::<()>(&format!("ACL SETUSER least on >secret-word ~prod:* {needed}"));
    let mut config = config(port, &certificates);
    config.url = Some(format!("rediss://least:secret-word@127.0.0.1:{port}").into());
    let (first, second) = (home_with(config.clone(), "prod").await, home_with(config, "prod").await);
    let session = first.session().await;
    assert_done(&session.set(1, "a", "1").await, 2, 2);
    second.store.load(session.handle).await.unwrap().unwrap();
    session.revoke(first.now().plus(IDLE)).await;
    let took = until("the tombstone", async || {
        let entry = second.store.load(session.handle).await.unwrap().unwrap();
        matches!(&*entry, cloakroom::store::Entry::Revoked(_))
    })
    .await;
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_nobody_vouches_for_is_refused() {
    let (certificates, others) = (Certificates::of("127.0.0.1"), Certificates::of("127.0.0.1"));
    let (_server, port) = certificates.server(&[]);
    let unknown = "store.url: the server's certificate comes from nobody who is trusted; store.ca names who is";
    assert_eq!(refused(&config(port, &others)).await, unknown);
    let by_platform = config::Store { ca: None, ..config(port, &certificates) };
    assert_eq!(refused(&by_platform).await, unknown);
    let elsewhere = Certificates::of("redis.example.com");
    let (_other, port) = elsewhere.server(&[]);
    assert_eq!(refused(&config(port, &elsewhere)).await, "store.url: the server's certificate is not for this host");
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_that_are_none_are_refused() {
    let certificates = Certificates::of("127.0.0.1");
    let ca = |name: &str| config::Store { ca: Some(certificates.path(name)), ..config(1, &certificates) };
    assert!(refused(&ca("key")).await.ends_with("key holds no certificate in PEM"));
    let missing = refused(&ca("nowhere")).await;
    assert!(missing.starts_with("store.ca: ") && missing.contains("nowhere cannot be read"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_without_tls_is_told_as_that() {
    let certificates = Certificates::of("127.0.0.1");
    let server = Server::start();
    let home = home_with(config(server.port, &certificates), "prod").await;
    let mut told = String::new();
    until("a reason", async || match home.store.reachable().await {
        Err(StoreError::Unavailable(reason)) => {
            told = reason;
            told.contains("TLS")
        }
        _ => false,
    })
    .await;
    assert_eq!(told, "it does not answer in TLS; redis:// is without");
}
