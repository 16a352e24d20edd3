//! Limits that are counted in the server.

use std::num::NonZeroU32;

use cloakroom::quota::Quota;
use cloakroom::store::{StoreError, Taken};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn quota(burst: u32, period: Duration) -> Quota {
    Quota { burst: NonZeroU32::new(burst).unwrap(), period }
}

async fn take(home: &Home, quota: Quota) -> Result<Taken, StoreError> {
    home.store.take("a:client:192.0.2.1", quota).expect("a home that can be shared").await
}

fn is_none_for(taken: &Result<Taken, StoreError>, about: Duration) -> bool {
    matches!(taken, Ok(Taken::NoneFor(wait)) if *wait <= about && *wait > about.mul_f64(0.95))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_comes_back_after_each_period() {
    let (first, second, _server, _) = two().await;
    let three = quota(3, Duration::from_millis(300));
    for home in [&first, &second, &first] {
        assert_eq!(take(home, three).await, Ok(Taken::One));
    }
    let Ok(Taken::NoneFor(wait)) = take(&second, three).await else { panic!("none is left") };
    assert!(wait <= Duration::from_millis(300));
    tokio::time::sleep(wait).await;
    assert_eq!(take(&first, three).await, Ok(Taken::One));
    assert!(matches!(take(&second, three).await, Ok(Taken::NoneFor(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_key_and_other_environment_are_other_quotas() {
    let (home, _, server, _) = two().await;
    let one = quota(1, HOUR);
    assert_eq!(take(&home, one).await, Ok(Taken::One));
    assert!(is_none_for(&take(&home, one).await, HOUR));
    assert_eq!(home.store.take("a:client:192.0.2.2", one).unwrap().await, Ok(Taken::One));
    assert_eq!(take(&self::home(&server.url(), &environment()).await, one).await, Ok(Taken::One));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stood_there_before_closes_a_quota_for_no_longer_than_its_window() {
    let (home, _, server, env) = two().await;
    let (key, mut raw) = (format!("{env}:limits:{{a:client:192.0.2.1}}"), server.raw());
    // A slower quota of that name, or a server whose clock was ahead.
    let () = raw.say(&format!("SET {key} 99999999999999999"));
    assert!(is_none_for(&take(&home, quota(2, HOUR)).await, HOUR));
    assert!(is_none_for(&take(&home, quota(1, HOUR / 2)).await, HOUR / 2));
    let () = raw.say(&format!("SET {key} nonsense"));
    assert_eq!(take(&home, quota(1, HOUR)).await, Ok(Taken::One));
    let () = raw.say(&format!("DEL {key}"));
    let () = raw.say(&format!("HSET {key} a 1"));
    assert!(matches!(take(&home, quota(1, HOUR)).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn home_of_one_process_does_not_count() {
    for home in [Home::memory(), Home::embedded()] {
        assert!(home.store.take("a:route:all", quota(1, HOUR)).is_none());
    }
}
