//! A primary and its replica, and a sentinel that watches over them.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use redis::Connection;
use tempfile::TempDir;

use super::{Raw, Server, free_port, wait_for};

/// What the sentinel calls them.
pub const SERVICE: &str = "sessions";

pub struct Watched {
    /// The first is the primary, to begin with.
    pub servers: [Arc<Server>; 2],
    sentinel: Child,
    pub port: u16,
    _folder: TempDir,
}

impl Watched {
    pub fn start() -> Self {
        Self::start_with(&[], "")
    }

    /// With options of both servers, and lines of the sentinel's file.
    pub fn start_with(options: &[&str], lines: &str) -> Self {
        let primary = Server::start_with(options);
        let of = primary.port.to_string();
        let replica = Server::start_with(
            &[&["--replicaof", "127.0.0.1", &of, "--repl-diskless-sync-delay", "0"], options].concat(),
        );
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {SERVICE} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 3000\n{lines}",
            folder.path().display(),
            primary.port
        );
        std::fs::write(&file, text).unwrap();
        let sentinel = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server, which tests/prepare installs");
        let watched = Self { servers: [primary, replica], sentinel, port, _folder: folder };
        if lines.is_empty() {
            let mut raw = watched.raw();
            wait_for("a replica that the sentinel knows", || {
                let known: Vec<Vec<String>> = raw.say(&format!("SENTINEL REPLICAS {SERVICE}"));
                let up = |replica: &Vec<String>| replica.windows(2).any(|pair| pair == ["master-link-status", "ok"]);
                known.iter().any(up).then_some(())
            });
        }
        watched
    }

    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{SERVICE}", self.port)
    }

    pub fn raw(&self) -> Raw {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let connection: Connection = wait_for("a sentinel", || client.get_connection().ok());
        connection.into()
    }

    /// Which of the servers the sentinel takes for the primary.
    pub fn primary(&self) -> usize {
        let (_, port): (String, u16) = self.raw().say(&format!("SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}"));
        self.servers.iter().position(|server| server.port == port).unwrap()
    }

    /// Has the sentinel make the other one the primary, though nothing is wrong.
    pub fn fail_over(&self) {
        wait_for("a failover", || self.raw().try_say::<()>(&format!("SENTINEL FAILOVER {SERVICE}")).ok());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.sentinel.kill();
        let _ = self.sentinel.wait();
    }
}
