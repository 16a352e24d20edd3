use super::*;

const ROUTE: &str = "name: a, upstream: \"http://127.0.0.1:9000\"";

#[test]
fn what_is_not_supported_yet_is_refused_at_its_key() {
    for (line, message) in [
        ("tracing: { ‸otlp: \"http://collector:4317\" }", "`otlp` is not supported yet"),
        ("tracing: { ‸sample: 1.0 }", "`sample` is not supported yet"),
    ] {
        reported(&format!("{SOUND}{line}\n"), &[message]);
    }
}

#[test]
fn what_is_not_supported_yet_is_refused_at_its_value() {
    const UNIX: &str = "Unix sockets are not supported yet";
    for (line, message) in
        [("admin: { address: ‸unix:/run/admin.sock }", UNIX), ("status: { address: \"‸unix:/run/status.sock\" }", UNIX)]
    {
        reported(&format!("{SOUND}{line}\n").replace("\"‸", "‸\""), &[message]);
    }
}

#[test]
fn what_says_the_default_is_accepted() {
    sound(&format!(
        "version: 1
listeners: [{{ address: \"0.0.0.0:8080\", tls: null, proxy_protocol: false }}]
store: {{ kind: embedded, url: null, urls: [], cluster: false, ca: ~, connect_timeout: 1s, cache: {{ sessions: 10000, mode: tracking }}, on_failure: closed, stale_for: 30s, durability: {{ wait_replicas: 0, timeout: 100ms }} }}
identity: {{ jwt: null, introspection: [] }}
session: {{ schema: {{ version: 1, fields: {{}} }} }}
tracing: {{ otlp: null, sample: 0.01 }}
routes: [{{ {ROUTE}, upstream_tls: null, forward_credential: false }}]
"
    ));
}

#[test]
fn unknown_keys_beside_what_is_not_supported_are_unknown() {
    let help = helped(&format!("{SOUND}tracing: {{ ‸sampel: 0.5 }}\n"), "unknown key `sampel`");
    assert_eq!(help, "did you mean `sample`?");
}

#[test]
fn the_published_schema_has_none_of_it() {
    let schema = json_schema().to_string();
    assert!(!schema.contains("\"tracing\""));
}
