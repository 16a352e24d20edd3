//! One connection that many ask on at once: what they ask goes out together, and the answers come back in its order.
//!
//! The redis crate makes the commands and reads the answers; its own pipeline in between takes eleven times as much for a
//! session that is read (107,000 of 290,000 instructions of a whole exchange; this one 9,500, callgrind), since it reads
//! every answer whole. Here an answer is passed on as it came, and read by who can tell what of it is worth reading.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use redis::Cmd;
use tokio::io::AsyncWrite as _;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::frame;
use crate::tls::Duplex;

/// Questions that may be on their way at once; more wait for their turn.
const ON_THEIR_WAY: usize = 4096;
/// What is read at once.
const READ_BYTES: usize = 16 << 10;

/// What the server says unasked, as it came. Heard before any answer that comes after it is given out.
pub(super) type Heed = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What a change of one's own comes back as: the server tells of it all the same, right after its answer.
pub(super) struct Echo {
    /// What it says, as it comes.
    pub said: Vec<u8>,
    pub answered: Answered,
}

/// Told the answer before anything that comes after it is heard, or none if the same was said before it, by whomever;
/// whether the echo has nothing to tell then.
pub(super) type Answered = Box<dyn FnOnce(Option<&[u8]>) -> bool + Send>;

/// Where questions go in. Its connection ends with it.
pub(super) struct Pipe {
    shared: Arc<Shared>,
    _driver: JoinSet<()>,
}

struct Shared {
    state: Mutex<State>,
    driver: AtomicWaker,
    /// Taken by each who asks, until it is answered.
    room: Semaphore,
}

#[derive(Default)]
struct State {
    /// What is to be written next.
    out: Vec<u8>,
    /// Who waits, in the order of their questions.
    waiting: VecDeque<Waiting>,
    over: bool,
}

struct Waiting {
    answer: oneshot::Sender<Bytes>,
    /// The answer is said like what is said unasked, as that to `SUBSCRIBE` is.
    by_push: bool,
    echo: Option<Echo>,
}

/// The connection has ended, or what came is no answer at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody is answered any more.
    fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        state.waiting.clear();
    }
}

impl Pipe {
    /// Speaks over a stream; the token is cancelled when it ends.
    pub fn open(stream: Box<dyn Duplex>, heed: Heed, ended: CancellationToken) -> Self {
        let room = Semaphore::new(ON_THEIR_WAY);
        let shared = Arc::new(Shared { state: Mutex::default(), driver: AtomicWaker::new(), room });
        let mut driver = JoinSet::new();
        driver.spawn(Driver {
            stream,
            heed,
            shared: shared.clone(),
            writing: Vec::new(),
            written: 0,
            reading: BytesMut::new(),
            echo: None,
            _ended: ended.drop_guard(),
        });
        Self { shared, _driver: driver }
    }

    /// Asks, and waits for the answer, as it came.
    pub async fn ask(&self, command: &Cmd, echo: Option<Echo>) -> Result<Bytes, Broken> {
        self.ask_one(command, false, echo).await
    }

    /// The same for a question whose answer is said like what is said unasked.
    pub async fn ask_by_push(&self, command: &Cmd) -> Result<Bytes, Broken> {
        self.ask_one(command, true, None).await
    }

    async fn ask_one(&self, command: &Cmd, by_push: bool, echo: Option<Echo>) -> Result<Bytes, Broken> {
        let _room = self.shared.room.acquire().await.map_err(|_| Broken)?;
        let (answer, answered) = oneshot::channel();
        self.put([(command, Waiting { answer, by_push, echo })])?;
        answered.await.map_err(|_| Broken)
    }

    /// Asks all of these with nothing in between, and waits for every answer.
    pub async fn ask_all(&self, commands: &[&Cmd]) -> Result<Vec<Bytes>, Broken> {
        let _room = self.shared.room.acquire().await.map_err(|_| Broken)?;
        let (answers, answered): (Vec<_>, Vec<_>) = commands.iter().map(|_| oneshot::channel()).unzip();
        let waiting = answers.into_iter().map(|answer| Waiting { answer, by_push: false, echo: None });
        self.put(commands.iter().copied().zip(waiting))?;
        let mut answers = Vec::with_capacity(commands.len());
        for answer in answered {
            answers.push(answer.await.map_err(|_| Broken)?);
        }
        Ok(answers)
    }

    fn put<'a>(&self, questions: impl IntoIterator<Item = (&'a Cmd, Waiting)>) -> Result<(), Broken> {
        let mut state = self.shared.lock();
        if state.over {
            return Err(Broken);
        }
        for (command, waiting) in questions {
            command.write_packed_command(&mut state.out);
            state.waiting.push_back(waiting);
        }
        drop(state);
        self.shared.driver.wake();
        Ok(())
    }
}

/// Writes what is asked, reads what is answered, and ends with its connection.
struct Driver {
    stream: Box<dyn Duplex>,
    heed: Heed,
    shared: Arc<Shared>,
    writing: Vec<u8>,
    /// How much of it is written.
    written: usize,
    reading: BytesMut,
    /// What has nothing to tell, should it be what comes next of its kind.
    echo: Option<Vec<u8>>,
    _ended: DropGuard,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        driver.shared.driver.register(cx.waker());
        let went = driver.read(cx).and_then(|()| driver.write(cx));
        if went.is_ok() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Driver {
    /// Writes until all is written, or no more is taken for now.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.written = 0;
                std::mem::swap(&mut self.writing, &mut self.shared.lock().out);
            }
            let rest = self.writing.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                return match Pin::new(&mut self.stream).poll_flush(cx) {
                    Poll::Ready(flushed) => flushed,
                    Poll::Pending => Ok(()),
                };
            }
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Reads until no more comes for now, and gives out every answer that is whole.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            self.reading.reserve(READ_BYTES);
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.reading) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(read) => read?,
                Poll::Pending => return Ok(()),
            };
            while let Some(length) = frame::length(&self.reading)? {
                // Copied, so that whoever keeps an answer keeps nothing else.
                let answer = Bytes::copy_from_slice(self.reading.get(..length).unwrap_or_default());
                self.reading.advance(length);
                self.give_out(answer)?;
            }
        }
    }

    fn give_out(&mut self, answer: Bytes) -> io::Result<()> {
        let is_push = answer.first() == Some(&b'>');
        if is_push {
            if self.echo.take_if(|echo| *echo == *answer).is_some() {
                return Ok(());
            }
            (self.heed)(&answer);
        }
        let mut state = self.shared.lock();
        if is_push && !state.waiting.front().is_some_and(|next| next.by_push) {
            // It is another's; or the server is an old one, and does not say it again after the answer.
            let echoes = state.waiting.iter_mut().filter_map(|next| next.echo.as_mut());
            echoes.filter(|echo| *echo.said == *answer).for_each(|echo| echo.said.clear());
            return Ok(());
        }
        let next = state.waiting.pop_front().ok_or(io::ErrorKind::InvalidData)?;
        drop(state);
        self.echo = next.echo.and_then(|Echo { said, answered }| {
            let alone = (!said.is_empty()).then_some(&*answer);
            answered(alone).then_some(said)
        });
        // Whoever asked may have left.
        let _ = next.answer.send(answer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    fn open() -> (Pipe, DuplexStream, mpsc::Receiver<Vec<u8>>, CancellationToken) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (heard, said) = mpsc::channel();
        let ended = CancellationToken::new();
        let heed = Box::new(move |said: &[u8]| drop(heard.send(said.to_vec())));
        (Pipe::open(Box::new(near), heed, ended.clone()), far, said, ended)
    }

    async fn asked(far: &mut DuplexStream, expected: &str) {
        let mut read = vec![0; expected.len()];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), expected);
    }

    #[tokio::test]
    async fn answers_go_to_who_asked_in_the_order_of_the_questions() {
        let (pipe, mut far, said, _) = open();
        let (get, ping) = (redis::cmd("GET").arg("k").to_owned(), redis::cmd("PING"));
        let server = async {
            asked(&mut far, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n").await;
            far.write_all(b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n$2\r\nv").await.unwrap();
            far.write_all(b"w\r\n+PO").await.unwrap();
            far.write_all(b"NG\r\n").await.unwrap();
        };
        let (got, pong, ()) = tokio::join!(pipe.ask(&get, None), pipe.ask(&ping, None), server);
        assert_eq!((&*got.unwrap(), &*pong.unwrap()), (&b"$2\r\nvw\r\n"[..], &b"+PONG\r\n"[..]));
        assert!(said.try_recv().unwrap().starts_with(b">2\r\n+invalidate"));
    }

    /// What is heard where a question whose change comes back as `said` is answered by all of that.
    async fn heard_of_echo(keeps: bool, answers: &[&str]) -> Vec<String> {
        let (pipe, mut far, said, _) = open();
        let (set, ping) = (redis::cmd("SET").arg("k").to_owned(), redis::cmd("PING"));
        let (told, answered) = mpsc::channel();
        let heed = Box::new(move |answer: Option<&[u8]>| {
            told.send(answer.map(<[u8]>::to_vec)).unwrap();
            keeps && answer.is_some()
        });
        let echo = Echo { said: OWN.into(), answered: heed };
        let server = async {
            asked(&mut far, "*2\r\n$3\r\nSET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n").await;
            far.write_all(answers.concat().as_bytes()).await.unwrap();
        };
        let (set, pong, ()) = tokio::join!(pipe.ask(&set, Some(echo)), pipe.ask(&ping, None), server);
        assert_eq!((&*set.unwrap(), &*pong.unwrap()), (DONE.as_bytes(), PONG.as_bytes()));
        let alone = answers.first() == Some(&DONE);
        assert_eq!(answered.recv().unwrap(), alone.then(|| DONE.into()));
        said.try_iter().map(|said| String::from_utf8(said).unwrap()).collect()
    }

    const OWN: &str = ">2\r\n+invalidate\r\n*1\r\n+k\r\n";
    const OTHER: &str = ">2\r\n+invalidate\r\n*1\r\n+other\r\n";
    const DONE: &str = "+OK\r\n";
    const PONG: &str = "+PONG\r\n";

    #[tokio::test]
    async fn own_change_is_told_from_anothers_by_its_place() {
        for (answers, heard) in [
            (&[DONE, OWN, PONG][..], &[][..]),
            // The trail of the same session comes before it.
            (&[DONE, OTHER, OWN, PONG], &[OTHER]),
            // One more is another's.
            (&[DONE, OWN, OWN, PONG], &[OWN]),
            // An old server says it before it answers.
            (&[OWN, DONE, OWN, PONG], &[OWN, OWN]),
            // What comes after the next answer is not of this one.
            (&[DONE, PONG, OWN], &[OWN]),
        ] {
            assert_eq!(heard_of_echo(true, answers).await, heard, "{answers:?}");
        }
    }

    #[tokio::test]
    async fn what_is_told_before_the_answer_is_anothers_also_where_other_questions_wait() {
        let (pipe, mut far, _said, _) = open();
        let (set, ping) = (redis::cmd("SET").arg("k").to_owned(), redis::cmd("PING"));
        let (told, answered) = mpsc::channel();
        let heed = Box::new(move |answer: Option<&[u8]>| told.send(answer.is_some()).is_err());
        let echo = Echo { said: OWN.into(), answered: heed };
        let server = async {
            asked(&mut far, "*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nSET\r\n$1\r\nk\r\n").await;
            far.write_all([OWN, PONG, DONE].concat().as_bytes()).await.unwrap();
        };
        let (pong, set, ()) = tokio::join!(pipe.ask(&ping, None), pipe.ask(&set, Some(echo)), server);
        assert_eq!((&*pong.unwrap(), &*set.unwrap()), (PONG.as_bytes(), DONE.as_bytes()));
        assert_eq!(answered.recv(), Ok(false));
    }

    #[tokio::test]
    async fn own_change_is_heard_where_nothing_is_kept_of_it() {
        assert_eq!(heard_of_echo(false, &[DONE, OWN, PONG]).await, [OWN]);
    }

    #[tokio::test]
    async fn a_subscription_is_answered_by_what_is_said_or_by_a_refusal() {
        let (pipe, mut far, _said, _) = open();
        let subscribe = redis::cmd("SUBSCRIBE").arg("c").to_owned();
        for answer in ["-NOPERM no\r\n", ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"] {
            let (answered, ()) = tokio::join!(pipe.ask_by_push(&subscribe), async {
                asked(&mut far, "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n").await;
                far.write_all(answer.as_bytes()).await.unwrap();
            });
            assert_eq!(&*answered.unwrap(), answer.as_bytes());
        }
    }

    #[tokio::test]
    async fn nobody_waits_on_a_connection_that_is_over() {
        for last in ["", "+OK\r\n+too much\r\n", "HTTP/1.1 400 Bad Request\r\n"] {
            let (pipe, mut far, _said, ended) = open();
            let ping = redis::cmd("PING");
            let (answer, ()) = tokio::join!(pipe.ask(&ping, None), async {
                asked(&mut far, "*1\r\n$4\r\nPING\r\n").await;
                far.write_all(last.as_bytes()).await.unwrap();
                drop(far);
            });
            assert_eq!(answer.is_ok(), last.starts_with('+'), "{last}");
            ended.cancelled().await;
            assert_eq!(pipe.ask(&ping, None).await, Err(Broken));
            assert_eq!(pipe.ask_all(&[&ping, &ping]).await, Err(Broken));
        }
    }
}
