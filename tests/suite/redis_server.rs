//! A real Redis server of the test's own: on a free port, in a folder of its own, gone with its last user.

mod cluster;
mod sentinel;
mod tls;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue};
use tempfile::TempDir;

pub use cluster::Cluster;
pub use sentinel::Watched;
pub use tls::Certificates;

/// How long a server may take to start, or anything to come about.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `redis-server`, which is killed when this is dropped.
pub struct Server {
    child: Mutex<Child>,
    pub port: u16,
    folder: TempDir,
    options: Vec<String>,
}

impl Server {
    pub fn start() -> Arc<Self> {
        Self::start_with(&[])
    }

    pub fn start_with(options: &[&str]) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        for _ in 0..10 {
            let port = free_port();
            let mut child = spawn(port, &folder, &options);
            if answers(port, &mut child) {
                return Arc::new(Self { child: Mutex::new(child), port, folder, options });
            }
            let _ = child.kill();
        }
        panic!("redis-server does not start; tests/prepare installs it");
    }

    /// One server for all tests that run at the same time: they differ in their environments.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Self::start();
        *shared = Arc::downgrade(&server);
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// A connection for raw commands.
    pub fn raw(&self) -> Raw {
        let client = redis::Client::open(self.url()).unwrap();
        wait_for("a raw connection", || client.get_connection().ok()).into()
    }

    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again, on the same port and with what it has kept.
    pub fn revive(&self) {
        self.begin_to_revive();
        assert!(answers(self.port, &mut self.child.lock().unwrap()));
    }

    /// The same, and does not wait until it answers.
    pub fn begin_to_revive(&self) {
        *self.child.lock().unwrap() = spawn(self.port, &self.folder, &self.options);
    }

    /// Has it stand still; connections stay open, and nothing is answered.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        let id = self.child.lock().unwrap().id();
        assert_eq!(unsafe { libc::kill(id as i32, signal) }, 0);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(port: u16, folder: &TempDir, options: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
        .args(["--port", &port.to_string(), "--dir", &folder.path().display().to_string()])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server, which tests/prepare installs")
}

fn answers(port: u16, child: &mut Child) -> bool {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let ping = client.get_connection().and_then(|mut c| redis::cmd("PING").query::<String>(&mut c));
        if ping.as_ref().is_ok_and(|pong| pong == "PONG")
            || ping.is_err_and(|error| matches!(error.code(), Some("NOAUTH" | "NOPERM")))
        {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Tries until it comes about.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} does not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An environment that no other test has.
pub fn environment() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Says commands as an operator would.
pub struct Raw(Connection);

impl From<Connection> for Raw {
    fn from(connection: Connection) -> Self {
        Self(connection)
    }
}

impl Raw {
    /// The answer to a line of words.
    #[track_caller]
    pub fn say<T: FromRedisValue>(&mut self, line: &str) -> T {
        let mut words = line.split_whitespace();
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut self.0).unwrap()
    }

    /// The same where a refusal is an answer too.
    pub fn try_say<T: FromRedisValue>(&mut self, line: &str) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        command.arg(line.split_whitespace().collect::<Vec<_>>());
        command.query(&mut self.0)
    }

    /// How often a command was called so far.
    pub fn calls(&mut self, command: &str) -> u64 {
        let stats: String = self.say("INFO commandstats");
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }
}
