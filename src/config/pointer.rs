use std::fmt;

/// A JSON pointer (RFC 6901) that grows and shrinks during a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer {
    text: String,
    ends: Vec<usize>,
}

impl Pointer {
    pub fn root() -> Self {
        Self { text: String::new(), ends: Vec::new() }
    }

    pub fn push(&mut self, step: &str) {
        self.ends.push(self.text.len());
        self.text = below(&self.text, step);
    }

    pub fn pop(&mut self) {
        if let Some(end) = self.ends.pop() {
            self.text.truncate(end);
        }
    }

    pub fn depth(&self) -> usize {
        self.ends.len()
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The pointer to a key of the user's own, or to an index, below a pointer.
pub fn below(pointer: &str, step: impl fmt::Display) -> String {
    let step = step.to_string().replace('~', "~0").replace('/', "~1");
    format!("{pointer}/{step}")
}

/// The keys and indices that a pointer names.
pub(super) fn steps(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"))
}

/// Whether one of the two pointers leads through the other.
pub(super) fn on_one_line(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
