use std::fmt;

use percent_encoding::percent_decode_str;

use super::validate::is_host;
use crate::secret::Secret;

/// Where a server of the redis store is, and who asks it.
///
/// `redis[s]://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, or
/// `redis[s]+sentinel://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]…]/SERVICE[/DATABASE]`. What is in the way of
/// a URL stands there percent-encoded.
#[derive(Debug, Clone)]
pub struct ServerUrl {
    pub tls: bool,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// One, but for sentinels.
    pub addresses: Vec<ServerAddress>,
    /// What the sentinels watch over, where these are sentinels.
    pub service: Option<String>,
    pub database: i64,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerAddress {
    /// A name or an IP address, an IPv6 one without its brackets.
    pub host: String,
    pub port: u16,
}

impl ServerUrl {
    /// The URL, unless it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (tls, sentinel) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            _ => return None,
        };
        let (entry, place) = rest.rsplit_once('@').map_or((None, rest), |(entry, place)| (Some(entry), place));
        let (user, password) = match entry {
            Some(entry) => credentials(entry)?,
            None => (None, None),
        };
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        let port = if sentinel { 26379 } else { 6379 };
        let addresses: Vec<_> = hosts.split(',').map(|host| ServerAddress::parse(host, port)).collect::<Option<_>>()?;
        let (service, database) = match sentinel {
            true => path.split_once('/').map_or((Some(path), ""), |(service, database)| (Some(service), database)),
            false => (None, path),
        };
        if service.is_some_and(|name| !is_service(name)) || (!sentinel && addresses.len() != 1) {
            return None;
        }
        let database = if database.is_empty() { 0 } else { number(database)? };
        Some(Self { tls, user, password, addresses, service: service.map(str::to_owned), database })
    }

    /// Whether both lead to the same sessions, by way of whichever server.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let password = |url: &Self| url.password.as_ref().map(|password| password.reveal().to_owned());
        (self.tls, &self.service, self.database) == (other.tls, &other.service, other.database)
            && (&self.user, password(self)) == (&other.user, password(other))
    }
}

/// No user is the user `default`.
fn credentials(text: &str) -> Option<(Option<String>, Option<Secret>)> {
    let (user, password) = text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
    let plain = |part: &str| percent_decode_str(part).decode_utf8().ok().map(|part| part.into_owned());
    let user = Some(plain(user)?).filter(|user| !user.is_empty());
    let password = match password {
        Some(password) => Some(Secret::new(plain(password)?)).filter(|password| !password.reveal().is_empty()),
        None => None,
    };
    Some((user, password))
}

/// What Sentinel takes for the name of a service.
fn is_service(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

impl ServerAddress {
    /// Reads `HOST[:PORT]`.
    pub fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.rfind(':').filter(|at| !text.get(*at..).unwrap_or_default().contains(']')) {
            Some(colon) => (text.get(..colon)?, u16::try_from(number(text.get(colon + 1..)?)?).ok()?),
            None => (text, default_port),
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_one = match bracketed {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        (is_one && port > 0).then(|| Self { host: bracketed.unwrap_or(host).to_owned(), port })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(url: &ServerUrl) -> Vec<String> {
        url.addresses.iter().map(ServerAddress::to_string).collect()
    }

    #[test]
    fn every_part_of_a_url_is_read() {
        let url = ServerUrl::parse("rediss://us%40er:p%3Aw%2Fd@[::1]:7000/3").unwrap();
        assert_eq!(
            (url.tls, url.user.as_deref(), url.database, url.service.as_deref()),
            (true, Some("us@er"), 3, None)
        );
        assert_eq!((url.password.unwrap().reveal(), url.addresses[0].host.as_str()), ("p:w/d", "::1"));
        let bare = ServerUrl::parse("redis://host").unwrap();
        assert_eq!((addresses(&bare), bare.tls, bare.user.is_none()), (vec!["host:6379".into()], false, true));
        let only_password = ServerUrl::parse("redis://:word@host").unwrap();
        assert!(only_password.user.is_none() && only_password.password.unwrap().reveal() == "word");
    }

    #[test]
    fn sentinels_name_their_service() {
        let url = ServerUrl::parse("redis+sentinel://u:p@a,b:1/main/2").unwrap();
        assert_eq!(addresses(&url), ["a:26379", "b:1"]);
        assert_eq!((url.service.as_deref(), url.database), (Some("main"), 2));
        assert!(ServerUrl::parse("redis+sentinel://a").is_none());
    }

    #[test]
    fn what_is_no_url_is_none() {
        for text in [
            "",
            "host:6379",
            "http://host",
            "redis://",
            "redis://host:0",
            "redis://host:99999",
            "redis://a,b",
            "redis://h/x",
            "redis://h?x=1",
            "redis://[::1",
            "redis+sentinel://a/b/c",
        ] {
            assert!(ServerUrl::parse(text).is_none(), "{text}");
        }
    }
}
