//! The built program, run as a child.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A running `cloakroom`; killed on drop.
pub struct Binary {
    child: Child,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    pub status: SocketAddr,
    logs: Arc<Mutex<Vec<u8>>>,
    audited: Arc<Mutex<Vec<u8>>>,
    /// Open, and never read again.
    _unread: Option<BufReader<ChildStderr>>,
}

/// Who reads what it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    Reads,
    StopsReadingTheLog,
    ClosesTheOutput,
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
        Self::serve_to(config, Reader::Reads)
    }

    /// The same where it has one processor, and so one thread for all that it does.
    pub fn serve_on_one_core(config: &Path) -> Self {
        let mut command = Self::command();
        // SAFETY: between fork and exec, a call of the system with a value of its own.
        unsafe {
            command.pre_exec(|| {
                let mut cores: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(0, &mut cores);
                match libc::sched_setaffinity(0, size_of_val(&cores), &cores) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        Self::serve_by(command, config, Reader::Reads)
    }

    /// The same, before a reader that may be a bad one.
    pub fn serve_to(config: &Path, reader: Reader) -> Self {
        Self::serve_by(Self::command(), config, reader)
    }

    fn serve_by(mut command: Command, config: &Path, reader: Reader) -> Self {
        command.arg("run").arg("--config").arg(config).stdout(Stdio::piped()).stderr(Stdio::piped());
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
        // Read on, so that it never waits for its reader.
        let (logs, audited) = (Arc::new(Mutex::new(told.into_bytes())), Arc::default());
        let mut unread = None;
        let output = child.stdout.take().expect("its output");
        match reader {
            Reader::Reads => {
                keep(log, &logs);
                keep(output, &audited);
            }
            Reader::StopsReadingTheLog => {
                unread = Some(log);
                keep(output, &audited);
            }
            Reader::ClosesTheOutput => keep(log, &logs),
        }
        let status = status.expect("a status listener");
        Self { child, proxy, admin, status, logs, audited, _unread: unread }
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        String::from_utf8_lossy(&self.logs.lock().unwrap()).into_owned()
    }

    /// What it has written to standard output so far: the audit records.
    pub fn audited(&self) -> String {
        String::from_utf8_lossy(&self.audited.lock().unwrap()).into_owned()
    }

    /// Asks it to end, and waits until it has: its exit code, and all that it has logged and written.
    pub fn end(self) -> (Option<i32>, String, String) {
        let (logs, audited) = (self.logs.clone(), self.audited.clone());
        let code = self.terminate();
        let whole = |kept: &Mutex<Vec<u8>>| String::from_utf8_lossy(&kept.lock().unwrap()).into_owned();
        (code, whole(&logs), whole(&audited))
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

/// Keeps what is read until its end.
fn keep(mut from: impl Read + Send + 'static, kept: &Arc<Mutex<Vec<u8>>>) {
    let kept = kept.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 8 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            kept.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
    });
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
