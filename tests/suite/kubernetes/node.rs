//! What stands for a node: network namespaces joined by a bridge, and processes as a container runtime starts them.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use super::tools::{root, stdout, tool};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network of its own, of which the host sees nothing. Gone on drop, with all that runs in it.
pub struct Node {
    name: String,
    /// In memory, as mounted Secrets are.
    pub folder: tempfile::TempDir,
    addresses: AtomicU8,
    processes: std::sync::Mutex<Vec<Child>>,
}

/// A pod's network.
#[derive(Clone)]
pub struct Network {
    pub name: String,
    pub address: Ipv4Addr,
}

/// Where a container finds a volume.
pub struct Mount {
    pub source: PathBuf,
    pub path: String,
    pub read_only: bool,
}

/// What a runtime is told about a container.
pub struct Start<'s> {
    pub network: &'s str,
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    /// None: as root, as the application's image has it.
    pub user: Option<u64>,
    pub read_only: bool,
    pub log: PathBuf,
}

fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    stdout(command, "");
}

impl Node {
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cr{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        let folder = tempfile::Builder::new().prefix("cloakroom-").tempdir_in("/dev/shm").expect("a folder in memory");
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
        let node = Self { name, folder, addresses: AtomicU8::new(1), processes: std::sync::Mutex::default() };
        let inside = |arguments: &[&str]| ip(&[&["-n", node.name.as_str()], arguments].concat());
        inside(&["link", "set", "lo", "up"]);
        inside(&["link", "add", "bridge", "type", "bridge"]);
        inside(&["address", "add", &format!("{}/24", Self::ADDRESS), "dev", "bridge"]);
        inside(&["link", "set", "bridge", "up"]);
        node
    }

    /// A namespace for a pod, with an address on the bridge.
    pub fn join(&self) -> Network {
        let last = self.addresses.fetch_add(1, Ordering::Relaxed) + 1;
        let (name, cable) = (format!("{}-{last}", self.name), format!("pod{last}"));
        let address = Ipv4Addr::new(10, 77, 0, last);
        ip(&["netns", "add", &name]);
        ip(&["-n", &self.name, "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &name]);
        ip(&["-n", &self.name, "link", "set", &cable, "master", "bridge", "up"]);
        ip(&["-n", &name, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        ip(&["-n", &name, "link", "set", "eth0", "up"]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Network { name, address }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A process of the node's own, which ends with it.
    pub fn run(&self, command: &[&str]) {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.name]).args(command);
        let child = inside.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
        self.processes.lock().expect("no panic").push(child);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in self.processes.lock().expect("no panic").iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let ours = format!("{}-", self.name);
        let list = Command::new("ip").args(["netns", "list"]).output().expect("ip");
        let names = String::from_utf8_lossy(&list.stdout).into_owned();
        for name in names.lines().filter_map(|line| line.split(' ').next()).filter(|name| name.starts_with(&ours)) {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Does something from within a namespace.
pub fn within<T: Send + 'static>(network: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let path = format!("/run/netns/{network}");
    let thread = std::thread::spawn(move || {
        let namespace = File::open(path).expect("a namespace");
        // SAFETY: it concerns this thread alone, which ends with the work; the descriptor is open.
        let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
        work()
    });
    thread.join().expect("no panic")
}

/// A response: its status, and the rest.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub text: String,
}

impl Reply {
    pub fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }
}

/// One request on a connection of its own, from where this thread is.
pub fn ask(to: SocketAddr, head: &str, body: &str) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{head}\r\nhost: agent\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let broken = || std::io::Error::other(format!("no response: {text:?}"));
    Ok(Reply { status: status.ok_or_else(broken)?, text })
}

/// Where the interpreter of the tools has its library, which images bring along.
fn python() -> (PathBuf, PathBuf) {
    let mut python = tool("python");
    python.args(["-c", "import sys, os; print(sys.base_prefix); print(os.path.realpath(sys.executable))"]);
    let told = stdout(python, "");
    let mut lines = told.lines().map(PathBuf::from);
    (lines.next().expect("a prefix"), lines.next().expect("a program"))
}

/// Starts a container: a root of its own, the volumes where the pod has them, nothing else of the host but its libraries.
pub fn start(container: &Start<'_>) -> Child {
    let root_folder = tempfile::Builder::new().prefix("root-").tempdir_in(container.log.parent().expect("a folder"));
    let root_folder = root_folder.expect("a folder").keep();
    let target = |path: &str| format!("{}{path}", root_folder.display());
    let (prefix, program) = python();
    let mut script = format!("set -e\nmount -t tmpfs -o mode=755 tmpfs {0}\n", root_folder.display());
    let mut bind = |source: &Path, path: &str, options: &str| {
        let (source, path) = (source.display(), target(path));
        script += &format!("[ -d {source} ] && mkdir -p {path} || {{ mkdir -p $(dirname {path}); touch {path}; }}\n");
        script += &format!("mount --rbind {source} {path}\n");
        if !options.is_empty() {
            script += &format!("mount -o {options} {path}\n");
        }
    };
    for shared in ["/usr", "/lib", "/lib64", "/bin", "/dev/null", "/dev/urandom"] {
        if Path::new(shared).exists() {
            bind(Path::new(shared), shared, "");
        }
    }
    bind(Path::new(env!("CARGO_BIN_EXE_cloakroom")), "/cloakroom", "");
    if container.user.is_none() {
        bind(&prefix, &prefix.display().to_string(), "");
        bind(&root().join("tests/suite/kubernetes"), "/app", "");
    }
    for mount in &container.mounts {
        bind(&mount.source, &mount.path, if mount.read_only { "remount,bind,ro" } else { "" });
    }
    if container.read_only {
        script += &format!("mount -o remount,ro {}\n", root_folder.display());
    }
    let rights = container.user.map_or_else(String::new, |user| {
        format!("--reuid {user} --regid {user} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all")
    });
    let command = container.command.iter().map(|word| match word.as_str() {
        "python3" => program.display().to_string(),
        word => word.to_owned(),
    });
    let environment = container.environment.iter().map(|(name, value)| format!("{name}={value}"));
    script +=
        &format!("cd /\nexec chroot {} /usr/bin/setpriv {rights} /usr/bin/env -i \"$@\"\n", root_folder.display());
    let mut runtime = Command::new("ip");
    runtime.args(["netns", "exec", container.network, "unshare", "--mount", "sh", "-c", &script, "sh"]);
    runtime.args(environment).args(command);
    let log =
        |append: bool| File::options().create(true).append(append).write(true).open(&container.log).expect("a log");
    runtime.stdin(Stdio::null()).stdout(log(true)).stderr(log(true)).spawn().expect("a container")
}
