//! What the kubelet does with a pod, as far as a sidecar notices: order, probes, hooks, signals.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::node::{Mount, Network, Node, Start, ask, start, within};

const PATIENCE: Duration = Duration::from_secs(30);

/// A pod that was started.
pub struct Pod {
    spec: Json,
    pub network: Network,
    node: String,
    folder: PathBuf,
    /// Those of ordinary containers, in the order of the pod.
    containers: Vec<(String, Child)>,
    /// Those of init containers that keep running.
    sidecars: Vec<(String, Child)>,
}

fn list<'j>(of: &'j Json, key: &str) -> impl Iterator<Item = &'j Json> {
    of[key].as_array().into_iter().flatten()
}

fn text(of: &Json) -> String {
    of.as_str().expect("a text").to_owned()
}

fn keeps_running(container: &Json) -> bool {
    container["restartPolicy"] == "Always"
}

/// A port by its number, or by its name among the container's own.
fn port(container: &Json, said: &Json) -> u16 {
    let named = |name: &str| list(container, "ports").find(|port| port["name"] == name).expect("a port of that name");
    let number = said.as_str().map_or(said, |name| &named(name)["containerPort"]);
    u16::try_from(number.as_u64().expect("a number")).expect("a port")
}

impl Pod {
    /// Starts a pod as its spec says, and returns when everything in it has started.
    pub fn start(node: &Node, pod: &Json) -> Self {
        let network = node.join();
        let folder = node.folder.path().join(&network.name);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
        let spec = pod["spec"].clone();
        let (containers, sidecars) = (Vec::new(), Vec::new());
        let mut pod = Self { spec, network, node: node.name().to_owned(), folder, containers, sidecars };
        for container in list(&pod.spec.clone(), "initContainers") {
            let mut child = pod.run(container, node);
            if keeps_running(container) {
                pod.sidecars.push((text(&container["name"]), child));
                pod.await_probe(container, "startupProbe");
            } else {
                let status = child.wait().expect("its end");
                assert!(status.success(), "{}: {status}\n{}", container["name"], pod.logs());
            }
        }
        for container in list(&pod.spec.clone(), "containers") {
            let child = pod.run(container, node);
            pod.containers.push((text(&container["name"]), child));
        }
        for container in list(&pod.spec.clone(), "containers") {
            pod.await_probe(container, "startupProbe");
        }
        pod.until("it is ready", Self::is_ready);
        pod
    }

    fn run(&self, container: &Json, node: &Node) -> Child {
        let words = |key: &str| list(container, key).map(text).collect::<Vec<_>>();
        let ours = text(&container["image"]).contains("cloakroom");
        let entry = if ours { vec!["/cloakroom".to_owned()] } else { Vec::new() };
        let context = &container["securityContext"];
        let mounts = list(container, "volumeMounts").map(|mount| self.mount(node, mount)).collect();
        start(&Start {
            network: &self.network.name,
            command: [entry, words("command"), words("args")].concat(),
            environment: list(container, "env").map(|pair| (text(&pair["name"]), text(&pair["value"]))).collect(),
            mounts,
            user: context["runAsUser"].as_u64(),
            read_only: context["readOnlyRootFilesystem"] == true,
            log: self.folder.join(format!("{}.log", text(&container["name"]))),
        })
    }

    fn mount(&self, node: &Node, mount: &Json) -> Mount {
        let name = text(&mount["name"]);
        let volume = list(&self.spec, "volumes").find(|volume| volume["name"] == name.as_str()).expect("a volume");
        let of_node = |kind: &str, name: &Json| node.folder.path().join(kind).join(text(name));
        let source = match volume.as_object().expect("an object") {
            volume if volume.contains_key("configMap") => of_node("configmaps", &volume["configMap"]["name"]),
            volume if volume.contains_key("secret") => of_node("secrets", &volume["secret"]["secretName"]),
            _ => self.folder.join(&name),
        };
        if !source.exists() {
            std::fs::create_dir_all(&source).expect("a folder");
            std::fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("a mode");
        }
        Mount { source, path: text(&mount["mountPath"]), read_only: mount["readOnly"] == true }
    }

    /// What its containers have printed.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(&self.folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| format!("{}:\n{}\n", path.display(), std::fs::read_to_string(&path).expect("a log"))).collect()
    }

    #[track_caller]
    pub fn until(&self, what: &str, mut seen: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !seen(self) {
            assert!(Instant::now() < deadline, "in vain waited until {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.network.address), port)
    }

    /// Asks as the kubelet does: from the node, at the pod's address.
    fn holds(&self, container: &Json, probe: &Json) -> bool {
        let to = |call: &Json| self.address(port(container, &call["port"]));
        if let Some(call) = probe.get("tcpSocket") {
            let to = to(call);
            return within(&self.node, move || TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok());
        }
        let call = probe.get("httpGet").expect("a probe of a kind that is known here");
        let (to, path) = (to(call), text(&call["path"]));
        let reply = within(&self.node, move || ask(to, &format!("GET {path} HTTP/1.1"), ""));
        reply.is_ok_and(|reply| (200..400).contains(&reply.status))
    }

    fn await_probe(&self, container: &Json, kind: &str) {
        if let Some(probe) = container.get(kind) {
            self.until(&format!("{kind} of {} holds", container["name"]), |pod| pod.holds(container, probe));
        }
    }

    fn probed(&self) -> impl Iterator<Item = &Json> {
        let sidecars = list(&self.spec, "initContainers").filter(|container| keeps_running(container));
        list(&self.spec, "containers").chain(sidecars)
    }

    pub fn is_ready(&self) -> bool {
        self.probed().all(|c| c.get("readinessProbe").is_none_or(|probe| self.holds(c, probe)))
    }

    pub fn is_alive(&self) -> bool {
        self.probed().all(|c| c.get("livenessProbe").is_none_or(|probe| self.holds(c, probe)))
    }

    /// Where a service leads that calls a port by its name; endpoints of older versions look at ordinary containers only.
    pub fn endpoint(&self, name: &str, sees_native: bool) -> SocketAddr {
        let native = self.probed().filter(|container| sees_native || !keeps_running(container));
        let mut ports = native.flat_map(|container| list(container, "ports"));
        let found = ports.find(|port| port["name"] == name).expect("a port of that name");
        self.address(port(&Json::Null, &found["containerPort"]))
    }

    /// Runs a command in the sidecar's container, as `kubectl exec` does.
    pub fn exec(&self, arguments: &[&str]) -> String {
        let id = self.sidecars.last().expect("a sidecar").1.id().to_string();
        let environment = std::fs::read(format!("/proc/{id}/environ")).expect("its environment");
        let pairs = environment.split(|byte| *byte == 0).map(|pair| String::from_utf8_lossy(pair).into_owned());
        let mut enter = std::process::Command::new("nsenter");
        enter.args(["--target", &id, "--mount", "--net", "--root", "--wd=/", "/usr/bin/env", "-i"]);
        enter.args(pairs.filter(|pair| !pair.is_empty())).arg("/cloakroom").args(arguments);
        super::tools::stdout(enter, "")
    }

    /// Waits until the ordinary containers have ended by themselves, then ends the others.
    pub fn complete(mut self) {
        for (name, child) in &mut self.containers {
            let status = child.wait().expect("its end");
            assert!(status.success(), "{name}: {status}");
        }
        self.end_sidecars();
    }

    /// Ends a pod that is deleted: hooks, then SIGTERM, ordinary containers all at once and native sidecars after them.
    pub fn stop(mut self) {
        let specs: Vec<Json> = list(&self.spec, "containers").cloned().collect();
        let (node, address) = (self.node.clone(), self.network.address);
        let ends = self.containers.drain(..).zip(specs).map(|((name, child), container)| {
            let node = node.clone();
            std::thread::spawn(move || {
                before_stop(&node, address.into(), &container);
                end(&name, child);
            })
        });
        for thread in ends.collect::<Vec<_>>() {
            thread.join().expect("an orderly end");
        }
        self.end_sidecars();
    }

    fn end_sidecars(&mut self) {
        for (name, child) in self.sidecars.drain(..).rev() {
            end(&name, child);
        }
    }
}

fn before_stop(node: &str, address: IpAddr, container: &Json) {
    let hook = &container["lifecycle"]["preStop"];
    let exec = hook["exec"]["command"][1].as_str().and_then(|seconds| seconds.parse().ok());
    if let Some(seconds) = hook["sleep"]["seconds"].as_u64().or(exec) {
        std::thread::sleep(Duration::from_secs(seconds));
    }
    if let Some(call) = hook.get("httpGet") {
        let (to, path) = (SocketAddr::new(address, port(container, &call["port"])), text(&call["path"]));
        let reply = within(node, move || ask(to, &format!("GET {path} HTTP/1.1"), "")).expect("the hook is answered");
        assert_eq!(reply.status, 200);
    }
}

fn end(name: &str, mut child: Child) {
    // SAFETY: a signal to a child that was not waited for yet, so its id is nobody else's.
    unsafe { libc::kill(i32::try_from(child.id()).expect("a process id"), libc::SIGTERM) };
    let status = child.wait().expect("its end");
    assert!(status.success(), "{name}: {status}");
}

impl Drop for Pod {
    fn drop(&mut self) {
        for (_, child) in self.containers.iter_mut().chain(&mut self.sidecars) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
