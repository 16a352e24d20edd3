use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::yield_now;

use super::desk::{LARGE, MANY, PASSED, READ};
use super::*;

/// Runs on a thread that says when it is about to sleep.
fn run<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().on_thread_park(before_sleep).build().unwrap();
    runtime.block_on(async {
        asleep().await;
        work.await
    })
}

/// Has the thread sleep.
async fn asleep() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// A stream, and the other side of it, which does not block.
async fn pair() -> (Tcp, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_nonblocking(true).unwrap();
    (near.into(), far)
}

/// All that has come, and whether nothing more will.
fn come(mut far: &std::net::TcpStream) -> (Vec<u8>, bool) {
    let mut come = Vec::new();
    let over = far.read_to_end(&mut come).is_ok();
    (come, over)
}

/// Reads until nothing more is to come.
async fn all(far: std::net::TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    TcpStream::from_std(far).unwrap().read_to_end(&mut all).await.unwrap();
    all
}

/// Writes until the other side takes no more; says how much that was.
async fn fill(near: &mut Tcp) -> usize {
    let piece = vec![b'.'; 64 << 10];
    let mut filled = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(50), near.write(&piece)).await {
        filled += written.unwrap();
    }
    filled
}

#[test]
fn what_is_small_goes_out_when_the_thread_has_nothing_left_to_do() {
    run(async {
        let (mut one, far_one) = pair().await;
        let (mut other, far_other) = pair().await;
        one.write_all(b"a").await.unwrap();
        other.write_all(b"b").await.unwrap();
        assert_eq!(one.write_vectored(&[IoSlice::new(b"c"), IoSlice::new(b"d")]).await.unwrap(), 2);
        one.flush().await.unwrap();
        yield_now().await;
        assert_eq!((come(&far_one), come(&far_other)), ((vec![], false), (vec![], false)));
        asleep().await;
        assert_eq!((come(&far_one), come(&far_other)), ((b"acd".to_vec(), false), (b"b".to_vec(), false)));
        one.write_all(b"e").await.unwrap();
        asleep().await;
        assert_eq!(come(&far_one), (b"e".to_vec(), false));
    });
}

#[tokio::test]
async fn nothing_waits_on_a_thread_that_does_not_say_when_it_sleeps() {
    let (mut near, far) = pair().await;
    near.write_all(b"a").await.unwrap();
    assert_eq!(come(&far), (b"a".to_vec(), false));
}

#[test]
fn what_is_large_waits_for_nothing_and_overtakes_nothing() {
    run(async {
        let (mut near, far) = pair().await;
        let (mut other, far_other) = pair().await;
        other.write_all(b"a").await.unwrap();
        near.write_all(b"b").await.unwrap();
        near.write_all(&[b'c'; SMALL + 1]).await.unwrap();
        assert_eq!(come(&far), ([b"b".as_slice(), &[b'c'; SMALL + 1]].concat(), false));
        assert_eq!(come(&far_other), (vec![], false));
        for _ in 1..PASSED / LARGE {
            near.write_all(&[b'c'; SMALL + 1]).await.unwrap();
        }
        assert_eq!(come(&far_other), (b"a".to_vec(), false), "it waits for no end of them");
        assert_eq!(come(&far).0.len(), (PASSED / LARGE - 1) * (SMALL + 1));
        // Many small ones come to something large.
        for _ in 0..=WAITING {
            near.write_all(b"d").await.unwrap();
        }
        assert!(come(&far).0.len() >= WAITING);
    });
}

#[test]
fn what_may_not_wait_goes_out_at_once_behind_what_may() {
    run(async {
        let (mut near, far) = pair().await;
        near.write_all(b"a").await.unwrap();
        near.waits(false);
        near.write_all(b"b").await.unwrap();
        assert_eq!(come(&far), (b"ab".to_vec(), false));
        near.waits(true);
        near.write_all(b"c").await.unwrap();
        assert_eq!(come(&far), (vec![], false));
        asleep().await;
        assert_eq!(come(&far), (b"c".to_vec(), false));
    });
}

#[test]
fn many_wait_for_no_more() {
    run(async {
        let mut pairs = Vec::new();
        for _ in 0..MANY {
            pairs.push(pair().await);
        }
        for (near, _) in &mut pairs {
            near.write_all(b"a").await.unwrap();
        }
        assert!(pairs.iter().all(|(_, far)| come(far).0 == b"a"));
    });
}

#[test]
fn what_is_not_taken_at_once_is_written_before_anything_else() {
    run(async {
        let (mut near, far) = pair().await;
        let filled = fill(&mut near).await;
        near.write_all(b"one").await.unwrap();
        asleep().await;
        let patience = Duration::from_millis(20);
        assert!(tokio::time::timeout(patience, near.flush()).await.is_err(), "flushed what nobody takes");
        assert!(tokio::time::timeout(patience, near.write(b"two")).await.is_err(), "wrote what nobody takes");
        let far = tokio::spawn(all(far));
        near.write_all(b"two").await.unwrap();
        near.shutdown().await.unwrap();
        let all = far.await.unwrap();
        assert_eq!(all.len(), filled + 6);
        assert!(all.ends_with(b".onetwo"));
    });
}

#[test]
fn it_is_known_whether_all_has_gone_out() {
    run(async {
        let (mut near, _far) = pair().await;
        assert!(near.has_sent());
        near.write_all(b"a").await.unwrap();
        assert!(!near.has_sent());
        asleep().await;
        assert!(near.has_sent());
        near.write_all(b"a").await.unwrap();
        near.write_all(&[b'.'; 2 * SMALL]).await.unwrap();
        assert!(near.has_sent(), "what was large took along what was small");
        asleep().await;
        fill(&mut near).await;
        near.write_all(b"b").await.unwrap();
        asleep().await;
        assert!(!near.has_sent(), "nobody takes it");
    });
}

#[test]
fn who_reads_and_reads_keeps_nobody_waiting() {
    for (each, mut left) in [(1, PASSED), (32 * READ, PASSED * READ)] {
        run(async {
            let (mut near, far) = pair().await;
            let (mut reading, far_reading) = pair().await;
            let all = vec![b'.'; left];
            let sending = std::thread::spawn(move || (&far_reading).write_all(&all));
            near.write_all(b"a").await.unwrap();
            let mut read = vec![0; each];
            while left > 0 {
                // So that there is always something to read, and the thread never sleeps.
                std::thread::sleep(Duration::from_millis(2));
                left -= reading.read(&mut read).await.unwrap();
            }
            assert_eq!(come(&far), (b"a".to_vec(), false), "{each}");
            sending.join().unwrap().unwrap();
        });
    }
}

#[test]
fn a_stream_ends_after_what_it_has_taken() {
    run(async {
        let (mut near, far) = pair().await;
        near.write_all(b"a").await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(come(&far), (b"a".to_vec(), true));

        let (mut near, far) = pair().await;
        near.write_all(b"b").await.unwrap();
        drop(near);
        assert_eq!(come(&far), (b"b".to_vec(), false), "its thread may never sleep again");
        asleep().await;
        assert_eq!(come(&far), (vec![], true));

        let (mut near, far) = pair().await;
        let filled = fill(&mut near).await;
        near.write_all(b"c").await.unwrap();
        let far = {
            let shutting = tokio::spawn(async move { near.shutdown().await });
            asleep().await;
            let far = all(far).await;
            shutting.await.unwrap().unwrap();
            far
        };
        assert_eq!(far.len(), filled + 1);
        assert!(far.ends_with(b".c"));
    });
}

#[test]
fn a_stream_that_is_dropped_is_closed_whatever_the_other_side_takes() {
    run(async {
        for known in [true, false] {
            let (mut near, far) = pair().await;
            fill(&mut near).await;
            near.write_all(b"a").await.unwrap();
            if known {
                asleep().await;
            }
            let out = Arc::downgrade(&near.out);
            drop(near);
            asleep().await;
            assert!(out.upgrade().is_none(), "somebody still waits to write: {known}");
            let all = tokio::time::timeout(Duration::from_secs(5), all(far)).await.expect("it is closed");
            assert!(all.ends_with(b"."));
        }
    });
}

#[test]
fn what_goes_wrong_is_told_to_the_next_write() {
    run(async {
        let (mut near, far) = pair().await;
        drop(far);
        near.write_all(b"a").await.unwrap();
        asleep().await;
        near.write_all(b"b").await.unwrap();
        asleep().await;
        for _ in 0..2 {
            let failed = near.write_all(b"c").await.map_err(|error| error.kind());
            assert_eq!(failed, Err(io::ErrorKind::BrokenPipe));
            assert!(near.flush().await.is_err() && near.shutdown().await.is_err());
        }
    });
}

#[test]
fn a_unix_socket_is_written_to_alike() {
    run(async {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut near = Unix::from(near);
        near.write_all(b"a").await.unwrap();
        near.shutdown().await.unwrap();
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"a");
    });
}
