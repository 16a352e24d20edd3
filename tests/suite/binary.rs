//! The built program, run as a child.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A running `cloakroom`; killed on drop.
pub struct Binary {
    child: Child,
    pub proxy: SocketAddr,
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
        let mut told = String::new();
        let proxy = loop {
            let mut line = String::new();
            if log.read_line(&mut line).expect("a log") == 0 {
                let _ = child.kill();
                panic!("it ended before it listened:\n{told}");
            }
            if let Some(address) = listening(&line) {
                break address;
            }
            told.push_str(&line);
        };
        // Read on, so that it never waits for its reader.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, proxy }
    }

    /// Asks it to end, and waits until it has; its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let id = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: a signal to a child that was not waited for yet, so its id is nobody else's.
        unsafe { libc::kill(id, libc::SIGTERM) };
        self.child.wait().expect("its end").code()
    }
}

fn listening(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then(|| line["address"].as_str()?.parse().ok())?
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
