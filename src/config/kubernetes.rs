//! What Kubernetes calls things: versions, names, images.

/// A version of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesVersion {
    pub major: u32,
    pub minor: u32,
}

impl KubernetesVersion {
    /// Reads `1.31`, `v1.31.2`, `1.31+` and `v1.31.2-eks-7f9249a`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.strip_prefix('v').unwrap_or(text).split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (minor, after) = rest.split_at(end);
        let sound = after.is_empty() || after.starts_with(['.', '+', '-']);
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        sound.then(|| Some(Self { major: digits(major)?, minor: digits(minor)? })).flatten()
    }

    pub fn is_at_least(self, major: u32, minor: u32) -> bool {
        self >= Self { major, minor }
    }
}

/// RFC 1123's subdomain, as the API server asks for it.
pub fn is_object_name(text: &str) -> bool {
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |l: &str| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(letters);
    text.len() <= 253 && text.split('.').all(label)
}

/// IANA's service name (RFC 6335), as the API server asks for it.
pub fn is_port_name(text: &str) -> bool {
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let sound = (1..=15).contains(&text.len()) && text.bytes().all(letters) && !text.contains("--");
    sound && !text.starts_with('-') && !text.ends_with('-') && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// `REPOSITORY`, a tag or a digest or both behind it.
pub fn is_image(text: &str) -> bool {
    let repository = repository_of(text);
    let rest = text.get(repository.len()..).unwrap_or_default();
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"_.-:@+".contains(&b);
    is_repository(repository) && rest.len() <= 256 && rest.bytes().all(letters) && !rest.ends_with([':', '@'])
}

/// An image without its tag and its digest; a registry's port belongs to it.
pub fn repository_of(image: &str) -> &str {
    let without_digest = image.split('@').next().unwrap_or_default();
    let slash = without_digest.rfind('/').map_or(0, |at| at + 1);
    let name = without_digest.get(slash..).unwrap_or_default();
    let end = name.find(':').map_or(without_digest.len(), |at| slash + at);
    without_digest.get(..end).unwrap_or_default()
}

/// Where images come from: a registry and a path in it, without a tag.
pub fn is_repository(text: &str) -> bool {
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let part = |p: &str| !p.is_empty() && p.bytes().all(letters);
    let (first, rest) = text.split_once('/').map_or((text, None), |(first, rest)| (first, Some(rest)));
    let host = |h: &str| h.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok());
    let name = first.split(':').next().unwrap_or_default();
    let registry = part(&name.to_ascii_lowercase()) && host(first) && (rest.is_some() || !first.contains(':'));
    text.len() <= 255 && registry && rest.is_none_or(|rest| rest.split('/').all(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_repository_and_what_picks_one_of_it() {
        for (image, repository) in [
            ("cloakroom", "cloakroom"),
            ("cloakroom:0.1.0", "cloakroom"),
            ("localhost:5000/cloakroom", "localhost:5000/cloakroom"),
            ("ghcr.io/acme/cloakroom:0.1.0@sha256:0a1b", "ghcr.io/acme/cloakroom"),
        ] {
            assert!(is_image(image), "{image}");
            assert_eq!(repository_of(image), repository);
        }
        for image in ["", ":1", "a/:1", "a b", "a:", "a@", "a/b c:1", "a/B:1", "a//b", "x:y/z", "a:1\n", "-$(x)"] {
            assert!(!is_image(image), "{image}");
        }
    }

    #[test]
    fn names_are_as_the_api_server_asks() {
        assert!(is_object_name("a") && is_object_name("cloakroom-2.eu") && is_port_name("http") && is_port_name("h2"));
        for text in ["", "-a", "a-", "A", "a_b", "a..b", "../a"] {
            assert!(!is_object_name(text), "{text}");
        }
        for text in ["", "8080", "a--b", "-a", "a-", "Http", "a-name-too-long-x"] {
            assert!(!is_port_name(text), "{text}");
        }
    }

    #[test]
    fn versions_are_read_as_clusters_tell_them() {
        for (text, minor) in [("1.29", 29), ("v1.31.2", 31), ("1.30+", 30), ("v1.33.1-eks-7f9249a", 33), ("1.9-0", 9)] {
            assert_eq!(KubernetesVersion::parse(text), Some(KubernetesVersion { major: 1, minor }), "{text}");
        }
        for text in ["", "1", "1.", "v", "1.x", "1.29rc", "one.two", "1.99999999999", "+1.2"] {
            assert_eq!(KubernetesVersion::parse(text), None, "{text}");
        }
        assert!(KubernetesVersion { major: 1, minor: 29 }.is_at_least(1, 29));
        assert!(!KubernetesVersion { major: 1, minor: 9 }.is_at_least(1, 29));
    }
}
