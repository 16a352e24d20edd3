//! What is refused at the start, and what is waited for.

use cloakroom::store::{StoreError, Unusable};

use super::*;
use crate::store::fixture::SECOND;

/// What a user has to be allowed.
pub const NEEDED: &str = "+ping +hello +auth +select +client|tracking +client|setname +hgetall +hmget +hset +hdel \
    +pexpire +pttl +del +xadd +xread +xrange +xrevrange +xdel +zadd +zrem +zrange +zremrangebyscore +scan +eval +evalsha";

async fn refused(url: &str) -> String {
    let unusable: Unusable =
        match Redis::open(&redis_config(url), "prod", bounds(), Clock::system(), Counts::default()).await {
            Ok(_) => panic!("{url} was taken"),
            Err(unusable) => unusable,
        };
    unusable.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_patience_mends_is_refused_in_one_line() {
    let server = Server::start_with(&["--requirepass", "right-password"]);
    let at = |user: &str| format!("redis://{user}127.0.0.1:{}/0", server.port);
    assert_eq!(refused(&at("")).await, "store.url: the server asks for a password");
    let wrong = "store.url: the server refuses the user or the password";
    assert_eq!(refused(&at(":wrong-password@")).await, wrong);
    assert_eq!(refused(&at("nobody:right-password@")).await, wrong);
    let database = format!("redis://:right-password@127.0.0.1:{}/99", server.port);
    assert_eq!(refused(&database).await, "store.url: the server has no database of that number");
    assert_eq!(refused("nonsense").await, "store.url: this is not a URL of a Redis server");
    assert!(
        Redis::open(&redis_config(&at(":right-password@")), "prod", bounds(), Clock::system(), Counts::default())
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn user_without_a_permission_is_refused_by_its_name() {
    let server = Server::start();
    let mut raw = server.raw();
    for (rules, missing) in [
        ("+@all -hset", "HSET on prod:sessions:{ses_}"),
        ("+@all -xadd", "XADD on prod:audit:{ses_}"),
        ("+@all -hgetall", "HGETALL"),
        ("+@all -scan", "SCAN"),
        ("+@all -eval", "EVAL and EVALSHA"),
        ("+@all resetkeys ~other:*", "HGETALL"),
    ] {
        raw.say::<()>(&format!("ACL SETUSER limited on >secret-word resetkeys ~* {rules}"));
        let said = refused(&format!("redis://limited:secret-word@127.0.0.1:{}/0", server.port)).await;
        assert_eq!(said, format!("store.url: this user lacks the permission for {missing}"), "{rules}");
        raw.say::<()>("ACL DELUSER limited");
    }
    // What it needs, and nothing more.
    let needed = NEEDED;
    raw.say::<()>(&format!("ACL SETUSER least on >secret-word ~prod:* {needed}"));
    let home = home(&format!("redis://least:secret-word@127.0.0.1:{}/0", server.port), "prod").await;
    let session = home.session().await;
    crate::store::fixture::assert_done(&session.set(1, "a", "1").await, 2, 2);
    assert!(session.touch(home.now()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_is_not_there_yet_is_waited_for() {
    let server = Server::start();
    server.kill();
    let home = home(&server.url(), "prod").await;
    until("a reason", async || matches!(home.store.reachable().await, Err(StoreError::Unavailable(_)))).await;
    server.revive();
    let took = until("the store", async || home.store.reachable().await.is_ok()).await;
    assert!(took < SECOND, "{took:?}");
    home.session().await;
}
