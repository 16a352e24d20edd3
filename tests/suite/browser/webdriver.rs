//! Chromium, driven as WebDriver says (W3C), through Debian's chromedriver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::house::PATIENCE;

/// A browser with one window. Dropping it ends it.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Opens one that finds these hosts at that address, and nothing else anywhere, and takes certificates of the key
    /// with that fingerprint (SHA-256 of its SPKI, in base64).
    pub fn open(hosts: &[&str], at: SocketAddr, key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver");
        driver.args(["--port=0"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = driver.spawn().expect("chromedriver, which tests/prepare installs");
        let port = port_in(driver.stdout.take().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut browser = Self { driver, address, session: String::new(), _folder: folder };
        let found = hosts.iter().map(|host| format!("MAP {host} {at}, ")).collect::<String>();
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--no-first-run".into(),
            format!("--user-data-dir={}", browser._folder.path().display()),
            format!("--host-resolver-rules={found}MAP * ~NOTFOUND"),
            format!("--ignore-certificate-errors-spki-list={key}"),
        ];
        let wanted = json!({ "browserName": "chrome", "goog:chromeOptions": { "args": arguments } });
        let made = browser.ask("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = made["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    /// Goes to a page and waits until it is there.
    pub fn go(&self, url: &str) {
        self.tell("url", json!({ "url": url }));
    }

    pub fn url(&self) -> String {
        self.told("url").as_str().unwrap().to_owned()
    }

    /// The status that the page came with.
    pub fn status(&self) -> u64 {
        self.run("return performance.getEntriesByType('navigation')[0].responseStatus").as_u64().unwrap()
    }

    /// Clicks on what leads to another page, and waits until that is there.
    pub fn click(&self, selector: &str) {
        self.run("window.isLeft = true");
        let found = self.tell("element", json!({ "using": "css selector", "value": selector }));
        let element = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.tell(&format!("element/{element}/click"), json!({}));
        let begun = Instant::now();
        let ready = json!({ "script": "return !window.isLeft && document.readyState == 'complete'", "args": [] });
        // Between two pages there is nothing that a script could run in.
        while self.try_ask("POST", &format!("/session/{}/execute/sync", self.session), &ready) != Ok(json!(true)) {
            assert!(begun.elapsed() < PATIENCE, "{selector} leads nowhere");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes into a field of a form.
    pub fn write(&self, selector: &str, text: &str) {
        self.run(&format!("document.querySelector('{selector}').value = '{text}'"));
    }

    /// What a function with this body gives back, in the page.
    pub fn run(&self, body: &str) -> Json {
        self.tell("execute/sync", json!({ "script": body, "args": [] }))
    }

    /// All that a script in the page can see.
    pub fn visible(&self) -> String {
        let all = "return document.documentElement.outerHTML + document.cookie + JSON.stringify({...localStorage}) + \
                   JSON.stringify({...sessionStorage}) + location.href";
        self.run(all).as_str().unwrap().to_owned()
    }

    /// The cookies of the page, also those that no script sees.
    pub fn cookies(&self) -> Vec<Json> {
        self.told("cookie").as_array().unwrap().clone()
    }

    fn tell(&self, what: &str, body: Json) -> Json {
        self.ask("POST", &format!("/session/{}/{what}", self.session), &body)
    }

    fn told(&self, what: &str) -> Json {
        self.ask("GET", &format!("/session/{}/{what}", self.session), &Json::Null)
    }

    fn ask(&self, method: &str, path: &str, body: &Json) -> Json {
        self.try_ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn try_ask(&self, method: &str, path: &str, body: &Json) -> Result<Json, Json> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes()).unwrap();
        let answer: Json = serde_json::from_slice(&read(&mut BufReader::new(stream))).unwrap();
        let value = answer["value"].clone();
        if value.get("error").is_some() { Err(value) } else { Ok(value) }
    }
}

fn read(from: &mut impl BufRead) -> Vec<u8> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            let mut body = vec![0; length];
            from.read_exact(&mut body).unwrap();
            return body;
        }
    }
}

fn port_in(said: impl Read + Send + 'static) -> u16 {
    let mut lines = BufReader::new(said).lines();
    let told = lines.find_map(|line| line.unwrap().strip_suffix('.')?.rsplit_once("on port ")?.1.parse().ok());
    // Read on, so that it never waits for its reader.
    std::thread::spawn(move || lines.for_each(drop));
    told.expect("where chromedriver listens")
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.ask("DELETE", &format!("/session/{}", self.session), &Json::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
