//! A plain proxy on hyper with its pooled client: `LISTEN` to `UPSTREAM`, one thread, hop-by-hop headers removed.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

type Pooled = Client<HttpConnector, Incoming>;
type Answer = Response<Either<Incoming, Full<Bytes>>>;

fn strip(headers: &mut HeaderMap) {
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

async fn pass(client: Pooled, upstream: &str, mut request: Request<Incoming>) -> Result<Answer, Infallible> {
    strip(request.headers_mut());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let target: Uri = format!("http://{upstream}{path}").parse().expect("a path makes a URI");
    *request.uri_mut() = target;
    *request.version_mut() = Version::HTTP_11;
    Ok(match client.request(request).await {
        Ok(mut response) => {
            strip(response.headers_mut());
            response.map(Either::Left)
        }
        Err(_) => {
            let mut response = Response::new(Either::Right(Full::default()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listen: std::net::SocketAddr = std::env::var("LISTEN").expect("LISTEN").parse().expect("an address");
    let upstream: &'static str = Box::leak(std::env::var("UPSTREAM").expect("UPSTREAM").into_boxed_str());
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Pooled = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(512).build(connector);
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.set_nonblocking(true).expect("an option");
    socket.bind(&listen.into()).expect("a free address");
    socket.listen(4096).expect("a backlog");
    let listener = TcpListener::from_std(socket.into()).expect("a listener");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let client = client.clone();
        let service = service_fn(move |request| pass(client.clone(), upstream, request));
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
