//! Where connections come from: Unix sockets, IPv6, and load balancers that say for whom they connect.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::binary::Binary;
use crate::house::{Authority, House, Plan, Wire};

const GET: &str = "GET /public HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n";

fn minimal(listener: &str) -> String {
    format!(
        "version: 1\nlisteners: [{{ {listener} }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
         status: {{ address: '127.0.0.1:0' }}\nstore: {{ kind: memory }}\n\
         session: {{ schema: {{ version: 1, fields: {{ a: {{ type: string, section: task }} }} }} }}\n\
         routes: [{{ name: a, upstream: 'http://127.0.0.1:1', session: none }}]\n"
    )
}

#[test]
fn a_unix_socket_is_listened_on_by_its_owner_and_group_and_gone_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let house = Plan::new().address(&format!("unix:{}", socket.display())).open();
    let found = std::fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    let answer = house.raw_over(Wire::unix(&socket), GET.as_bytes()).rest();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = house.backend.last();
    assert_eq!((seen.header("x-forwarded-for"), seen.header("x-forwarded-proto")), (Some("127.0.0.1"), Some("http")));
    let kept = house.raw_over(Wire::unix(&socket), b"");
    drop(kept);
    house.close();
    assert!(!socket.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let address = format!("unix:{}", socket.display());
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "the file outlives its listener");
    let house = Plan::new().address(&address).open();
    assert!(house.raw_over(Wire::unix(&socket), GET.as_bytes()).rest().starts_with("HTTP/1.1 200"));
    let file = folder.path().join("cloakroom.yaml");
    std::fs::write(&file, minimal(&format!("address: '{address}'"))).unwrap();
    let refusal = |cause: &str| {
        let output = Binary::run(&["run", "--config", file.to_str().unwrap()]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(cause) && told.contains(&address), "{told}");
    };
    refusal("another process listens on that socket");
    house.close();
    std::fs::write(&socket, "precious").unwrap();
    refusal("no socket");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn ipv6_is_listened_on() {
    let house = Plan::new().address("[::1]:0").open();
    assert!(house.raw(GET).rest().starts_with("HTTP/1.1 200"));
    let seen = house.backend.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("::1"));
    assert!(seen.header("forwarded").is_some_and(|value| value.contains("for=\"[::1]\"")), "{seen:?}");
    house.close();
    // One socket for both families.
    let house = Plan::new().address("[::]:0").open();
    let four = std::net::SocketAddr::from(([127, 0, 0, 1], house.proxy.port()));
    assert!(house.raw_over(Wire::tcp(four), GET.as_bytes()).rest().starts_with("HTTP/1.1 200"));
    assert_eq!(house.backend.last().header("x-forwarded-for"), Some("127.0.0.1"));
    house.close();
}

const TCP4: &[u8] = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n";

fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
    bytes.extend(addresses);
    bytes
}

fn proxied() -> Plan {
    Plan::new().listener("proxy_protocol: true")
}

fn client_of(house: &House) -> String {
    house.backend.last().header("x-forwarded-for").unwrap().to_owned()
}

#[test]
fn the_client_is_whom_the_proxy_header_names() {
    let house = proxied().open();
    let four = version_2(1, 0x11, &[198, 51, 100, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187]);
    let mut six = [0; 36];
    (six[0], six[1], six[2], six[3], six[15]) = (0x20, 0x01, 0x0d, 0xb8, 9);
    let cases: [(&[u8], &str); 6] = [
        (TCP4, "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (&four, "198.51.100.7"),
        (&version_2(1, 0x21, &six), "2001:db8::9"),
        (&version_2(0, 0x11, &[198, 51, 100, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187]), "127.0.0.1"),
    ];
    for (header, client) in cases {
        let answer = house.raw_over(house.wire(), &[header, GET.as_bytes()].concat()).rest();
        assert!(answer.starts_with("HTTP/1.1 200"), "{header:?}: {answer}");
        assert_eq!(client_of(&house), client);
    }
    // However it is cut.
    let mut slow = house.raw_over(house.wire(), &TCP4[..7]);
    for piece in TCP4[7..].chunks(9) {
        slow.send(piece);
    }
    slow.send(GET.as_bytes());
    assert!(slow.rest().starts_with("HTTP/1.1 200"));
    assert_eq!(client_of(&house), "203.0.113.9");
    house.close();
}

#[test]
fn without_a_proxy_header_nothing_is_served() {
    let house = proxied().listener("limits: { head_time: 300ms }").open();
    let large = [&b"PROXY TCP4 "[..], &[b'1'; 200], b"\r\n"].concat();
    let malformed: [&[u8]; 5] = [b"", b"PROXY TCP4 1.2.3.4 5.6.7.8 x 1\r\n", &large, b"\r\n", b"PROXY TCP"];
    for header in malformed {
        let begun = Instant::now();
        assert_eq!(house.raw_over(house.wire(), &[header, GET.as_bytes()].concat()).rest(), "");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    // A part of one, and no more.
    assert_eq!(house.raw("PROXY TCP4 203.0").rest(), "");
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn a_proxy_header_means_nothing_where_it_is_not_asked_for() {
    let house = House::new();
    let answer = house.raw_over(house.wire(), &[TCP4, GET.as_bytes()].concat()).rest();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn the_proxy_header_comes_before_tls_and_says_whose_connections_are_counted() {
    let authority = Authority::new();
    let house =
        proxied().tls(&authority.issue("app.example"), "").listener("limits: { connections_per_peer: 1 }").open();
    let client = authority.client(&["http/1.1"], None);
    let connect = |source: &str| {
        let mut wire = house.wire();
        std::io::Write::write_all(&mut wire, format!("PROXY TCP4 {source} 10.0.0.1 1 2\r\n").as_bytes()).unwrap();
        let keep = "GET /public HTTP/1.1\r\nHost: app.example\r\n\r\n";
        house.raw_over(wire.tls(&client, "app.example"), keep.as_bytes())
    };
    let mut first = connect("203.0.113.1");
    assert!(first.head().unwrap().starts_with("HTTP/1.1 200"));
    let seen = house.backend.last();
    assert_eq!(
        (seen.header("x-forwarded-for"), seen.header("x-forwarded-proto")),
        (Some("203.0.113.1"), Some("https"))
    );
    assert!(connect("203.0.113.2").head().is_some(), "another client through the same load balancer");
    assert_eq!(connect("203.0.113.1").head(), None, "its second connection");
    drop(first);
    house.close();
}

#[test]
fn the_named_client_is_trusted_only_if_it_is_listed() {
    let house = proxied().section("trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]").open();
    let get = "GET /public HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n";
    for (source, client) in [("203.0.113.9", "203.0.113.9"), ("10.0.0.9", "192.0.2.1, 10.0.0.9")] {
        let header = format!("PROXY TCP4 {source} 10.0.0.1 1 2\r\n{get}");
        assert!(house.raw(&header).rest().starts_with("HTTP/1.1 200"));
        assert_eq!(client_of(&house), client);
    }
    house.close();
}
