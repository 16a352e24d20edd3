use std::collections::{BTreeMap, BTreeSet};

use http::header::ALLOW;
use http::{Method, Request, StatusCode};
use serde_json::Value as Json;
use tower::ServiceExt as _;

use super::*;

/// An admin whose parts do nothing: enough to be routed to.
fn admin() -> Arc<Admin> {
    use crate::clock::{Clock, Time};
    let yaml = "version: 1\nsession: { schema: { version: 1, fields: { a: { type: string } } } }\nroutes: []\n";
    let file = std::path::Path::new("cloakroom.yaml");
    let config = config::inspect(yaml, file, &|_| None).config.unwrap();
    let schema = crate::session::Schema::compile(&config.session, &mut config::Problems::default()).unwrap();
    let clock = Clock::by_hand(Time(1_795_421_702_000));
    let bounds = crate::store::TrailBounds { keep: 10, retain: std::time::Duration::from_secs(60) };
    let parts = crate::session::Parts {
        store: Arc::new(crate::store::Memory::new(bounds)),
        schema: Arc::new(schema),
        keys: crate::keyring::LiveKeyring::new(crate::keyring::Keyring::ephemeral(clock.now()).unwrap()),
        clock,
        live: crate::session::Live::default(),
        audit: crate::audit::Audit::default(),
        metrics: Metrics::new(),
    };
    let sessions = Arc::new(Sessions::new(parts, &config));
    let parts = Parts { sessions, metrics: Metrics::new(), readiness: Readiness::default(), drain: Drain::default() };
    Arc::new(Admin::new(parts, &config))
}

/// The methods that an endpoint takes, as it says itself when it is asked with another.
async fn methods(path: &str) -> BTreeSet<String> {
    let path = path.replace("{handle}", "h").replace("{user}", "u");
    let request = Request::builder().method(Method::TRACE).uri(path).body(axum::body::Body::empty()).unwrap();
    let response = admin_router(admin()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let allowed = response.headers()[ALLOW].to_str().unwrap().to_ascii_lowercase();
    // HEAD comes with GET.
    allowed.split(',').filter(|method| *method != "head").map(str::to_owned).collect()
}

fn described() -> BTreeMap<String, BTreeSet<String>> {
    let document: Json = serde_json::from_str(health::OPENAPI).unwrap();
    let operations =
        |item: &Json| item.as_object().unwrap().keys().filter(|key| *key != "parameters").cloned().collect();
    document["paths"].as_object().unwrap().iter().map(|(path, item)| (path.clone(), operations(item))).collect()
}

#[tokio::test]
async fn every_endpoint_is_described_and_every_description_has_its_endpoint() {
    let mut served = BTreeMap::new();
    for (path, _) in status_endpoints().into_iter().chain(data_endpoints()) {
        served.insert(path.to_owned(), methods(path).await);
    }
    assert_eq!(served, described());
}

#[test]
fn every_reference_in_the_description_leads_somewhere() {
    fn references<'a>(json: &'a Json, found: &mut Vec<&'a str>) {
        match json {
            Json::Object(members) => {
                found.extend(members.get("$ref").and_then(Json::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Json::Array(members) => members.iter().for_each(|member| references(member, found)),
            _ => {}
        }
    }
    let document: Json = serde_json::from_str(health::OPENAPI).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
}
