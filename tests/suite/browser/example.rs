//! The published example of a login: `config/login.yaml` and `examples/python/site.py`, as they are.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::{APP, fingerprint};
use crate::binary::Binary;
use crate::browser::webdriver::Browser;
use crate::house::Authority;
use crate::redis_server::wait_for;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The website; killed on drop.
struct Site(Child);

impl Site {
    fn open() -> (Self, u16) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut site = Command::new("/usr/bin/python3");
        site.arg(format!("{ROOT}/examples/python/site.py")).arg(port.to_string());
        let site = site.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("python3");
        let site = Self(site);
        wait_for("the website", || TcpStream::connect(("127.0.0.1", port)).ok());
        (site, port)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The published configuration with this test's places in it.
fn config(folder: &Path, site: u16) -> std::path::PathBuf {
    let text = std::fs::read_to_string(format!("{ROOT}/config/login.yaml")).unwrap();
    let text = text
        .replace("0.0.0.0:8443", "127.0.0.1:0")
        .replace("/tls/", "")
        .replace("/var/lib/cloakroom/", "")
        .replace("127.0.0.1:9000", &format!("127.0.0.1:{site}"))
        .replace("token: ${env:CLOAKROOM_ADMIN_TOKEN}", "address: 127.0.0.1:0");
    let path = folder.join("login.yaml");
    std::fs::write(&path, format!("{text}\nstatus: {{ address: '127.0.0.1:0' }}\n")).unwrap();
    path
}

/// Asks as an app does, which believes the authority and nobody else.
fn curl(folder: &Path, sidecar: &Binary, arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--include", "--cacert"]).arg(folder.join("ca.crt"));
    curl.arg("--connect-to").arg(format!("app.example:443:{}", sidecar.proxy)).args(arguments);
    let Output { status, stdout, stderr } = curl.output().expect("curl");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn the_published_website_is_walked_through() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let certificate = authority.issue("app.example");
    let files = [("ca.crt", &authority.pem), ("tls.crt", &certificate.chain), ("tls.key", &certificate.key)];
    files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
    let (_site, port) = Site::open();
    let sidecar = Binary::serve(&config(folder.path(), port));

    let browser = Browser::open(&["app.example"], sidecar.proxy, &fingerprint(&certificate));
    let theme = || browser.run("return document.body.className");
    let cookie = || browser.cookies().first().map(|cookie| cookie["value"].as_str().unwrap().to_owned());
    browser.go(&format!("{APP}/account"));
    assert_eq!(browser.url(), format!("{APP}/login?return_to=%2Faccount"));
    browser.go(APP);
    assert_eq!((theme(), cookie()), ("light".into(), None));
    browser.click("#theme");
    let visitor = cookie();
    assert_eq!((theme(), visitor.is_some()), ("dark".into(), true));
    browser.click("#account");
    assert_eq!(browser.url(), format!("{APP}/login?return_to=/account"), "a visitor's session is one of nobody");
    browser.write("[name=name]", "alice");
    browser.write("[name=password]", "wonderland");
    browser.click("#login");
    assert_eq!((browser.url(), theme()), (format!("{APP}/account"), "dark".into()));
    assert_eq!(browser.run("return document.querySelector('#user').textContent"), "u-456");
    assert!(cookie().is_some() && cookie() != visitor);
    assert!(!browser.visible().contains("cr_"));
    browser.click("#logout");
    assert_eq!((browser.url(), theme(), cookie()), (format!("{APP}/"), "light".into(), None));

    let login = ["--data", r#"{"name":"alice","password":"wonderland"}"#, "https://app.example/token"];
    let answer = curl(folder.path(), &sidecar, &login);
    assert_eq!((line(&answer, "set-cookie"), line(&answer, "cache-control")), (None, Some("no-store")), "{answer}");
    let bearer = format!("Authorization: Bearer {}", line(&answer, "cloakroom-session-id").expect("an id"));
    let account = curl(folder.path(), &sidecar, &["--header", &bearer, "https://app.example/account"]);
    assert!(account.contains("<p id=user>u-456</p>"), "{account}");
    curl(folder.path(), &sidecar, &["--header", &bearer, "--request", "POST", "https://app.example/logout"]);
    let account = curl(folder.path(), &sidecar, &["--header", &bearer, "https://app.example/account"]);
    assert_eq!(line(&account, "cloakroom-action"), Some("reauth"), "{account}");
    let wrong = ["--data", r#"{"name":"alice","password":"guess"}"#, "https://app.example/token"];
    assert_eq!(line(&curl(folder.path(), &sidecar, &wrong), "cloakroom-session-id"), None);
}

/// The value of a header in an answer.
fn line<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    let is_it = |line: &&str| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
    head.lines().find(is_it)?.split_once(": ").map(|(_, value)| value)
}
