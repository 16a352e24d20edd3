//! TLS towards clients.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ProtocolVersion};

use crate::binary::Binary;
use crate::house::{Answer, Authority, Certificate, Gate, House, Plan, Wire, provider};

const GET: &[u8] = b"GET /public HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n";

fn plan(authority: &Authority) -> Plan {
    Plan::new().tls(&authority.issue("app.example"), "")
}

/// Whether a handshake succeeds, and what the server says; its certificate's bytes.
fn handshake(house: &House, client: &Arc<ClientConfig>) -> Result<(ProtocolVersion, Vec<u8>), std::io::Error> {
    let Wire::Tls(mut stream) = house.wire().tls(client, "app.example") else { unreachable!() };
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let version = stream.conn.protocol_version().unwrap();
    Ok((version, stream.conn.peer_certificates().unwrap()[0].to_vec()))
}

#[test]
fn both_versions_of_http_are_spoken_as_agreed_and_the_backend_is_told_of_tls() {
    let authority = Authority::new();
    let house = plan(&authority).open();
    let guest = house.visitor();
    let first = authority.client(&["h2", "http/1.1"], None);
    let reply = house.post("/chat/x").http2().tls(&first).cookie(&guest).body("hello").send();
    reply.passed();
    let seen = house.backend.last();
    assert_eq!((&*seen.body, seen.header("x-forwarded-proto")), (&b"hello"[..], Some("https")));
    assert!(seen.header("forwarded").is_some_and(|value| value.contains("proto=https")), "{seen:?}");
    let second = authority.client(&["http/1.1"], None);
    house.post("/chat/x").tls(&second).cookie(&guest).body("again").send().passed();
    assert_eq!(house.backend.last().header("via"), Some("1.1 cloakroom"));
    for (offered, agreed) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        let Wire::Tls(mut stream) = house.wire().tls(&authority.client(offered, None), "app.example") else {
            unreachable!()
        };
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        assert_eq!(stream.conn.alpn_protocol(), Some(agreed.as_bytes()));
    }
    assert!(handshake(&house, &authority.client(&["h3"], None)).is_err(), "nothing is agreed on");
    house.close();
}

#[test]
fn versions_1_2_and_1_3_are_spoken() {
    let authority = Authority::new();
    let house = plan(&authority).open();
    for (version, spoken) in
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(pem(&authority.pem)).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let client = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        assert_eq!(handshake(&house, &client).unwrap().0, spoken);
    }
    house.close();
}

fn pem(text: &str) -> rustls::pki_types::CertificateDer<'static> {
    rustls::pki_types::pem::PemObject::from_pem_slice(text.as_bytes()).unwrap()
}

#[test]
fn a_client_needs_a_certificate_where_one_is_asked_for() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let plan = Plan::new().file("ca.crt", &clients.pem);
    let house = plan.tls(&authority.issue("app.example"), ", client_ca: ca.crt").open();
    let known = authority.client(&["http/1.1"], Some(&clients.issue("client.example")));
    let answer = house.raw_over(house.wire().tls(&known, "app.example"), GET).rest();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let stranger = authority.issue("client.example");
    for client in [authority.client(&["http/1.1"], None), authority.client(&["http/1.1"], Some(&stranger))] {
        let Wire::Tls(mut stream) = house.wire().tls(&client, "app.example") else { unreachable!() };
        // In TLS 1.3 a client has its own certificate judged after its handshake is over.
        let _ = std::io::Write::write_all(&mut stream, GET);
        let mut answer = Vec::new();
        assert!(std::io::Read::read_to_end(&mut stream, &mut answer).is_err(), "{answer:?}");
    }
    assert_eq!(house.backend.count(), 1);
    house.close();
}

#[test]
fn http_in_clear_and_nonsense_come_to_nothing() {
    let house = plan(&Authority::new()).open();
    for bytes in [GET, b"\x16\x03\x01\xff\xff", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0x80; 300]] {
        let mut client = house.raw_over(house.wire(), bytes);
        client.end();
        assert!(!client.rest().contains("HTTP"), "{bytes:?}");
    }
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn a_handshake_has_its_time_and_its_place_among_the_connections() {
    let authority = Authority::new();
    let house = plan(&authority)
        .listener("limits: { first_byte: 300ms, head_time: 300ms, connections: 1, connections_per_peer: 1 }")
        .open();
    let begun = Instant::now();
    assert_eq!(house.raw("").rest(), "", "no first byte");
    // The first bytes of a ClientHello, and no more.
    let mut half = house.raw_over(house.wire(), b"\x16\x03\x01\x02\x00\x01");
    let client = authority.client(&["http/1.1"], None);
    let answer = house.raw_over(house.wire().tls(&client, "app.example"), GET).rest();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(550), "the half handshake held the one place");
    assert_eq!(half.rest(), "");
    house.close();
}

fn write(folder: &Path, certificate: &Certificate) {
    std::fs::write(folder.join("tls.crt"), &certificate.chain).unwrap();
    std::fs::write(folder.join("tls.key"), &certificate.key).unwrap();
}

#[test]
fn a_new_certificate_is_used_for_new_connections_and_a_bad_one_is_not() {
    let authority = Authority::new();
    let house = plan(&authority).open();
    let client = authority.client(&["http/1.1"], None);
    let first = handshake(&house, &client).unwrap().1;
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("data: 1\n\n").wait(&gate).body("data: 2\n\n"));
    let mut open = house.get("/public").tls(&client).start();
    assert_eq!(open.text(), "data: 1\n\n");
    write(house.path(), &authority.issue("app.example"));
    house.until("the new certificate is shown", || handshake(&house, &client).unwrap().1 != first);
    let second = handshake(&house, &client).unwrap().1;
    write(house.path(), &Certificate { key: authority.issue("app.example").key, ..authority.issue("app.example") });
    house.until("the bad one is logged", || house.logged().contains("not the key of the certificate"));
    assert_eq!(handshake(&house, &client).unwrap().1, second);
    gate.open();
    assert_eq!(open.text(), "data: 2\n\n");
    assert!(open.finish().complete);
    house.close();
}

#[test]
fn a_swapped_link_as_of_a_mounted_secret_is_seen() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for version in ["..1", "..2"] {
        std::fs::create_dir(at(version)).unwrap();
        write(&at(version), &authority.issue("app.example"));
    }
    std::os::unix::fs::symlink("..1", at("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let tls = format!("tls: {{ certificate: {0}/tls.crt, key: {0}/tls.key }}", folder.path().display());
    let house = Plan::new().listener(&tls).open();
    let client = authority.client(&["http/1.1"], None);
    let first = handshake(&house, &client).unwrap().1;
    std::os::unix::fs::symlink("..2", at("..new")).unwrap();
    std::fs::rename(at("..new"), at("..data")).unwrap();
    house.until("the new certificate is shown", || handshake(&house, &client).unwrap().1 != first);
    house.close();
}

#[test]
fn the_check_names_the_file_and_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Authority::new().issue("app.example"), Authority::new().issue("app.example"));
    std::fs::write(folder.path().join("a.crt"), &one.chain).unwrap();
    std::fs::write(folder.path().join("b.key"), &other.key).unwrap();
    let file = folder.path().join("cloakroom.yaml");
    for (certificate, key, line, fault) in [
        ("a.crt", "b.key", 5, "it is not the key of the certificate"),
        ("absent.crt", "b.key", 4, "it cannot be read: No such file"),
        ("a.crt", "a.crt", 5, "no private key"),
    ] {
        let text = format!(
            "version: 1\nlisteners:\n  - tls:\n      certificate: {certificate}\n      key: {key}\n\
             session: {{ schema: {{ version: 1, fields: {{ a: {{ type: string, section: task }} }} }} }}\n\
             routes: [{{ name: a, upstream: 'http://127.0.0.1:1' }}]\n"
        );
        std::fs::write(&file, text).unwrap();
        for command in ["check", "run"] {
            let output = Binary::run(&[command, "--config", file.to_str().unwrap()]);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{told}");
            assert!(told.contains(fault) && told.contains(&format!("cloakroom.yaml:{line}:")), "{told}");
        }
    }
}
