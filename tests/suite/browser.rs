//! The way of a user through a website, in a real browser and over TLS.

mod example;
mod webdriver;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{KeyPair, PublicKeyData};
use serde_json::json;

use crate::house::{Answer, Authority, Certificate, Guest, House, Plan, Seen};
use webdriver::Browser;

const APP: &str = "https://app.example";
/// Of the same site as the app, so that the cookie goes along.
const FRONT: &str = "https://front.app.example";
const OTHER: &str = "https://other.app.example";
const EVIL: &str = "https://evil.example";
const HOSTS: [&str; 4] = ["app.example", "front.app.example", "other.app.example", "evil.example"];

/// A website of a few pages. It knows no session id, and keeps no session.
fn website(seen: &Seen) -> Answer {
    let post = |action: &str| {
        format!("<form method=post action='{action}'><button id='{}'>go</button></form>", name_of(action))
    };
    let page = |body: String| {
        let context = seen.header("cloakroom-context").unwrap_or("nobody").replace('<', "");
        let text = format!("<!doctype html><title>site</title><pre id=context>{context}</pre>{body}");
        Answer::ok().header("content-type", "text/html").body(&text)
    };
    let back = || Answer::new(303).header("location", "/site");
    match (seen.method.as_str(), seen.target.split('?').next().unwrap_or_default()) {
        ("POST", "/site/theme") if seen.header("cloakroom-session").is_none() => {
            back().header("cloakroom-start", "ui_preferences.theme=\"dark\"")
        }
        ("POST", "/site/theme") => back().header("cloakroom-set", "ui_preferences.theme=\"dark\""),
        ("POST", "/login") => back().header("cloakroom-start", "user_id=\"u-1\", auth_status=\"authenticated\""),
        ("POST", "/logout") => back().header("cloakroom-end", "?1"),
        ("OPTIONS", _) => cors(seen, Answer::new(204)),
        ("PUT", "/api") => cors(seen, Answer::ok().header("cloakroom-set", "step=5").body("done")),
        (_, "/evil") => page(post(&format!("{APP}/site/theme")) + &post(&format!("{APP}/login"))),
        _ => page(post("/site/theme") + &post("/login") + &post("/logout")),
    }
}

fn name_of(action: &str) -> &str {
    action.rsplit('/').next().unwrap_or_default()
}

/// What a backend says that takes requests of other origins.
fn cors(seen: &Seen, answer: Answer) -> Answer {
    answer
        .header("access-control-allow-origin", seen.header("origin").unwrap_or("null"))
        .header("access-control-allow-credentials", "true")
        .header("access-control-allow-methods", "PUT")
        .header("access-control-allow-headers", "x-custom")
}

fn open() -> (House, Browser) {
    let certificate = Authority::new().issue("app.example");
    let house = Plan::new()
        .tls(&certificate, "")
        .section(&format!("origins: ['{FRONT}']"))
        .route(
            "name: site, match: { path: /site }, upstream: 'http://BACKEND', session: optional, start: true, \
             read: [auth, ui], write: [ui]",
        )
        .route(
            "name: account, match: { path: /account }, upstream: 'http://BACKEND', read: [auth, ui], login_url: /login",
        )
        .route("name: api, match: { path: /api }, upstream: 'http://BACKEND', read: [task], write: [task]")
        .route("name: evil, match: { path: /evil }, upstream: 'http://BACKEND', session: none")
        .route("name: icon, match: { path: /favicon.ico }, upstream: 'http://BACKEND', session: none")
        .open();
    house.backend.always(website);
    let browser = Browser::open(&HOSTS, house.proxy, &fingerprint(&certificate));
    (house, browser)
}

/// Of a certificate's key, as Chromium takes it.
fn fingerprint(certificate: &Certificate) -> String {
    let key = KeyPair::from_pem(&certificate.key).unwrap().subject_public_key_info();
    BASE64_STANDARD.encode(digest(&SHA256, &key))
}

/// The session that the browser's cookie is of; it has to be one that no script, no other site and no wire sees.
#[track_caller]
fn guest(house: &House, browser: &Browser) -> Guest {
    let cookies = browser.cookies();
    assert_eq!(cookies.len(), 1, "{} cookies", cookies.len());
    let (cookie, id) = (&cookies[0], cookies[0]["value"].as_str().unwrap());
    house.sensitive(id);
    assert_eq!(cookie["name"], "__Host-session");
    assert_eq!(
        (&cookie["httpOnly"], &cookie["secure"], &cookie["sameSite"]),
        (&json!(true), &json!(true), &json!("Lax"))
    );
    assert_eq!((&cookie["path"], &cookie["domain"]), (&json!("/"), &json!("app.example")));
    let visible = browser.visible();
    assert!(!visible.contains("cr_") && !visible.contains(id), "{visible}");
    Guest::of(id)
}

fn context(browser: &Browser) -> String {
    browser.run("return document.querySelector('#context').textContent").as_str().unwrap().to_owned()
}

/// What a page is told that asks another origin, its cookies along.
fn fetched(browser: &Browser) -> serde_json::Value {
    browser.run(&format!(
        "return fetch('{APP}/api', {{ method: 'PUT', credentials: 'include', headers: {{ 'x-custom': '1' }} }})
           .then(answer => answer.status, () => 'kept from the page')"
    ))
}

#[test]
fn a_browser_visits_logs_in_and_out() {
    let (house, browser) = open();
    browser.go(&format!("{APP}/site"));
    assert_eq!((context(&browser).as_str(), browser.cookies().len()), ("nobody", 0));

    browser.click("#theme");
    let visitor = guest(&house, &browser);
    assert_eq!(browser.url(), format!("{APP}/site"));
    assert_eq!(
        context(&browser),
        r#"auth_status="anonymous", ui_preferences.theme="dark", ui_preferences.language="en""#
    );

    browser.click("#login");
    let user = guest(&house, &browser);
    assert_ne!(user.handle, visitor.handle);
    assert!(house.load(&visitor).is_err(), "the visitor's session is over");
    let expected =
        r#"user_id="u-1", auth_status="authenticated", ui_preferences.theme="dark", ui_preferences.language="en""#;
    assert_eq!(context(&browser), expected);
    browser.go(&format!("{APP}/account"));
    assert_eq!((browser.status(), context(&browser).as_str()), (200, expected));

    browser.click("#logout");
    assert_eq!((browser.url(), browser.cookies().len()), (format!("{APP}/site"), 0));
    assert!(house.load(&user).is_err());
    assert_eq!(context(&browser), "nobody");
    browser.go(&format!("{APP}/account?a=1&b=2"));
    assert_eq!(browser.url(), format!("{APP}/login?return_to=%2Faccount%3Fa%3D1%26b%3D2"));
}

#[test]
fn a_session_that_expires_sends_its_browser_to_log_in() {
    let (house, browser) = open();
    browser.go(&format!("{APP}/site"));
    browser.click("#login");
    guest(&house, &browser);
    house.clock.advance(std::time::Duration::from_secs(3600));
    browser.go(&format!("{APP}/account/orders?page=2"));
    assert_eq!(browser.url(), format!("{APP}/login?return_to=%2Faccount%2Forders%3Fpage%3D2"));
    assert_eq!(browser.cookies().len(), 0, "the cookie of a dead session is cleared");
}

#[test]
fn pages_of_other_sites_and_origins_have_no_use_of_the_cookie() {
    let (house, browser) = open();
    browser.go(&format!("{APP}/site"));
    browser.click("#login");
    let user = guest(&house, &browser);

    // The cookie does not go along, but a login of another's would be worse than none.
    browser.go(&format!("{EVIL}/evil"));
    browser.click("#login");
    assert_eq!((browser.url(), browser.status()), (format!("{APP}/login"), 403));
    browser.go(&format!("{EVIL}/evil"));
    browser.click("#theme");
    assert_eq!((browser.url(), browser.status()), (format!("{APP}/site/theme"), 403));
    assert_eq!(fetched_from(&browser, EVIL), "kept from the page");

    assert_eq!(fetched_from(&browser, OTHER), "kept from the page");
    assert_eq!(house.field(&user, "step"), json!(null));
    assert_eq!(fetched_from(&browser, FRONT), 200);
    assert_eq!(house.field(&user, "step"), json!(5));
    browser.go(&format!("{APP}/site"));
    assert_eq!(guest(&house, &browser).handle, user.handle);
}

fn fetched_from(browser: &Browser, origin: &str) -> serde_json::Value {
    browser.go(&format!("{origin}/evil"));
    fetched(browser)
}
