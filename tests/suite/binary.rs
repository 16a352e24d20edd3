//! The built program, run as a child.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A running `cloakroom`; killed on drop.
pub struct Binary {
    child: Child,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    pub status: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Binary {
    fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
        command.env_clear().stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(arguments: &[&str]) -> Output {
        Self::command().args(arguments).output().expect("the program")
    }

    /// Runs `cloakroom run` with that file, which has to log as JSON, until it says where it listens.
    pub fn serve(config: &Path) -> Self {
        let mut command = Self::command();
        command.arg("run").arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let (mut told, mut proxy, mut admin, mut status) = (String::new(), None, None, None);
        while proxy.is_none() || admin.is_none() {
            let mut line = String::new();
            if log.read_line(&mut line).expect("a log") == 0 {
                let _ = child.kill();
                panic!("it ended before it listened:\n{told}");
            }
            proxy = proxy.or_else(|| address(&line, "address"));
            admin = admin.or_else(|| address(&line, "admin"));
            status = status.or_else(|| address(&line, "status"));
            told.push_str(&line);
        }
        let (proxy, admin) = (proxy.expect("a proxy"), admin.expect("an admin listener"));
        let kept = Arc::new(Mutex::new(told));
        let keeping = kept.clone();
        // Read on, so that it never waits for its reader.
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                keeping.lock().expect("no panic").push_str(&format!("{line}\n"));
            }
        });
        Self { child, proxy, admin, status: status.expect("a status listener"), log: kept }
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: a signal to a child that was not waited for yet, so its id is nobody else's.
        unsafe { libc::kill(id, signal) };
    }

    /// Waits until it has ended; its exit code.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().expect("its end").code()
    }

    /// Has it stand still, and go on.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Ends it without a warning (SIGKILL).
    pub fn kill(mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("its end");
    }

    /// Asks it to end, and waits until it has; its exit code.
    pub fn terminate(self) -> Option<i32> {
        self.signal(libc::SIGTERM);
        self.ended()
    }
}

fn address(line: &str, field: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line[field].as_str()?.parse().ok()
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
