//! Log lines on their way: gathered, and written many at once by a thread of their own.
//!
//! A line that is handed to another thread alone costs two calls of the system and two changes of thread. Gathered for a
//! few milliseconds, it costs its copy: the thread that writes takes 0.3 µs of CPU for a request, at 42,000 a second.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// What may wait for a slow reader; beyond that lines are dropped, and no request waits.
const WAITING_BYTES: usize = 8 << 20;
/// How long lines gather. A warning and whatever is worse goes out at once, with all before it.
const GATHERING: Duration = Duration::from_millis(10);
/// Lines that are written without waiting for more.
const BATCH_BYTES: usize = 64 << 10;
/// How long the end of the process waits for what is still unwritten.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where lines wait.
#[derive(Debug, Clone)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to write, or to write now.
    told: Condvar,
    /// All is written, and there will be no more.
    over: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    urgent: bool,
    ended: bool,
    over: bool,
}

/// Ends the log when it is dropped, once what waits is written.
#[derive(Debug)]
pub struct Flush(Lines);

impl Lines {
    /// Begins to write to `out`, until what this gives back beside the lines is dropped.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<(Self, Flush)> {
        let lines = Self(Arc::default());
        let writing = lines.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || writing.write_to(out))?;
        Ok((lines.clone(), Flush(lines)))
    }

    /// Adds a whole line.
    pub fn add(&self, line: &[u8], urgent: bool) {
        let mut waiting = self.lock();
        if waiting.bytes.len() + line.len() > WAITING_BYTES {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = waiting.bytes.len();
        waiting.bytes.extend_from_slice(line);
        let full = before < BATCH_BYTES && waiting.bytes.len() >= BATCH_BYTES;
        let now = urgent && !waiting.urgent;
        waiting.urgent |= urgent;
        drop(waiting);
        if before == 0 || full || now {
            self.0.told.notify_one();
        }
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        while self.next(&mut batch) {
            if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
                let lines = memchr::memchr_iter(b'\n', &batch).count();
                self.0.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            }
            batch.clear();
            batch.shrink_to(BATCH_BYTES);
        }
        self.lock().over = true;
        self.0.over.notify_all();
    }

    /// Waits for lines and takes all that there are; false at the end.
    fn next(&self, batch: &mut Vec<u8>) -> bool {
        let told = |waiting| self.0.told.wait_while(waiting, |w: &mut Waiting| w.bytes.is_empty() && !w.ended);
        let waiting = told(self.lock()).unwrap_or_else(PoisonError::into_inner);
        let gather = |w: &mut Waiting| w.bytes.len() < BATCH_BYTES && !w.urgent && !w.ended;
        let gathered = self.0.told.wait_timeout_while(waiting, GATHERING, gather);
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        waiting.urgent = false;
        std::mem::swap(&mut waiting.bytes, batch);
        !batch.is_empty()
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let lines = &self.0;
        let mut waiting = lines.lock();
        waiting.ended = true;
        lines.0.told.notify_one();
        // A reader that takes nothing does not keep the process from ending.
        drop(lines.0.over.wait_timeout_while(waiting, LAST_WORDS, |waiting| !waiting.over));
    }
}

/// One event's line on its way to the others.
pub struct Line<'a> {
    lines: &'a Lines,
    urgent: bool,
}

impl Write for Line<'_> {
    /// An event is written whole, in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.add(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, urgent: true }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        Line { lines: self, urgent: *event.level() <= Level::WARN }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// Hands on what is written, piece by piece; holds up whoever writes while its other end does not take it.
    struct Out(mpsc::SyncSender<Vec<u8>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(room: usize) -> (Lines, Flush, mpsc::Receiver<Vec<u8>>) {
        let (sender, written) = mpsc::sync_channel(room);
        let (lines, flush) = Lines::to(Out(sender)).unwrap();
        (lines, flush, written)
    }

    #[test]
    fn lines_are_written_together_and_none_is_lost_at_the_end() {
        let (lines, flush, written) = lines(1000);
        for number in 0..100 {
            lines.add(format!("{number}\n").as_bytes(), false);
        }
        drop(flush);
        let pieces: Vec<_> = written.try_iter().collect();
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(pieces.concat()).unwrap(), expected);
        assert!(pieces.len() < 10, "{}", pieces.len());
    }

    #[test]
    fn what_is_urgent_waits_for_no_others() {
        let (lines, _flush, written) = lines(1000);
        let begun = Instant::now();
        for _ in 0..50 {
            lines.add(b"so what\n", false);
            lines.add(b"look\n", true);
            assert!(written.recv_timeout(Duration::from_secs(5)).unwrap().ends_with(b"look\n"));
        }
        assert!(begun.elapsed() < 50 * GATHERING, "{:?}", begun.elapsed());
    }

    #[test]
    fn what_cannot_be_written_is_counted_line_by_line() {
        let (lines, flush, written) = lines(1000);
        drop(written);
        lines.add(b"one\n", false);
        lines.add(b"two\n", false);
        drop(flush);
        assert_eq!(lines.dropped(), 2);
    }

    #[test]
    fn a_reader_that_takes_nothing_costs_lines_and_no_time() {
        let (lines, flush, written) = lines(0);
        let line = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            lines.add(&line, false);
        }
        let dropped = lines.dropped();
        assert!((4..20).contains(&dropped), "{dropped}");
        let begun = Instant::now();
        drop(flush);
        assert!(begun.elapsed() < 5 * LAST_WORDS);
        drop(written);
    }
}
