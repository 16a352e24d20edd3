//! A way to the server that can be cut at the worst moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Passes bytes on, until it is told to lose what the server answers to a script.
#[derive(Clone)]
pub struct Relay {
    pub port: u16,
    lose: Arc<AtomicBool>,
    /// Whether the connection ends when an answer is lost, or goes on in silence.
    hang: Arc<AtomicBool>,
    /// Whether that goes on with every script.
    always: Arc<AtomicBool>,
}

impl Relay {
    pub async fn open(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let relay = Self { port, lose: Arc::default(), hang: Arc::default(), always: Arc::default() };
        let accepting = relay.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                tokio::spawn(accepting.clone().pass(client, server));
            }
        });
        relay
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Has the next script be carried out and its answer be lost with its connection.
    pub fn cut_after_next_script(&self) {
        self.lose.store(true, Ordering::SeqCst);
    }

    /// Has the next script be carried out and nothing be heard on its connection any more.
    pub fn silence_after_next_script(&self) {
        self.hang.store(true, Ordering::SeqCst);
        self.lose.store(true, Ordering::SeqCst);
    }

    /// Has every script from now on be carried out and nothing be heard of it.
    pub fn silence_every_script(&self) {
        self.always.store(true, Ordering::SeqCst);
        self.hang.store(true, Ordering::SeqCst);
    }

    /// Loses nothing more on the connections to come.
    pub fn heal(&self) {
        self.always.store(false, Ordering::SeqCst);
    }

    /// Whether the answer was lost.
    pub fn has_lost(&self) -> bool {
        !self.lose.load(Ordering::SeqCst)
    }

    async fn pass(self, mut client: TcpStream, mut server: TcpStream) {
        let (mut asked, mut answered) = ([0; 65536], [0; 65536]);
        let mut losing = false;
        loop {
            tokio::select! {
                read = client.read(&mut asked) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(n) => {
                        let script = asked[..n].windows(4).any(|word| word == b"EVAL");
                        let loses =
                            script && (self.lose.swap(false, Ordering::SeqCst) || self.always.load(Ordering::SeqCst));
                        losing |= loses;
                        if server.write_all(&asked[..n]).await.is_err() { return; }
                    }
                },
                read = server.read(&mut answered) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) if losing && !self.hang.load(Ordering::SeqCst) => return,
                    Ok(_) if losing => {}
                    Ok(n) => if client.write_all(&answered[..n]).await.is_err() { return; },
                },
            }
        }
    }
}
