//! The frames of HTTP/2 as they come in, looked at for no more than where heads begin and end, and what is worth
//! nothing.

use tokio::time::Instant;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How many frames that carry nothing (PING, SETTINGS, PRIORITY, empty DATA and CONTINUATION, unknown ones) a client
/// may send on credit. What carries something, and time, give credit back.
const EMPTY_FRAMES: f64 = 10_000.0;
const EMPTY_FRAMES_PER_SECOND: f64 = 100.0;
/// What a request or a piece of a body is worth in frames that carry nothing.
const WORTH: f64 = 10.0;

/// A client whose frames cost more than they are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flood {
    #[error("too many frames that carry nothing")]
    Empty,
    #[error("too many streams that were reset")]
    Resets,
}

/// What was seen of a connection's frames.
#[derive(Debug)]
pub struct Frames {
    /// Bytes of the preface that are still to come.
    preface: usize,
    header: [u8; HEADER_BYTES],
    /// Bytes of the next frame's header that have come.
    have: usize,
    /// Bytes of the frame's payload that are still to come.
    payload: usize,
    /// Whether the frame is part of a head.
    of_head: bool,
    /// Whether a head has begun whose last frame has not.
    head_open: bool,
    empty: Credit,
    resets: Credit,
}

impl Frames {
    /// Of a connection that takes so many streams at once: so many may be reset each second, and twice as many once.
    pub fn new(streams: u32) -> Self {
        let streams = f64::from(streams);
        Self {
            preface: PREFACE.len(),
            header: [0; HEADER_BYTES],
            have: 0,
            payload: 0,
            of_head: false,
            head_open: false,
            empty: Credit::new(EMPTY_FRAMES, EMPTY_FRAMES_PER_SECOND),
            resets: Credit::new(2.0 * streams, streams),
        }
    }

    /// Whether what came last ends within a head, or within a frame's header.
    pub fn is_within_head(&self) -> bool {
        self.head_open || self.have > 0 || (self.of_head && self.payload > 0)
    }

    /// Looks at what came.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        skip(&mut bytes, &mut self.preface);
        loop {
            skip(&mut bytes, &mut self.payload);
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *first;
            }
            (self.have, bytes) = (self.have + 1, rest);
            if self.have == HEADER_BYTES {
                self.have = 0;
                self.frame()?;
            }
        }
    }

    fn frame(&mut self) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.of_head = matches!(kind, HEADERS | CONTINUATION);
        if self.of_head {
            self.head_open = flags & END_HEADERS == 0;
        }
        match kind {
            HEADERS => self.empty.give(WORTH),
            DATA if self.payload > 0 => self.empty.give(WORTH),
            DATA if flags & END_STREAM != 0 => {}
            CONTINUATION if self.payload > 0 => {}
            // One of them costs an addition, and whoever takes much sends many.
            WINDOW_UPDATE => {}
            RST_STREAM => return if self.resets.take() { Ok(()) } else { Err(Flood::Resets) },
            _ => return if self.empty.take() { Ok(()) } else { Err(Flood::Empty) },
        }
        Ok(())
    }
}

fn skip(bytes: &mut &[u8], left: &mut usize) {
    let count = bytes.len().min(*left);
    *left -= count;
    *bytes = bytes.get(count..).unwrap_or_default();
}

/// A bucket of tokens.
#[derive(Debug)]
struct Credit {
    most: f64,
    per_second: f64,
    left: f64,
    since: Instant,
}

impl Credit {
    fn new(most: f64, per_second: f64) -> Self {
        Self { most, per_second, left: most, since: Instant::now() }
    }

    fn give(&mut self, amount: f64) {
        self.left = (self.left + amount).min(self.most);
    }

    fn take(&mut self) -> bool {
        if self.left < 1.0 {
            // The clock is looked at only where it matters.
            let now = Instant::now();
            let earned = now.duration_since(self.since).as_secs_f64() * self.per_second;
            self.since = now;
            self.give(earned);
        }
        self.left -= 1.0;
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn begun() -> Frames {
        let mut frames = Frames::new(100);
        frames.read(PREFACE).unwrap();
        frames
    }

    #[test]
    fn a_head_lasts_to_its_last_frame_however_it_is_cut() {
        let bytes = [frame(HEADERS, 0, &[1; 30]), frame(CONTINUATION, 0, &[2; 30]), frame(CONTINUATION, 4, &[3])];
        let bytes = bytes.concat();
        for piece in [1, 7, 9, 10, 200] {
            let mut frames = begun();
            assert!(!frames.is_within_head());
            let mut left = bytes.chunks(piece).peekable();
            while let Some(part) = left.next() {
                frames.read(part).unwrap();
                assert_eq!(frames.is_within_head(), left.peek().is_some(), "in pieces of {piece}");
            }
        }
    }

    #[test]
    fn data_is_no_head() {
        let mut frames = begun();
        frames.read(&frame(DATA, 0, &[1; 100])[..50]).unwrap();
        assert!(!frames.is_within_head());
    }

    #[test]
    fn frames_that_carry_nothing_are_too_many_at_some_time() {
        for nothing in [frame(6, 0, &[0; 8]), frame(4, 0, &[]), frame(DATA, 0, &[]), frame(2, 0, &[0; 5])] {
            let mut frames = begun();
            let many = nothing.repeat(11_000);
            assert_eq!(frames.read(&many), Err(Flood::Empty), "{:?}", &nothing[..9]);
        }
        let mut frames = begun();
        let bytes = [frame(6, 0, &[0; 8]).repeat(5), frame(DATA, 0, &[1])].concat();
        assert_eq!(frames.read(&bytes.repeat(20_000)), Ok(()));
    }

    #[test]
    fn resets_are_bounded_by_the_streams_at_once() {
        let mut frames = begun();
        let pair = [frame(HEADERS, 5, &[1]), frame(RST_STREAM, 0, &[0; 4])].concat();
        assert_eq!(frames.read(&pair.repeat(150)), Ok(()));
        assert_eq!(frames.read(&pair.repeat(1_000)), Err(Flood::Resets));
    }
}
