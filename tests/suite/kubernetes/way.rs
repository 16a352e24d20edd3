//! The whole way: a recorded pod, the injector, and what the injected pod then does for a client.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::injector::{Injector, mount, recorded};
use super::kubelet::Pod;
use super::node::{Node, Reply, ask, within};
use crate::binary::Binary;

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900);
const TOKEN: &str = "an-admin-token-of-the-pods";
const EMAIL: &str = "ada@example.com";

/// A node with a Redis, the ConfigMap and the Secret, and who injects.
struct Cluster {
    node: Node,
    injector: Injector,
    /// Whether services find ports of native sidecars.
    sees_native: bool,
    keyring: tempfile::TempDir,
}

/// What `cloakroom.yaml` says; the route may read that.
fn configuration(read: &str) -> String {
    format!(
        r#"version: 1
listeners: [{{ address: "${{env:CLOAKROOM_LISTEN}}" }}]
admin: {{ token: "${{file:/var/run/secrets/cloakroom/admin-token}}" }}
store:
  kind: redis
  url: "redis://:${{file:/var/run/secrets/cloakroom/redis-password}}@{}:6379/0"
  timeout: 5s
keyring: {{ path: /var/run/secrets/cloakroom/keyring.json, activate_after: 1s }}
log: {{ level: "${{env:CLOAKROOM_LOG_LEVEL}}" }}
shutdown: {{ grace: 1s, drain: 5s }}
session:
  schema:
    version: 1
    fields:
      user_id: {{ type: string, section: auth, user: true, writable: false }}
      email: {{ type: string, section: auth, sensitive: true }}
      step: {{ type: integer, section: task }}
routes:
  - {{ name: agent, upstream: "${{env:CLOAKROOM_UPSTREAM}}", read: {read}, write: [task] }}
"#,
        Node::ADDRESS
    )
}

impl Cluster {
    fn open(kubernetes: &str, sees_native: bool) -> Self {
        let node = Node::new();
        let address = Node::ADDRESS.to_string();
        node.run(&["redis-server", "--bind", &address, "--port", "6379", "--save", "", "--requirepass", "of-redis"]);
        let keyring = tempfile::tempdir().expect("a folder");
        let path = keyring.path().join("keyring.json");
        assert!(Binary::run(&["keys", "generate", "--keyring", &path.display().to_string()]).status.success());
        let sidecar = "sidecar: { image: \"example.com/cloakroom:0.1.0\", pre_stop: 2s }\n";
        let cluster = Self { node, injector: Injector::start(kubernetes, sidecar), sees_native, keyring };
        cluster.configure("[auth, task]");
        cluster.mount_secret();
        cluster
    }

    fn configure(&self, read: &str) {
        let folder = self.node.folder.path().join("configmaps/cloakroom");
        mount(&folder, &[("cloakroom.yaml", &configuration(read))]);
    }

    fn mount_secret(&self) {
        let keyring = fs::read_to_string(self.keyring.path().join("keyring.json")).expect("a keyring");
        let entries = [("keyring.json", keyring.as_str()), ("admin-token", TOKEN), ("redis-password", "of-redis")];
        mount(&self.node.folder.path().join("secrets/cloakroom"), &entries);
    }

    fn inject(&self, path: &str, kind: &str) -> Json {
        self.injector.inject(path, &recorded(kind))
    }

    /// A request from elsewhere in the cluster.
    fn ask(&self, to: SocketAddr, path: &str, id: &str) -> std::io::Result<Reply> {
        let head = format!("GET {path} HTTP/1.1\r\nauthorization: Bearer {id}");
        within(self.node.name(), move || ask(to, &head, ""))
    }

    /// What the agent saw of the session.
    #[track_caller]
    fn context(&self, to: SocketAddr, path: &str, id: &str) -> String {
        let reply = self.ask(to, path, id).expect("a response");
        assert_eq!(reply.status, 200, "{}", reply.text);
        let seen: Json = serde_json::from_str(reply.body()).expect("what the agent saw");
        assert!(seen["headers"].get("authorization").is_none(), "{seen}");
        seen["headers"]["cloakroom-context"].as_str().unwrap_or_default().to_owned()
    }
}

/// Asks the admin listener, which is on the pod's loopback only.
fn admin(pod: &Pod, request: &'static str, body: Json) -> Json {
    let head = format!("{request} HTTP/1.1\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let reply = within(&pod.network.name, move || ask(ADMIN, &head, &body)).expect("a response");
    assert!(reply.status < 300, "{}", reply.text);
    serde_json::from_str(reply.body()).expect("JSON")
}

fn session(pod: &Pod) -> String {
    let fields = json!({ "fields": { "user_id": "u-1", "email": EMAIL, "step": 1 } });
    admin(pod, "POST /v1/sessions", fields)["session_id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_client_reaches_the_agent_through_every_change_of_its_pods() {
    let cluster = Cluster::open("1.33", true);
    let spec = cluster.inject("/inject", "deployment");
    let first = Pod::start(&cluster.node, &spec);
    let (service, id) = (first.endpoint("http", cluster.sees_native), session(&first));
    assert_eq!(service.port(), 8080);
    let context = cluster.context(service, "/hello", &id);
    assert!(context.contains("user_id=\"u-1\"") && context.contains("step=1"), "{context}");
    assert!(context.contains("email=hdl_") && !context.contains(EMAIL), "{context}");
    assert!(first.is_alive(), "the application's probes do not reach it");
    first.exec(&["health", "--ready"]);
    assert!(first.exec(&["session", "create", "user_id=u-2"]).contains("cr_"));
    assert_eq!(cluster.ask(service, "/hello", "cr_none").unwrap().status, 401);

    cluster.context(service, "/step/2", &id);
    let traffic = Traffic::start(&cluster, &id, service);
    let second = Pod::start(&cluster.node, &spec);
    traffic.also(second.endpoint("http", cluster.sees_native));
    let deletion = std::thread::spawn(move || first.stop());
    // The pod is deleted, and not everybody knows yet.
    std::thread::sleep(Duration::from_secs(1));
    traffic.never_again(service);
    deletion.join().expect("an orderly end");
    let service = second.endpoint("http", cluster.sees_native);
    assert!(cluster.context(service, "/hello", &id).contains("step=2"));

    cluster.configure("[auth]");
    second.until("the new configuration is in force", |_| !cluster.context(service, "/hello", &id).contains("step"));

    let handle = email_handle(&cluster.context(service, "/hello", &id));
    let path = cluster.keyring.path().join("keyring.json");
    assert!(Binary::run(&["keys", "rotate", "--keyring", &path.display().to_string()]).status.success());
    cluster.mount_secret();
    let keys = |pod: &Pod| admin(pod, "GET /v1/keys", Json::Null)["keys"].as_array().map_or(0, Vec::len);
    second.until("the new key is there", |pod| keys(pod) == 2);
    assert_eq!(email_handle(&cluster.context(service, "/hello", &id)), handle);
    let lost = traffic.stop();
    assert!(lost.is_empty(), "{lost:#?}\n{}", second.logs());
    assert!(!second.logs().contains(EMAIL) && !second.logs().contains(&id));
    second.stop();
}

fn email_handle(context: &str) -> String {
    let from = context.find("hdl_").expect("a handle");
    context[from..].chars().take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect()
}

#[test]
fn a_job_ends_with_its_work_and_its_sidecar_after_it() {
    // Services of this version look for named ports among ordinary containers only.
    let cluster = Cluster::open("1.30", false);
    let pod = Pod::start(&cluster.node, &cluster.inject("/inject", "job"));
    let (service, id) = (pod.endpoint("api", cluster.sees_native), session(&pod));
    // It has no probes, so it counts as started before it listens.
    let mut reply = None;
    pod.until("the work answers", |_| {
        reply = cluster.ask(service, "/work", &id).ok().filter(|reply| reply.status == 200);
        reply.is_some()
    });
    assert!(reply.is_some_and(|reply| reply.body().contains("user_id=\\\"u-1\\\"")));
    pod.complete();
}

#[test]
fn before_native_sidecars_a_pod_works_as_well() {
    let cluster = Cluster::open("1.28", false);
    let pod = Pod::start(&cluster.node, &cluster.inject("/inject/namespace", "statefulset"));
    let (service, id) = (pod.endpoint("http", cluster.sees_native), session(&pod));
    assert_eq!(service.port(), 15080);
    assert!(cluster.context(service, "/hello", &id).contains("step=1"));
    assert!(pod.is_alive());
    pod.stop();
}

#[test]
fn a_configuration_with_a_mistake_keeps_the_application_from_starting_and_says_why() {
    let cluster = Cluster::open("1.33", true);
    let spec = cluster.inject("/inject", "deployment");
    let elsewhere = configuration("[auth, task]").replace("${env:CLOAKROOM_LISTEN}", "0.0.0.0:8181");
    for (text, expected) in [
        (configuration("[auth, tsk]"), "did you mean 'task'?"),
        (elsewhere, "no listener has port 8080, to which services lead"),
    ] {
        mount(&cluster.node.folder.path().join("configmaps/cloakroom"), &[("cloakroom.yaml", &text)]);
        let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Pod::start(&cluster.node, &spec)));
        let told = started.err().and_then(|error| error.downcast::<String>().ok()).expect("a pod that does not start");
        assert!(told.contains("cloakroom-check") && told.contains(expected), "{told}");
        assert!(!told.contains("agent.log"), "{told}");
    }
}

/// A client that goes on asking, and remembers what went wrong.
struct Traffic {
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(usize, Vec<String>)>,
}

impl Traffic {
    fn start(cluster: &Cluster, id: &str, target: SocketAddr) -> Self {
        let (targets, over) = (Arc::new(Mutex::new(vec![target])), Arc::new(AtomicBool::new(false)));
        let (node, head) =
            (cluster.node.name().to_owned(), format!("GET /hello HTTP/1.1\r\nauthorization: Bearer {id}"));
        let (all, stopped) = (targets.clone(), over.clone());
        let ask_on = move || {
            let (mut count, mut lost) = (0, Vec::new());
            while !stopped.load(Ordering::Acquire) {
                let target = {
                    let all = all.lock().expect("no panic");
                    all[count % all.len()]
                };
                count += 1;
                match ask(target, &head, "") {
                    Ok(reply) if reply.status == 200 => {}
                    other => lost.push(format!("{target}: {other:?}")),
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            (count, lost)
        };
        let thread = std::thread::spawn(move || within(&node, ask_on));
        Self { targets, over, thread }
    }

    fn also(&self, target: SocketAddr) {
        self.targets.lock().expect("no panic").push(target);
    }

    fn never_again(&self, target: SocketAddr) {
        self.targets.lock().expect("no panic").retain(|known| *known != target);
    }

    /// What was not answered as it should be.
    fn stop(self) -> Vec<String> {
        self.over.store(true, Ordering::Release);
        let (count, lost) = self.thread.join().expect("no panic");
        assert!(count > 100, "only {count} requests were made");
        lost
    }
}
