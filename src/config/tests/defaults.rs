use super::*;

#[test]
fn an_almost_empty_file_has_the_documented_defaults() {
    let config = sound(SOUND);
    assert_eq!(config.environment, "prod");
    let [listener] = config.listeners.as_slice() else { panic!("one listener") };
    assert_eq!(listener.address, "0.0.0.0:8080");
    let limits = &listener.limits;
    assert_eq!(
        (limits.connections, limits.connections_per_peer, limits.headers, limits.streams),
        (10_000, None, 100, 100)
    );
    assert_eq!((limits.head, limits.first_byte), (Size::kib(32), Period::secs(10)));
    assert_eq!((limits.head_time, limits.keep_alive), (Period::secs(15), Period::secs(75)));
    assert_eq!((config.admin.address.as_str(), config.status.address.as_str()), ("127.0.0.1:9900", "0.0.0.0:9901"));
    assert!(config.admin.token.is_none() && config.admin.callers.is_empty());
    assert_eq!((config.store.kind, config.store.timeout), (StoreKind::Embedded, Period::millis(250)));
    assert_eq!((config.keyring.path, config.keyring.activate_after), (None, Period::secs(600)));
    let ids = &config.identity.session_id;
    assert_eq!((ids.cookie.as_deref(), ids.bearer, ids.header.as_deref()), (Some("__Host-session"), true, None));
    let bad = config.identity.bad_credentials.unwrap();
    assert_eq!((bad.rate.to_string().as_str(), bad.burst), ("20/s", 100));
    assert_eq!((config.cookie.secure, config.cookie.same_site, config.cookie.domain), (true, SameSite::Lax, None));
    assert_eq!(
        (config.origins.len(), config.trusted_proxies.len(), config.headers.prefix.as_str()),
        (0, 0, "cloakroom-")
    );
    let audit = &config.audit;
    assert_eq!(
        (audit.sinks.as_slice(), audit.keep, audit.retain),
        ([AuditSink::Stdout].as_slice(), 1000, Period::secs(604_800))
    );
    assert_eq!((config.log.level.as_str(), config.log.format), ("info", LogFormat::Json));
    assert_eq!((config.shutdown.grace, config.shutdown.drain), (Period::secs(5), Period::secs(20)));
}

#[test]
fn a_session_has_the_documented_defaults() {
    let session = sound(SOUND).session;
    assert_eq!((session.lifetime.idle, session.lifetime.absolute), (Period::secs(1800), Period::secs(43_200)));
    assert_eq!((session.lifetime.touch_interval, session.max_per_user), (None, None));
    assert_eq!(
        (session.limits.field, session.limits.session, session.limits.context),
        (Size::kib(1), Size::kib(4), Size::kib(8))
    );
    assert_eq!((session.remember_revoked, session.rotate_grace), (Period::secs(30 * 86_400), Period::secs(10)));
    let field = &session.schema.fields["user_id"];
    assert!(field.writable && !field.sensitive && !field.user && field.audit == FieldAudit::Fingerprint);
    assert!(field.section.is_none() && field.choices.is_none() && field.default.is_none() && field.max.is_none());
}

#[test]
fn a_route_has_the_documented_defaults() {
    let route = sound(SOUND).routes.remove(0);
    assert!(route.matches.host.is_none() && route.matches.path.is_none() && route.matches.methods.is_empty());
    assert_eq!((route.matches.path_type, route.session), (PathType::Prefix, SessionUse::Required));
    assert!(!route.rewrite.strip_prefix && route.identity.is_none() && route.require.is_empty());
    assert!(route.read.is_empty() && route.write.is_empty() && route.headers.is_empty() && route.login_url.is_none());
    assert!(matches!(route.start, Start::Allowed(false)) && !route.end);
    assert_eq!((route.touch, route.on_reject, route.on_revoke), (Touch::Stream, OnReject::Fail, OnRevoke::Close));
    assert_eq!(
        (route.timeouts.connect, route.timeouts.response, route.timeouts.idle),
        (Period::secs(1), Period::secs(600), Period::secs(600))
    );
    assert_eq!((route.limits.body, route.limits.concurrency, route.limits.head), (None, 1024, Size::kib(16)));
    assert!(route.rate_limits.is_empty());
}

/// Every value of the published reference is either the default or needed, so nothing else may change by it.
#[test]
fn the_reference_says_the_defaults() {
    let path = Path::new("/etc/cloakroom/cloakroom.yaml");
    let written = parse(include_str!("../../../config/reference.yaml"), path, &every_token).unwrap().config;
    let default = sound(SOUND);
    let said = |config: &Config| {
        let Config { environment, listeners, status, store, keyring, identity, cookie, .. } = config;
        let Config { origins, headers, trusted_proxies, audit, log, shutdown, session, .. } = config;
        let first = format!("{environment:?} {listeners:?} {status:?} {store:?} {keyring:?} {identity:?} {cookie:?}");
        let second = format!("{origins:?} {headers:?} {trusted_proxies:?} {audit:?} {log:?} {shutdown:?}");
        format!("{first} {second} {:?} {:?} {:?}", session.lifetime, session.limits, session.remember_revoked)
    };
    assert_eq!(said(&written), said(&default));
    let (route, plain) = (&written.routes[0], &default.routes[0]);
    assert_eq!(format!("{:?} {:?}", route.timeouts, route.limits), format!("{:?} {:?}", plain.timeouts, plain.limits));
}

/// The reference is complete: each key of the schema stands in it, in a value or in a comment.
#[test]
fn the_reference_has_every_key() {
    let reference = include_str!("../../../config/reference.yaml");
    let schema = json_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let objects = definitions.iter().filter_map(|(name, d)| Some((name.as_str(), d["properties"].as_object()?)));
    for (name, properties) in objects.chain([("file", schema["properties"].as_object().unwrap())]) {
        for key in properties.keys() {
            assert!(reference.contains(&format!("{key}:")), "`{key}` of {name}");
        }
    }
}

#[test]
fn every_published_example_passes_without_a_word() {
    for (name, text) in [
        ("reference", include_str!("../../../config/reference.yaml")),
        ("tokens", include_str!("../../../config/tokens.yaml")),
        ("chat-agent", include_str!("../../../config/chat-agent.yaml")),
        ("coding-workspace", include_str!("../../../config/coding-workspace.yaml")),
        ("dashboard", include_str!("../../../config/dashboard.yaml")),
        ("redis", include_str!("../../../config/redis.yaml")),
        ("login", include_str!("../../../config/login.yaml")),
        ("redis-tls", include_str!("../../../config/redis-tls.yaml")),
        ("redis-sentinel", include_str!("../../../config/redis-sentinel.yaml")),
        ("redis-cluster", include_str!("../../../config/redis-cluster.yaml")),
    ] {
        let inspected = inspect(text, Path::new("config/x.yaml"), &every_token);
        let found = inspected.source.diagnose(Problems::default());
        assert!(found.is_empty(), "{name}:\n{found}");
        assert!(inspected.config.is_some_and(|c| c.admin.token.is_some()), "{name}");
    }
}

/// Gives each variable a token of its own.
fn every_token(name: &str) -> Option<String> {
    name.starts_with("CLOAKROOM_").then(|| format!("{name}-0123456789"))
}

#[test]
fn periods_sizes_and_rates_are_said_as_they_are_written() {
    for text in ["250ms", "30s", "15m", "12h", "30d", "0ms", "90s"] {
        assert_eq!(Period::try_from(text.to_owned()).unwrap().to_string(), text);
    }
    for text in ["512B", "4KiB", "1MiB", "2GiB", "0B"] {
        assert_eq!(Size::try_from(text.to_owned()).unwrap().to_string(), text);
    }
    for text in ["10/s", "600/m", "1/h"] {
        assert_eq!(Rate::try_from(text.to_owned()).unwrap().to_string(), text);
    }
}
