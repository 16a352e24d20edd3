use std::ops::Range;

/// Where each line of a text begins.
#[derive(Debug)]
pub(super) struct Lines {
    starts: Vec<usize>,
    length: usize,
}

impl Lines {
    pub fn of(text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { starts, length: text.len() }
    }

    /// The number, from 1, of the line that holds this byte. The end of the text is on its last line that has one.
    pub fn number(&self, at: usize) -> usize {
        let last = self.length.saturating_sub(1);
        self.starts.partition_point(|start| *start <= at.min(last)).max(1)
    }

    /// The bytes of a line, its line feed not among them.
    pub fn range(&self, number: usize) -> Range<usize> {
        let start = self.starts.get(number.saturating_sub(1)).copied().unwrap_or(self.length);
        let end = self.starts.get(number).map_or(self.length, |next| next - 1);
        start..end.max(start)
    }
}
