//! Whether a request's target can be read in one way only.

use std::borrow::Cow;

use http::header::HOST;
use http::request::Parts;
use http::uri::Scheme;
use http::{Method, Version};

use crate::headers;

/// Why a request is refused before any route is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the path can be read in two ways")]
    Path,
    #[error("there is no one valid host")]
    Host,
    #[error("CONNECT is not proxied")]
    Connect,
    #[error("the body has a transfer coding other than chunked")]
    Coding,
}

/// Whether a path is one of which nobody makes anything else than it says: letters, digits, `-` and `_` between single
/// slashes. Most are, and need no closer look.
pub fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.starts_with('/')
        && path.bytes().all(|byte| {
            let doubled = byte == b'/' && before == b'/';
            before = byte;
            !doubled && (byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_'))
        })
}

/// Refuses a target that routing and the backend might read differently.
///
/// That is an encoded slash, backslash or NUL, a backslash, a dot segment (encoded or not), an invalid escape, and
/// anything that is not visible ASCII.
pub fn check_target(head: &Parts) -> Result<(), Malformed> {
    if head.method == Method::CONNECT {
        return Err(Malformed::Connect);
    }
    if head.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err(Malformed::Path);
    }
    let path = head.uri.path();
    if path == "*" && head.method == Method::OPTIONS {
        return Ok(());
    }
    let closer =
        || path.starts_with('/') && only_plain_escapes(path.as_bytes()) && !path.split('/').any(is_dot_segment);
    let sound = is_plain(path) || closer();
    let query = head.uri.query().unwrap_or_default();
    if sound && query.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(()) } else { Err(Malformed::Path) }
}

/// What backends may make of an accepted path beside what it says: most decode it, some merge slashes and cut
/// parameters off its segments. None where there is nothing to read in another way.
pub fn other_readings(path: &str) -> impl Iterator<Item = String> {
    let decoded =
        path.contains('%').then(|| percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned());
    let text = decoded.as_deref().unwrap_or(path);
    let bare = (text.contains("//") || text.contains(';')).then(|| {
        let segments = text.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
        format!("/{}", segments.filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("/"))
    });
    decoded.into_iter().chain(bare)
}

fn only_plain_escapes(path: &[u8]) -> bool {
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => match escaped(*high, *low) {
                None | Some(0 | b'/' | b'\\') => return false,
                Some(_) => tail,
            },
            (b'%', _) | (b'\\' | b'#', _) => return false,
            (byte, tail) if byte.is_ascii_graphic() => tail,
            _ => return false,
        };
    }
    true
}

fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// `.` or `..`, however it is written; also with parameters behind it, which some servers cut off first.
fn is_dot_segment(segment: &str) -> bool {
    let plain: Cow<'_, str> = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
    let name = plain.split(';').next().unwrap_or_default();
    name == "." || name == ".."
}

/// The host that the request is for, in lower case and without its port.
///
/// HTTP/1.1 takes exactly one `Host`; a target in absolute form, and `:authority` in HTTP/2, override it.
pub fn host(head: &Parts) -> Result<Cow<'_, str>, Malformed> {
    let field = headers::only(&head.headers, &HOST).map_err(|_| Malformed::Host)?;
    let authority = match (head.uri.authority(), field) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(field)) => field.to_str().map_err(|_| Malformed::Host)?,
        (None, None) if head.version <= Version::HTTP_10 => "",
        (None, None) => return Err(Malformed::Host),
    };
    if head.version == Version::HTTP_11 && field.is_none() {
        return Err(Malformed::Host);
    }
    let name = without_port(authority).ok_or(Malformed::Host)?;
    if name.is_empty() && head.version > Version::HTTP_10 {
        return Err(Malformed::Host);
    }
    Ok(if name.bytes().any(|b| b.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { name.into() })
}

fn without_port(authority: &str) -> Option<&str> {
    let in_host = |b: u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%' | b'!' | b'$' | b'&' | b'\'')
            || matches!(b, b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
    };
    let sound = authority.bytes().all(in_host);
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (authority, ""),
    };
    let one_name = name.starts_with('[') == name.ends_with(']') && (name.starts_with('[') || !name.contains(':'));
    // The root's dot names the same host.
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_port = port.bytes().all(|b| b.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok());
    (sound && one_name && is_port).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, host: Option<&str>) -> Option<Parts> {
        let mut request = http::Request::builder().uri(target);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).ok().map(|request| request.into_parts().0)
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for path in [
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%5Cb",
            "/..",
            "/a/../b",
            "/a/%2e%2e/b",
            "/%2E",
            "/a/.%2e",
            "/.",
            "/a%00",
            "/a%",
            "/a%2",
            "/a%zz",
            "/..;x=1/b",
            "/%2e%2e;/",
        ] {
            if let Some(head) = head(path, Some("a")) {
                assert_eq!(check_target(&head), Err(Malformed::Path), "{path}");
            }
        }
    }

    #[test]
    fn a_plain_path_reads_in_one_way() {
        for (path, plain) in [("/", true), ("/a-b/c_d/9", true), ("/a/", true), ("", false), ("a", false)] {
            assert_eq!(is_plain(path), plain, "{path}");
        }
        for path in ["//", "/a//b", "/a.b", "/a%20", "/a;b", "/a\\b", "/ä", "/a b"] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn ordinary_paths_pass() {
        for path in ["/", "/a/b", "/a%20b", "/...", "/a.b/..c", "/%25", "/a;x=1", "/a?b=../c%2f#"] {
            assert_eq!(check_target(&head(path, Some("a")).unwrap()), Ok(()), "{path}");
        }
    }

    #[test]
    fn one_valid_host_is_needed() {
        let of = |target: &str, field: Option<&str>| host(&head(target, field).unwrap()).map(Cow::into_owned);
        assert_eq!(of("/", Some("Example.COM:8080")), Ok("example.com".into()));
        assert_eq!(of("/", Some("[::1]:80")), Ok("[::1]".into()));
        assert_eq!(of("http://over.example/", Some("under.example")), Ok("over.example".into()));
        for field in [None, Some("a b"), Some("a:b"), Some("a@b"), Some("a/b"), Some("::1"), Some("a:80:90")] {
            assert_eq!(of("/", field), Err(Malformed::Host), "{field:?}");
        }
    }

    #[test]
    fn the_roots_dot_names_the_same_host() {
        let head = head("/", Some("adm.example.:80")).unwrap();
        assert_eq!(host(&head), Ok("adm.example".into()));
    }

    #[test]
    fn other_readings_are_those_of_backends() {
        let of = |path| other_readings(path).collect::<Vec<_>>();
        assert_eq!(of("/chat/x"), [""; 0]);
        assert_eq!(of("/ch%61t"), ["/chat"]);
        assert_eq!(of("//chat;a=1//x;b"), ["/chat/x"]);
        assert_eq!(of("/%63hat%3Bx"), ["/chat;x", "/chat"]);
    }

    #[test]
    fn two_hosts_are_refused() {
        let request = http::Request::builder().uri("/").header(HOST, "a").header(HOST, "a").body(()).unwrap();
        assert_eq!(host(&request.into_parts().0), Err(Malformed::Host));
    }

    proptest::proptest! {
        /// However a backend decodes an accepted path, once or not at all, it finds the same segments.
        #[test]
        fn an_accepted_path_reads_in_one_way_only(path in "(/|%2[eEfF]|%5[cC]|%00|\\.|;|a|%41|%|\\\\){0,12}") {
            let Some(head) = head(&format!("/{path}"), Some("a")) else { return Ok(()) };
            if check_target(&head).is_ok() {
                let raw = head.uri.path();
                let decoded = percent_encoding::percent_decode_str(raw).decode_utf8_lossy().into_owned();
                proptest::prop_assert_eq!(raw.split('/').count(), decoded.split('/').count());
                proptest::prop_assert!(!decoded.contains(['\\', '\0']));
                proptest::prop_assert!(!decoded.split('/').any(|segment| segment == "." || segment == ".."));
            }
        }
    }
}
