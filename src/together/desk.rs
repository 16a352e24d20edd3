//! What each thread is still to write.

use std::cell::RefCell;
use std::sync::Arc;

/// So many streams with something to write wait for no others.
pub const MANY: usize = 64;
/// Nor does any while so much else goes on: of that there may be more and more, and the thread never sleep.
pub const PASSED: usize = 256;
/// How much of that a write is that was not to wait.
pub const LARGE: usize = 32;
/// So many bytes that were read are one more than the reading itself.
pub const READ: usize = 512;

thread_local! {
    static DESK: RefCell<Desk> = const { RefCell::new(Desk { open: false, letters: Vec::new(), passed: 0, spare: Vec::new() }) };
}

struct Desk {
    /// Whether the thread says when it is about to sleep: without that, nothing may wait.
    open: bool,
    letters: Vec<Arc<dyn Letter>>,
    /// What has gone past them.
    passed: usize,
    /// Buffers that were used a moment ago, and so are in the processor's caches.
    spare: Vec<Vec<u8>>,
}

/// What waits of one stream.
pub trait Letter: Send + Sync {
    /// Has all of it written; gives back the buffer if that is done.
    fn send(self: Arc<Self>) -> Vec<u8>;
}

/// Writes what waits on this thread, which is about to sleep: for whoever runs its tasks.
pub fn before_sleep() {
    DESK.with_borrow_mut(|desk| desk.open = true);
    send_all();
}

/// Whether anything may wait on this thread.
pub fn is_open() -> bool {
    DESK.with_borrow(|desk| desk.open)
}

/// Has it written with the others.
pub fn list(letter: Arc<dyn Letter>) {
    let many = DESK.with_borrow_mut(|desk| {
        desk.letters.push(letter);
        desk.letters.len() >= MANY
    });
    if many {
        send_all();
    }
}

/// Notes that so much goes past what waits.
pub fn pass(much: usize) {
    let due = DESK.with_borrow_mut(|desk| {
        desk.passed += if desk.letters.is_empty() { 0 } else { much };
        desk.passed >= PASSED
    });
    if due {
        send_all();
    }
}

/// A buffer to wait in.
pub fn buffer() -> Vec<u8> {
    DESK.with_borrow_mut(|desk| desk.spare.pop()).unwrap_or_default()
}

fn send_all() {
    let mut letters = DESK.with_borrow_mut(|desk| {
        desk.passed = 0;
        std::mem::take(&mut desk.letters)
    });
    for letter in letters.drain(..) {
        spare(letter.send());
    }
    DESK.with_borrow_mut(|desk| desk.letters = letters);
}

fn spare(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 {
        return;
    }
    buffer.clear();
    DESK.with_borrow_mut(|desk| {
        if desk.spare.len() < MANY {
            desk.spare.push(buffer);
        }
    });
}
