//! The injector as the API server meets it: over TLS, with reviews as they were recorded.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value as Json, json};

use super::tools::{root, run, validate};
use crate::house::PATIENCE;

/// What the API server calls it.
const NAME: &str = "cloakroom-injector.cloakroom.svc";

/// Those who vouch for a webhook.
pub struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than that of what it signs, which would look self-signed.
        parameters.distinguished_name.push(DnType::CommonName, "an authority");
        let certificate = parameters.self_signed(&key).expect("a certificate").pem();
        Self(Issuer::new(parameters, key), certificate)
    }

    /// Puts a new certificate and its key where a mounted Secret has them: both change at once, by a swapped link.
    fn mount(&self, folder: &Path) {
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(vec![NAME.to_owned()]).expect("parameters");
        let certificate = parameters.signed_by(&key, &self.0).expect("a certificate");
        mount(folder, &[("tls.crt", &certificate.pem()), ("tls.key", &key.serialize_pem())]);
    }

    /// Writes a certificate for that name, its key, and who vouches for it.
    pub fn vouch(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = parameters.signed_by(&key, &self.0).expect("a certificate").pem();
        let files = [("tls.crt", certificate), ("tls.key", key.serialize_pem()), ("ca.crt", self.1.clone())];
        fs::create_dir_all(folder).expect("a folder");
        files.into_iter().for_each(|(name, text)| fs::write(folder.join(name), text).expect("a file"));
    }
}

/// Has a folder hold these files as the kubelet would.
pub fn mount(folder: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(folder).expect("a folder");
    let version = tempfile::Builder::new().prefix("..").rand_bytes(8).tempdir_in(folder).expect("a version").keep();
    fs::set_permissions(&version, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    for (name, text) in files {
        fs::write(version.join(name), text).expect("a file");
        let link = folder.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).expect("a link");
        }
    }
    let fresh = folder.join("..data_tmp");
    std::os::unix::fs::symlink(version.file_name().expect("a name"), &fresh).expect("a link");
    fs::rename(fresh, folder.join("..data")).expect("a swap");
}

/// A running injector; ended on drop.
pub struct Injector {
    child: Child,
    address: SocketAddr,
    status: SocketAddr,
    pub folder: tempfile::TempDir,
    log: Arc<Mutex<String>>,
}

impl Injector {
    /// Starts with a good certificate, and with that in its file beside what it needs.
    pub fn start(kubernetes: &str, more: &str) -> Self {
        Self::start_with(&Authority::new(), kubernetes, more)
    }

    pub fn start_with(authority: &Authority, kubernetes: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        authority.mount(&folder.path().join("tls"));
        fs::write(folder.path().join("ca.pem"), &authority.1).expect("a file");
        Self::open(folder, kubernetes, more)
    }

    /// With this certificate, before somebody who believes that authority.
    pub fn start_as(certificate: &str, key: &str, authority: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        mount(&folder.path().join("tls"), &[("tls.crt", certificate), ("tls.key", key)]);
        fs::write(folder.path().join("ca.pem"), authority).expect("a file");
        Self::open(folder, "1.33", "")
    }

    fn open(folder: tempfile::TempDir, kubernetes: &str, more: &str) -> Self {
        let sidecar =
            if more.contains("sidecar:") { "" } else { "sidecar: { image: \"example.com/cloakroom:0.1.0\" }\n" };
        let text = format!(
            "version: 1\naddress: 127.0.0.1:0\nstatus: {{ address: 127.0.0.1:0 }}\nkubernetes: \"{kubernetes}\"\n\
             tls: {{ certificate: tls/tls.crt, key: tls/tls.key }}\nshutdown: {{ grace: 0s, drain: 1s }}\n{sidecar}{more}"
        );
        let file = folder.path().join("injector.yaml");
        fs::write(&file, text).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
        command.env_clear().args(["injector", "--config"]).arg(&file).stderr(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().expect("the program");
        let mut lines = BufReader::new(child.stderr.take().expect("its log"));
        let (mut told, mut found) = (String::new(), None);
        while found.is_none() {
            let from = told.len();
            assert!(lines.read_line(&mut told).expect("a log") > 0, "it ended before it listened:\n{told}");
            let line: Json = serde_json::from_str(&told[from..]).unwrap_or_default();
            let address = |field: &str| line[field].as_str()?.parse::<SocketAddr>().ok();
            found = address("address").zip(address("status"));
        }
        let (address, status) = found.expect("addresses");
        let log = Arc::new(Mutex::new(told));
        let more = log.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = lines.read(&mut chunk) {
                more.lock().expect("no panic").push_str(&String::from_utf8_lossy(&chunk[..read]));
            }
        });
        Self { child, address, status, folder, log }
    }

    fn logged(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    /// What curl gets, and its exit code; it believes the authority alone.
    fn post(&self, path: &str, body: &str) -> (Option<i32>, String) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code}"]);
        curl.arg("--cacert").arg(self.folder.path().join("ca.pem"));
        curl.args(["--resolve", &format!("{NAME}:{}:127.0.0.1", self.address.port())]);
        curl.args(["--header", "content-type: application/json", "--data-binary", "@-"]);
        curl.arg(format!("https://{NAME}:{}{path}", self.address.port()));
        let output = run(curl, body);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The response to a review.
    #[track_caller]
    pub fn review(&self, path: &str, review: &Json) -> Json {
        let (code, answer) = self.post(path, &review.to_string());
        let (body, status) = answer.rsplit_once('\n').expect("a status");
        assert_eq!((code, status), (Some(0), "200"), "{body}\n{}", self.logged());
        let answer: Json = serde_json::from_str(body).expect("JSON");
        assert_eq!(
            (&answer["kind"], &answer["apiVersion"]),
            (&json!("AdmissionReview"), &json!("admission.k8s.io/v1"))
        );
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }

    /// The pod as the API server would go on with it.
    #[track_caller]
    pub fn inject(&self, path: &str, review: &Json) -> Json {
        let response = self.review(path, review);
        assert_eq!(response["allowed"], true, "{response}");
        assert_eq!(response["patchType"], "JSONPatch", "{response}");
        let mut pod = review["request"]["object"].clone();
        let encoded = response["patch"].as_str().expect("a patch");
        let patch = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).expect("base64");
        let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a patch");
        json_patch::patch(&mut pod, &patch).expect("a patch that can be applied");
        if let Some(begin) = pod["metadata"]["generateName"].as_str() {
            // The API server makes the end up afterwards.
            pod["metadata"]["name"] = json!(format!("{begin}x7k2p"));
        }
        pod
    }

    fn get(&self, path: &str) -> String {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "10", &format!("http://{}{path}", self.status)]);
        String::from_utf8_lossy(&run(curl, "").stdout).into_owned()
    }

    #[track_caller]
    fn until(&self, what: &str, mut seen: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !seen() {
            assert!(Instant::now() < deadline, "in vain waited until {what}:\n{}", self.logged());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A review as an API server sent it.
pub fn recorded(name: &str) -> Json {
    let path = root().join("tests/suite/kubernetes/reviews").join(format!("{name}.json"));
    serde_json::from_str(&fs::read_to_string(path).expect("a review")).expect("JSON")
}

/// A pod with the sidecar that the chart's defaults describe.
pub fn injected_by_the_chart() -> Json {
    let sidecar = "sidecar: { image: \"ghcr.io/cloakroom/cloakroom:0.1.0\" }\n";
    let injector = Injector::start("1.33", sidecar);
    let mut review = recorded("deployment");
    review["request"]["object"]["spec"]["initContainers"] = Json::Null;
    review["request"]["object"]["spec"]["volumes"] = Json::Null;
    injector.inject("/inject", &review)
}

#[test]
fn pods_of_every_kind_are_valid_with_their_sidecars_in_every_version() {
    for version in ["1.28", "1.29", "1.30", "1.33", "1.37"] {
        let injector = Injector::start(version, "");
        let kinds = [("deployment", "/inject"), ("statefulset", "/inject/namespace"), ("job", "/inject")];
        let classic = version == "1.28";
        let pods = kinds.iter().filter(|(kind, _)| !(classic && *kind == "job"));
        let pods: Vec<String> = pods.map(|(kind, path)| injector.inject(path, &recorded(kind)).to_string()).collect();
        validate(version, &pods.join("\n---\n"));
    }
}

#[test]
fn a_pod_is_injected_once() {
    let injector = Injector::start("1.33", "");
    let mut review = recorded("deployment");
    review["request"]["object"] = injector.inject("/inject", &review);
    for path in ["/inject", "/inject/namespace"] {
        let response = injector.review(path, &review);
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    }
}

#[test]
fn whoever_does_not_ask_is_left_alone() {
    let injector = Injector::start("1.33", "");
    let silent = recorded("statefulset");
    assert_eq!(injector.review("/inject", &silent).get("patch"), None);
    let mut deleted = recorded("deployment");
    deleted["request"]["operation"] = json!("DELETE");
    deleted["request"]["object"] = Json::Null;
    assert_eq!(injector.review("/inject", &deleted)["allowed"], true);
}

#[test]
fn a_pod_that_cannot_have_one_is_refused_with_the_reason_or_admitted_with_a_warning() {
    let mut review = recorded("deployment");
    review["request"]["object"]["spec"]["hostNetwork"] = json!(true);
    let injector = Injector::start("1.33", "");
    let response = injector.review("/inject", &review);
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(422)));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("cloakroom: the pod has hostNetwork"), "{message}");
    assert!(injector.get("/metrics").contains("cloakroom_injector_pods_total{outcome=\"refused\"} 1"));
    injector.until("it is logged", || injector.logged().contains("hostNetwork"));
    let injector = Injector::start("1.33", "on_refusal: admit\n");
    let response = injector.review("/inject", &review);
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    assert!(response["warnings"][0].as_str().unwrap().contains("no sidecar was added: the pod has hostNetwork"));
}

#[test]
fn what_is_no_review_is_told_so() {
    let injector = Injector::start("1.33", "");
    for (path, body, status) in [
        ("/inject", "{", "400"),
        ("/inject", "{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1\"}", "400"),
        ("/elsewhere", "{}", "404"),
    ] {
        let (_, answer) = injector.post(path, body);
        assert!(answer.ends_with(&format!("\n{status}")), "{path} {body}: {answer}");
    }
    let mut old = recorded("deployment");
    old["apiVersion"] = json!("admission.k8s.io/v1beta1");
    assert!(injector.post("/inject", &old.to_string()).1.contains("only AdmissionReview of admission.k8s.io/v1"));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(5 << 20));
    let (_, answer) = injector.post("/inject", &large);
    // Told so, or the stream is broken off while it is still being sent.
    assert!(answer.ends_with("413") || answer.ends_with("000"), "{answer}");
    injector.inject("/inject", &recorded("deployment"));
}

#[test]
fn a_renewed_certificate_is_taken_on_and_a_bad_one_is_not() {
    let (old, new) = (Authority::new(), Authority::new());
    let injector = Injector::start_with(&old, "1.33", "");
    let (tls, review) = (injector.folder.path().join("tls"), recorded("deployment"));
    let key = fs::read_to_string(tls.join("tls.key")).unwrap();
    for (certificate, key) in [("", key.as_str()), ("garbage", "garbage"), (new.1.as_str(), key.as_str())] {
        let before = injector.logged().matches("are not used").count();
        mount(&tls, &[("tls.crt", certificate), ("tls.key", key)]);
        injector.until("it is told", || injector.logged().matches("are not used").count() > before);
        injector.inject("/inject", &review);
    }
    new.mount(&tls);
    fs::write(injector.folder.path().join("ca.pem"), &new.1).unwrap();
    injector.until("the new one is served", || injector.post("/inject", &review.to_string()).0 == Some(0));
    assert!(injector.get("/readyz").contains("\"ready\":true"));
}

#[test]
fn without_a_certificate_it_runs_and_waits_for_one() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.pem"), &authority.1).unwrap();
    let injector = Injector::open(folder, "1.33", "");
    assert!(injector.get("/readyz").contains("\"ready\":false") && injector.get("/readyz").contains("tls.crt"));
    assert_eq!(injector.get("/healthz"), "ok\n");
    let review = recorded("deployment");
    assert_ne!(injector.post("/inject", &review.to_string()).0, Some(0));
    authority.mount(&injector.folder.path().join("tls"));
    injector.until("it is ready", || injector.get("/readyz").contains("\"ready\":true"));
    injector.inject("/inject", &review);
}

#[test]
fn what_is_wrong_with_its_file_is_shown_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("injector.yaml");
    let text = "version: 1\nkubernetes: 1.30\ntls: { certificate: a, key: b }\nbounds: { cpu: lots }\n\
                sidecar:\n  image: \"a b\"\n  prot: 8080\n  status_port: 8080\n  resources: { memory_limit: 2Gi }\n";
    fs::write(&file, text).unwrap();
    let output = crate::binary::Binary::run(&["injector", "--check", "--config", &file.display().to_string()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    for expected in [
        "injector.yaml:2:13",
        "put it in quotes",
        "injector.yaml:4:16",
        "this is not an amount",
        "injector.yaml:6:10",
        "this is not an image",
        "did you mean `port`?",
        "another of the sidecar's ports",
        "this is more than `bounds.memory` allows",
    ] {
        assert!(told.contains(expected), "{expected}:\n{told}");
    }
}
