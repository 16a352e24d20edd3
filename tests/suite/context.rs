//! What the backend receives: the session's context, and nothing that only cloakroom may say.

use serde_json::json;

use crate::house::{Answer, House, Plan, RawAnswer};

#[test]
fn context_has_the_schemas_order_and_each_fields_own_type() {
    let house = House::new();
    house.sensitive("jane@example.org");
    let guest = house.guest(json!({
        "features": ["beta", "canvas"], "ui_preferences.theme": "dark", "step": 4, "current_project_id": "proj-789",
        "email": "jane@example.org", "auth_status": "authenticated", "user_id": "u-456",
    }));
    house.get("/chat").cookie(&guest).send().passed();
    let seen = house.backend.last();
    let email = house.field_handle(&guest, "email");
    assert_eq!(
        seen.header("cloakroom-context").unwrap(),
        format!(
            "user_id=\"u-456\", auth_status=\"authenticated\", email={email}, current_project_id=\"proj-789\", \
             step=4, ui_preferences.theme=\"dark\", ui_preferences.language=\"en\", features=(\"beta\" \"canvas\")"
        )
    );
    assert_eq!(seen.header("cloakroom-session").unwrap(), guest.handle.to_string());
    assert_eq!(seen.header("cloakroom-etag").unwrap(), "\"1\"");
    assert_eq!(seen.header("cloakroom-schema").unwrap(), "2");
    assert_eq!(seen.context_names().len(), 4);
    house.close();
}

#[test]
fn context_stands_on_the_wire_byte_for_byte() {
    let house = House::new();
    let guest = house.guest(json!({ "step": -12, "notes": "a \"b\" \\c", "urgent": false, "score": 1.25 }));
    house.raw_backend.next(RawAnswer::close("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    house.get("/raw").cookie(&guest).send().passed();
    let head = house.raw_backend.heads().concat();
    for line in [
        "\r\ncloakroom-etag: \"1\"\r\n",
        "\r\ncloakroom-schema: 2\r\n",
        "\r\ncloakroom-context: step=-12, score=1.25, urgent=?0, notes=\"a \\\"b\\\" \\\\c\"\r\n",
    ] {
        assert!(head.contains(line), "{line:?} is not in {head:?}");
    }
    house.close();
}

#[test]
fn a_true_boolean_is_its_key_and_other_alphabets_are_display_strings() {
    let house = House::new();
    let guest = house.guest(json!({ "urgent": true, "notes": "fü\n%", "score": 3 }));
    house.get("/logout").cookie(&guest).send().passed();
    let expected = "score=3.0, urgent, notes=%\"f%c3%bc%0a%25\"";
    assert_eq!(house.backend.last().header("cloakroom-context"), Some(expected));
    house.close();
}

#[test]
fn absent_fields_have_their_default_or_are_left_out() {
    let house = House::new();
    let guest = house.visitor();
    house.get("/chat").cookie(&guest).send().passed();
    let expected = "auth_status=\"anonymous\", ui_preferences.theme=\"light\", ui_preferences.language=\"en\"";
    assert_eq!(house.backend.last().header("cloakroom-context"), Some(expected));
    house.close();
}

#[test]
fn a_route_shows_what_it_reads_and_no_more() {
    let house = House::new();
    house.sensitive("jane@example.org");
    let guest = house.guest(json!({ "email": "jane@example.org", "user_id": "u-456", "step": 4 }));
    house.get("/logout").cookie(&guest).send().passed();
    assert_eq!(house.backend.last().header("cloakroom-context"), Some("step=4"));
    house.get("/token").cookie(&guest).send().passed();
    assert_eq!(house.backend.last().header("cloakroom-context"), None);
    assert_eq!(house.backend.last().context_names().len(), 3, "handle, tag and schema stand all the same");
    house.close();
}

#[test]
fn the_same_content_gives_the_same_bytes_and_handles_outlive_their_values() {
    let house = House::new();
    for value in ["jane@example.org", "joan@example.org"] {
        house.sensitive(value);
    }
    let guest = house.guest(json!({ "email": "jane@example.org" }));
    let context = || {
        house.get("/chat").cookie(&guest).send().passed();
        house.backend.last().header("cloakroom-context").unwrap().to_owned()
    };
    let before = context();
    house.backend.next(Answer::set("email=\"joan@example.org\""));
    assert_eq!(context(), before);
    assert_eq!(house.resolved(&guest, "email"), "joan@example.org");
    assert_eq!(context(), before);
    assert_eq!(house.backend.last().header("cloakroom-etag"), Some("\"2\""));
    let other = house.guest(json!({ "email": "jane@example.org" }));
    assert_ne!(house.field_handle(&other, "email"), house.field_handle(&guest, "email"));
    house.close();
}

#[test]
fn single_fields_have_headers_of_their_own() {
    let house = House::new();
    house.sensitive("jane@example.org");
    let guest = house.guest(json!({
        "user_id": "50% fü", "email": "jane@example.org", "urgent": true, "step": 7, "features": ["a,b", "c"],
        "score": 0.5,
    }));
    house.get("/headers").cookie(&guest).send().passed();
    let seen = house.backend.last();
    assert_eq!(seen.header("x-user-id"), Some("50%25%20f%C3%BC"));
    assert_eq!(seen.header("x-email").unwrap(), house.field_handle(&guest, "email").to_string());
    assert_eq!(seen.header("x-urgent"), Some("true"));
    assert_eq!(seen.header("x-step"), Some("7"));
    assert_eq!(seen.header("x-project"), None);
    house.get("/flags").cookie(&guest).send().passed();
    let seen = house.backend.last();
    assert_eq!(seen.header("x-features"), Some("a%2Cb,c"));
    assert_eq!(seen.header("x-score"), Some("0.5"));
    assert_eq!(seen.header("x-user-id"), None, "another route's header");
    house.close();
}

#[test]
fn without_a_session_no_context_header_is_there() {
    let house = House::new();
    let guest = house.visitor();
    house.get("/public").cookie(&guest).send().passed();
    assert_eq!(house.backend.last().context_names(), [""; 0]);
    house.get("/visit").send().passed();
    assert_eq!(house.backend.last().context_names(), [""; 0]);
    house.close();
}

#[test]
fn no_spelling_of_a_reserved_name_gets_through() {
    let house = House::new();
    let guest = house.guest(json!({ "user_id": "u-456" }));
    let forged = "Cloakroom-Context: step=1\r\ncloakroom_context: step=2\r\nCLOAKROOM.SESSION: ses_x\r\n\
                  cloakroom~anything: 1\r\nCloakroom_Set: step=3\r\nX-User-Id: evil\r\nx_user_id: evil\r\n\
                  X.User.Id: evil\r\nX_Features: evil\r\nsession_id: kept\r\nx-session-id: kept\r\nX-User: kept\r\n";
    for path in ["/public", "/visit", "/chat", "/headers"] {
        let lines = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{forged}");
        let answer = house.raw_with_cookie(&lines, &guest, "\r\n").rest();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let seen = house.backend.last();
        let forged: Vec<_> = seen.headers.iter().filter(|(_, value)| value.contains("evil") || value == "1").collect();
        assert!(forged.is_empty(), "{forged:?}");
        assert!(!seen.headers.iter().any(|(name, _)| name.contains("cloakroom") && !name.starts_with("cloakroom-")));
        assert_eq!(seen.lines("cloakroom-set"), [""; 0]);
        for name in ["session_id", "x-session-id", "x-user"] {
            assert_eq!(seen.header(name), Some("kept"), "{path} {name}");
        }
    }
    assert_eq!(house.backend.last().header("x-user-id"), Some("u-456"));
    house.close();
}

#[test]
fn a_reserved_trailer_of_the_client_does_not_get_through() {
    let house = House::new();
    let guest = house.visitor();
    let trailers =
        [("cloakroom-set", "step=1"), ("cloakroom_context", "step=1"), ("x-user-id", "evil"), ("x-sum", "1f")];
    // What frames or routes a message, and what we say ourselves, in any spelling.
    let others =
        ["content_length", "transfer.encoding", "x-request-id", "traceparent", "via", "expect", "max-forwards"];
    let mut ask = house.post("/chat").cookie(&guest).body("hello");
    for (name, value) in trailers.into_iter().chain(others.map(|name| (name, "1"))) {
        ask = ask.trailer(name, value);
    }
    ask.send().passed();
    let seen = house.backend.last();
    assert_eq!(seen.body, b"hello");
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "1f".to_owned())]);
    house.close();
}

#[test]
fn connection_cannot_have_an_injected_header_removed() {
    let house = House::new();
    let guest = house.guest(json!({ "user_id": "u-456" }));
    let connection = "close, cloakroom-session, Cloakroom-Context, x-user-id, x-forwarded-for, via, te, X-Mine";
    house.get("/headers").header("connection", connection).header("x-mine", "1").cookie(&guest).send().passed();
    let seen = house.backend.last();
    for name in ["cloakroom-session", "cloakroom-etag", "x-user-id", "x-forwarded-for", "via", "te"] {
        assert!(seen.header(name).is_some(), "{name}");
    }
    assert_eq!(seen.header("x-mine"), None);
    house.close();
}

#[test]
fn hop_by_hop_headers_end_here() {
    let house = House::new();
    let ask = house.get("/public").header("keep-alive", "timeout=5").header("proxy-connection", "keep-alive");
    ask.header("proxy-authorization", "Basic eDp5").header("te", "gzip, trailers").send().passed();
    let seen = house.backend.last();
    for name in ["keep-alive", "proxy-connection", "proxy-authorization", "upgrade"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("te"), Some("trailers"));
    house.close();
}

#[test]
fn forwarding_headers_of_an_unknown_peer_are_replaced() {
    let house = House::new();
    let ask = house
        .get("/public")
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-port", "1")
        .header("x_forwarded_uri", "/evil")
        .header("forwarded", "for=203.0.113.9")
        .header("x-original-url", "/evil")
        .header("x-rewrite-url", "/evil")
        .header("x-envoy-original-path", "/evil")
        .header("x-real-ip", "203.0.113.9")
        .header("x_client_ip", "203.0.113.9")
        .header("true-client-ip", "203.0.113.9")
        .header("x-request-id", "mine");
    ask.send().passed();
    let seen = house.backend.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("app.example"));
    assert_eq!(seen.header("forwarded"), Some("for=127.0.0.1;host=\"app.example\";proto=http"));
    assert_eq!(seen.header("via"), Some("1.1 cloakroom"));
    assert_eq!(seen.header("host"), Some("app.example"));
    assert_ne!(seen.header("x-request-id"), Some("mine"));
    let gone = ["x-forwarded-port", "x_forwarded_uri", "x-original-url", "x-rewrite-url", "x-envoy-original-path"];
    for name in gone.into_iter().chain(["x-real-ip", "x_client_ip", "true-client-ip"]) {
        assert_eq!(seen.header(name), None, "{name}");
    }
    house.close();
}

#[test]
fn every_request_of_a_connection_is_told_of_with_its_own_host() {
    let house = House::new();
    let mut client = house.raw("");
    for host in ["a.example", "b.example", "a.example", "b.example:8080"] {
        client.send(format!("GET /public HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        client.head().unwrap();
        client.until("\"trailers\":[]}").unwrap();
        let seen = house.backend.last();
        assert_eq!(seen.header("x-forwarded-host"), Some(host));
        assert_eq!(seen.header("forwarded"), Some(&*format!("for=127.0.0.1;host=\"{host}\";proto=http")));
    }
    drop(client);
    house.close();
}

#[test]
fn forwarding_headers_of_a_trusted_peer_are_continued() {
    let house = Plan::new().section("trusted_proxies: [127.0.0.0/8]").open();
    let ask = house
        .get("/public")
        .header("x-forwarded-for", "203.0.113.9, 10.0.0.1")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "shop.example")
        .header("forwarded", "for=203.0.113.9")
        .header("x-request-id", "req-1")
        .header("via", "1.0 edge");
    ask.send().passed();
    let seen = house.backend.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("203.0.113.9, 10.0.0.1, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
    assert_eq!(seen.header("forwarded"), Some("for=203.0.113.9, for=127.0.0.1;host=\"app.example\";proto=http"));
    assert_eq!(seen.header("x-request-id"), Some("req-1"));
    assert_eq!(seen.lines("via").join(", "), "1.0 edge, 1.1 cloakroom");
    house.get("/public").header("x-request-id", "not well formed").send().passed();
    assert_ne!(house.backend.last().header("x-request-id"), Some("not well formed"));
    house.close();
}

#[test]
fn a_trace_is_continued_or_begun() {
    let house = House::new();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    house.get("/public").header("traceparent", parent).header("tracestate", "a=b").send().passed();
    let seen = house.backend.last();
    assert!(seen.header("traceparent").unwrap().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    assert_eq!(seen.header("tracestate"), Some("a=b"));
    house.get("/public").header("traceparent", "nonsense").header("tracestate", "a=b").send().passed();
    let seen = house.backend.last();
    assert_eq!(seen.header("traceparent").unwrap().len(), parent.len());
    assert_eq!(seen.header("tracestate"), None);
    house.close();
}

#[test]
fn another_prefix_is_another_name_for_everything_at_once() {
    let house = Plan::new().section("headers: { prefix: acme- }").open();
    let guest = house.visitor();
    let answer = Answer::ok().header("acme-set", "step=5").header("cloakroom-set", "step=6");
    house.backend.next(answer);
    let reply = house.get("/chat").header("acme_context", "x").header("cloakroom-x", "kept").cookie(&guest).send();
    reply.passed();
    let seen = house.backend.last();
    assert_eq!(seen.header("acme-session"), Some(&*guest.handle.to_string()));
    assert_eq!(seen.header("acme_context"), None);
    assert_eq!(seen.header("cloakroom-x"), Some("kept"));
    assert_eq!(reply.header("acme-set"), None);
    assert_eq!(house.field(&guest, "step"), 5);
    assert_eq!(house.get("/chat").send().header("acme-action"), Some("reauth"));
    house.close();
}
