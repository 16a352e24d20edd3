//! The job that makes the webhook's certificate, before somebody who stands for the API server.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::injector::{Authority, Injector, recorded};
use super::tools::{root, tool};

const SECRET: &str = "/api/v1/namespaces/cloakroom/secrets/tls";
const WEBHOOK: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/cloakroom-injector";

struct Api {
    folder: tempfile::TempDir,
    server: Child,
    port: u16,
}

impl Api {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Authority::new().vouch(folder.path(), "127.0.0.1");
        fs::write(folder.path().join("token"), "of-the-account\n").unwrap();
        let webhooks = json!([
            { "name": "namespace.cloakroom.dev", "clientConfig": {} },
            { "name": "annotated.cloakroom.dev", "clientConfig": {} },
        ]);
        let objects = json!({ WEBHOOK: { "metadata": {}, "webhooks": webhooks } });
        fs::write(folder.path().join("objects.json"), objects.to_string()).unwrap();
        let mut python = tool("python");
        python.arg(root().join("tests/suite/kubernetes/api.py")).arg(folder.path());
        let mut server = python.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { folder, server, port: line.trim().parse().unwrap() }
    }

    fn objects(&self) -> Json {
        serde_json::from_str(&fs::read_to_string(self.folder.path().join("objects.json")).unwrap()).unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Json)) {
        let mut objects = self.objects();
        change(&mut objects);
        fs::write(self.folder.path().join("objects.json"), objects.to_string()).unwrap();
    }

    fn run(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
        command.env_clear().env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
        command.env("KUBERNETES_SERVICE_PORT", self.port.to_string());
        command.args([
            "injector",
            "certificate",
            "--namespace=cloakroom",
            "--secret=tls",
            "--service=cloakroom-injector",
        ]);
        command.arg("--account").arg(self.folder.path()).args(more).output().unwrap()
    }

    #[track_caller]
    fn done(&self, more: &[&str]) -> String {
        let output = self.run(more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn failed(&self, more: &[&str]) -> String {
        let output = self.run(more);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    fn entry(&self, name: &str) -> String {
        decoded(&self.objects()[SECRET]["data"][name])
    }

    /// Whom the API server would believe of each webhook.
    fn bundles(&self) -> Vec<String> {
        let objects = self.objects();
        let webhooks = objects[WEBHOOK]["webhooks"].as_array().unwrap();
        webhooks.iter().map(|webhook| decoded(&webhook["clientConfig"]["caBundle"])).collect()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn decoded(base64: &Json) -> String {
    String::from_utf8(STANDARD.decode(base64.as_str().unwrap_or_default()).unwrap()).unwrap()
}

const TRUST: [&str; 1] = ["--webhook=cloakroom-injector"];

#[test]
fn a_certificate_is_made_trusted_and_kept() {
    let api = Api::open();
    assert_eq!(api.done(&[]), "a certificate was made\n");
    assert_eq!(api.bundles(), ["", ""]);
    let made = api.entry("tls.crt");
    assert_eq!(api.done(&TRUST), "the certificate is good for some time yet\n");
    assert_eq!(api.done(&TRUST), "the certificate is good for some time yet\n");
    assert_eq!((api.entry("tls.crt"), api.bundles()), (made, vec![api.entry("ca.crt"); 2]));
    assert_eq!(api.objects()[WEBHOOK]["metadata"]["resourceVersion"], "1");
    let injector = Injector::start_as(&api.entry("tls.crt"), &api.entry("tls.key"), &api.bundles()[0]);
    injector.inject("/inject", &recorded("deployment"));
}

#[test]
fn a_renewed_one_is_trusted_beside_the_one_that_is_still_served() {
    let api = Api::open();
    api.done(&[]);
    api.done(&TRUST);
    let (old, old_key) = (api.entry("tls.crt"), api.entry("tls.key"));
    api.change(|objects| {
        objects[SECRET]["metadata"]["annotations"]["cloakroom.dev/renew-after"] = json!("2026-01-01T00:00:00Z");
    });
    // Nobody could be told to trust it.
    assert_eq!(api.done(&[]), "the certificate is good for some time yet\n");
    assert_eq!(api.done(&TRUST), "the certificate was renewed\n");
    assert_ne!(api.entry("tls.crt"), old);
    for (certificate, key) in [(old, old_key), (api.entry("tls.crt"), api.entry("tls.key"))] {
        let injector = Injector::start_as(&certificate, &key, &api.bundles()[1]);
        injector.inject("/inject", &recorded("deployment"));
    }
    assert_eq!(api.done(&TRUST), "the certificate is good for some time yet\n");
}

#[test]
fn what_is_somebody_elses_is_left_alone_and_what_fails_is_said() {
    let api = Api::open();
    assert!(api.failed(&["--webhook=other"]).contains("403 Forbidden: cannot GET"));
    let foreign = json!({ "metadata": { "resourceVersion": "7" }, "data": { "tls.crt": "", "tls.key": "" } });
    api.change(|objects| objects[SECRET] = foreign.clone());
    assert!(api.failed(&TRUST).contains("would be ours to replace"));
    assert_eq!(api.objects()[SECRET], foreign);
    fs::write(api.folder.path().join("token"), "another").unwrap();
    assert!(api.failed(&[]).contains("401 Unauthorized: who are you?"));
    Authority::new().vouch(&api.folder.path().join("elsewhere"), "127.0.0.1");
    fs::copy(api.folder.path().join("elsewhere/ca.crt"), api.folder.path().join("ca.crt")).unwrap();
    assert!(api.failed(&[]).contains("cannot be reached"));
    fs::remove_file(api.folder.path().join("token")).unwrap();
    assert!(api.failed(&[]).contains("token: No such file"));
}
