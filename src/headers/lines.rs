//! Header lines that are ready to be written.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};

/// Lines as HTTP/1.1 has them, each with its end: what is said of a request beside its own headers.
///
/// Setting as many headers in a map, and writing them out from there, takes 5,000 instructions more (callgrind).
#[derive(Clone, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a line, unless its value is one that no header may have: it is absent then, and nothing wrong is said.
    pub fn add(&mut self, name: &HeaderName, value: impl AsRef<[u8]>) {
        self.add_parts(name, [value.as_ref()]);
    }

    /// The same, of a value that is put together.
    pub fn add_parts<const N: usize>(&mut self, name: &HeaderName, parts: [&[u8]; N]) {
        if parts.iter().all(|part| may_stand(part)) {
            self.0.extend_from_slice(name.as_str().as_bytes());
            self.0.extend_from_slice(b": ");
            parts.iter().for_each(|part| self.0.extend_from_slice(part));
            self.0.extend_from_slice(b"\r\n");
        }
    }

    /// Adds whole lines of our own.
    pub fn add_ready(&mut self, lines: &'static str) {
        self.0.extend_from_slice(lines.as_bytes());
    }

    pub fn add_all(&mut self, lines: &Self) {
        self.0.extend_from_slice(&lines.0);
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as names and values.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.0.split(|byte| *byte == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            let value = Bytes::copy_from_slice(value.strip_prefix(b": ")?);
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_maybe_shared(value).ok()?))
        })
    }
}

/// Whether a value is one that a header may have, as `HeaderValue` has it (RFC 9110, section 5.5). All of it is looked
/// at, whatever is found: many bytes at once, where stopping would take each alone (2,000 instructions for a request,
/// callgrind).
fn may_stand(value: &[u8]) -> bool {
    value.iter().fold(true, |so_far, byte| so_far & ((*byte >= b' ') & (*byte != 0x7f) | (*byte == b'\t')))
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lines").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn what_is_added_is_read_again_and_no_value_ends_its_line() {
        let mut lines = Lines::default();
        lines.add(&header::VIA, "1.1 a: b");
        for bad in ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b", "\u{7f}"] {
            lines.add(&header::FORWARDED, bad);
        }
        lines.add(&header::VIA, "");
        lines.add(&header::TE, "ü\t");
        assert_eq!(lines.as_bytes(), "via: 1.1 a: b\r\nvia: \r\nte: ü\t\r\n".as_bytes());
        let fields: Vec<_> = lines.fields().map(|(name, value)| (name, value.as_bytes().to_vec())).collect();
        let expected = [(header::VIA, "1.1 a: b"), (header::VIA, ""), (header::TE, "ü\t")];
        assert_eq!(fields, expected.map(|(name, value)| (name, value.as_bytes().to_vec())));
    }
}
