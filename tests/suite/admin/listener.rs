use std::time::Duration;

use cloakroom::admin::serve;
use cloakroom::drain::Drain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::desk::Desk;

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut read = vec![0; 4096];
    let length = stream.read(&mut read).await.unwrap();
    String::from_utf8(read[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn a_listener_answers_while_the_proxy_drains_and_ends_with_it() {
    let desk = Desk::open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, drain) = (listener.local_addr().unwrap(), Drain::default());
    let served = tokio::spawn(serve(listener, cloakroom::in_force::InForce::new(desk.status()), drain.clone()));
    let mut kept = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut kept).await.starts_with("HTTP/1.1 503 "));
    drain.begin();
    desk.readiness.holds("store");
    assert!(ask(&mut kept).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(&mut TcpStream::connect(address).await.unwrap()).await.starts_with("HTTP/1.1 200 "));
    drain.finish(Duration::from_secs(1)).await;
    served.await.unwrap();
    assert_eq!(kept.read(&mut [0]).await.unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err());
}
