//! What is sent a second time, and what never is: a backend that hangs up at each possible moment, counting what came.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::house::{House, Plan};

/// When the backend hangs up on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before it has read anything.
    Accepted,
    /// After some bytes of the request.
    Bytes(usize),
    /// After the whole request.
    Request,
    /// In the middle of its head.
    Head,
    /// After a whole response that said nothing of closing.
    Response,
    /// The same, but only once the next request has begun to come.
    NextRequest,
    Never,
}

/// A backend that plays one moment for each connection, and keeps what each of them brought.
#[derive(Clone)]
struct Backend {
    address: SocketAddr,
    moments: Arc<Mutex<VecDeque<Moment>>>,
    brought: Arc<Mutex<Vec<Vec<u8>>>>,
    hung_up: Arc<AtomicUsize>,
}

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Backend {
    fn open(moments: &[Moment]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            moments: Arc::new(Mutex::new(moments.iter().copied().collect())),
            brought: Arc::default(),
            hung_up: Arc::default(),
        };
        let playing = backend.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let at = playing.brought.lock().unwrap().len();
                playing.brought.lock().unwrap().push(Vec::new());
                let moment = playing.moments.lock().unwrap().pop_front().unwrap_or(Moment::Never);
                let playing = playing.clone();
                std::thread::spawn(move || {
                    playing.play(stream.unwrap(), at, moment);
                    playing.hung_up.fetch_add(1, Ordering::AcqRel);
                });
            }
        });
        backend
    }

    fn play(&self, mut stream: TcpStream, at: usize, moment: Moment) {
        if moment == Moment::Accepted {
            return;
        }
        let mut answered = 0;
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            let brought = {
                let mut brought = self.brought.lock().unwrap();
                brought[at].extend_from_slice(&buffer[..read]);
                brought[at].clone()
            };
            let requests = whole_requests(&brought);
            match moment {
                Moment::Bytes(count) if brought.len() >= count => return,
                Moment::NextRequest if answered == 1 => return,
                Moment::Request if requests == 1 => return,
                Moment::Head if requests == 1 => {
                    let _ = stream.write_all(&RESPONSE[..20]);
                    return;
                }
                _ => {}
            }
            while answered < requests {
                answered += 1;
                stream.write_all(RESPONSE).unwrap();
                if moment == Moment::Response {
                    return;
                }
            }
        }
    }

    fn connections(&self) -> usize {
        self.brought.lock().unwrap().len()
    }

    /// How many connections brought a byte, or more, of a request for that path.
    fn attempts(&self, path: &str) -> usize {
        let brought = self.brought.lock().unwrap();
        brought.iter().filter(|bytes| String::from_utf8_lossy(bytes).contains(path)).count()
    }
}

/// Requests that came to their end, with bodies of a given length.
fn whole_requests(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (mut rest, mut count) = (&*text, 0);
    while let Some((head, after)) = rest.split_once("\r\n\r\n") {
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let Some(after) = after.get(length.unwrap_or(0)..) else { break };
        count += 1;
        rest = after;
    }
    count
}

fn house(backend: &Backend) -> House {
    Plan::new()
        .route(&format!("name: own, match: {{ path: /own }}, upstream: 'http://{}', session: none", backend.address))
        .open()
}

const BODY: &str = "a body of some bytes";

#[test]
fn a_kept_connection_that_was_closed_costs_no_request() {
    for method in ["GET", "POST", "PATCH"] {
        let backend = Backend::open(&[Moment::Response]);
        let house = house(&backend);
        house.ask(method, "/own/first").body(BODY).send().passed();
        // Cloakroom may notice at once, or only when it takes the connection.
        house.until("the backend has hung up", || backend.hung_up.load(Ordering::Acquire) == 1);
        house.ask(method, "/own/second").body(BODY).send().passed();
        assert_eq!((backend.connections(), backend.attempts("/own/second")), (2, 1), "{method}");
        house.close();
    }
}

#[test]
fn what_has_left_in_part_is_never_sent_again() {
    for method in ["GET", "POST", "DELETE"] {
        for moment in [Moment::Bytes(1), Moment::Bytes(60), Moment::Request, Moment::Head] {
            let backend = Backend::open(&[moment]);
            let house = house(&backend);
            house.ask(method, "/own/only").body(BODY).send().is(502, "upstream-unavailable");
            assert_eq!(backend.connections(), 1, "{method} {moment:?}");
            house.close();
        }
    }
}

#[test]
fn nor_over_a_kept_connection() {
    for method in ["GET", "POST"] {
        let backend = Backend::open(&[Moment::NextRequest]);
        let house = house(&backend);
        house.ask(method, "/own/first").body(BODY).send().passed();
        house.ask(method, "/own/second").body(BODY).send().is(502, "upstream-unavailable");
        assert_eq!((backend.connections(), backend.attempts("/own/second")), (1, 1), "{method}");
        house.close();
    }
}

#[test]
fn a_connection_that_is_closed_at_once_is_tried_once_more_at_most() {
    for _ in 0..10 {
        let backend = Backend::open(&[Moment::Accepted, Moment::Accepted]);
        let house = house(&backend);
        house.post("/own").body(BODY).send().is(502, "upstream-unavailable");
        assert!(backend.connections() <= 2);
        house.close();
    }
}
