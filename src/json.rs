//! JSON objects that are put together by hand.
//!
//! For what is written on every request, or on every change: by way of serde a line of the access log and a record of the
//! trail take twice as much (callgrind).

/// An object that is being written. What stands before a value, its key and all punctuation with the quote that opens a
/// string, is the writer's own text.
pub struct Object(String);

impl Object {
    /// Begins with that text; the capacity is in bytes, and grows where it has to.
    pub fn begin(text: &str, capacity: usize) -> Self {
        Self::begin_in(String::with_capacity(capacity), text)
    }

    /// The same in the place of another text.
    pub fn begin_in(mut place: String, text: &str) -> Self {
        place.clear();
        place.push_str(text);
        Self(place)
    }

    /// Text as it is.
    pub fn put(&mut self, text: &str) {
        self.0.push_str(text);
    }

    pub fn number(&mut self, before: &str, value: u64) {
        self.0.push_str(before);
        self.0.push_str(itoa::Buffer::new().format(value));
    }

    /// A string with nothing in it that JSON escapes, as names that are ours have nothing.
    pub fn word(&mut self, before: &str, value: &str) {
        self.0.push_str(before);
        self.0.push_str(value);
        self.0.push('"');
    }

    /// Any string.
    pub fn text(&mut self, before: &str, value: &str) {
        if is_plain(value) {
            self.word(before, value);
        } else {
            // A string can always be written so.
            let escaped = serde_json::to_string(value).unwrap_or_default();
            self.0.push_str(before);
            self.0.push_str(escaped.strip_prefix('"').unwrap_or_default());
        }
    }

    /// What has been written.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// Whether JSON escapes nothing in a text. All of it is looked at, and so many bytes at once.
pub fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |so_far, byte| so_far & (byte >= b' ') & (byte != b'"') & (byte != b'\\'))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    proptest::proptest! {
        #[test]
        fn any_text_is_read_as_it_was_written(text in ".*") {
            let mut object = Object::begin("{", 0);
            object.text("\"a\":\"", &text);
            object.number(",\"b\":", u64::MAX);
            object.word(",\"c\":\"", "word");
            object.put("}");
            let read: Value = serde_json::from_str(&object.into_text()).unwrap();
            proptest::prop_assert_eq!(read, serde_json::json!({ "a": text, "b": u64::MAX, "c": "word" }));
        }
    }
}
