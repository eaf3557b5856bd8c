//! The metadata service: HTTP/1.1 on 169.254.169.254:80 and `fe80::a9fe:a9fe`:80 in each segment's namespace.
//!
//! Who asks is told by the kernel: the filter marks a guest's packets with the number of the port that they came by, and
//! the accepted socket carries the mark. No address that a guest can choose has a part in it.

use super::segment::Guests;
use crate::{GuestDirectory, Left};
use arcus_types::ids::PortId;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// How many connections one guest may hold open.
const CONNECTIONS_MAX: u32 = 16;

/// How long a guest may take to send a request's header, in seconds; also how long an idle connection is kept.
const HEADER_S_MAX: u64 = 15;

/// How long a connection may last in all, in seconds.
const CONNECTION_S_MAX: u64 = 300;

/// How long a request's header may be, in bytes; the least that the HTTP library takes.
const HEADER_BYTES_MAX: usize = 8192;

/// How long a path may be, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// How much a guest may leave at once, in bytes.
const LEFT_BYTES_MAX: usize = 4096;

/// How long a guest waits until what it left is kept, in seconds.
const KEPT_S_MAX: u64 = 20;

/// The listening socket, in the calling thread's namespace.
pub fn listen() -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec().nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    // The bridge that holds the address may be made later.
    socket.set_freebind_v4(true)?;
    socket.bind(&std::net::SocketAddr::from((super::filter::SERVICE_ADDRESS, 80)).into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// The same for IPv6. Where it is reached, only the bridge has IPv6, with one address.
pub fn listen6() -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV6, Type::STREAM.cloexec().nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_only_v6(true)?;
    socket.bind(&std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 80)).into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// Open connections by the number of the guest's port, of both IP versions together.
pub type Open = Arc<Mutex<BTreeMap<u16, u32>>>;

/// One open connection, counted until dropped.
struct Counted {
    open: Open,
    number: u16,
}

impl Counted {
    fn new(open: &Open, number: u16) -> Option<Self> {
        let mut counts = open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(number).or_insert(0);
        (*count < CONNECTIONS_MAX).then(|| {
            *count += 1;
            Self { open: Arc::clone(open), number }
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.number) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.number);
            }
        }
    }
}

/// Answers on a socket of [`listen`] until the task is ended, and with it all connections.
pub async fn serve(
    listener: std::net::TcpListener,
    guests: Arc<RwLock<Arc<Guests>>>,
    directory: Arc<dyn GuestDirectory>,
    open: Open,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Out of file descriptors, or the guest has gone again: others still want to be served.
            Err(error) => {
                tracing::debug!(%error, "a metadata connection could not be taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some((number, port)) = caller(&stream, &guests) else { continue };
        let Some(counted) = Counted::new(&open, number) else { continue };
        let directory = Arc::clone(&directory);
        connections.spawn(async move {
            let _counted = counted;
            let lifetime = Duration::from_secs(CONNECTION_S_MAX);
            let _ = tokio::time::timeout(lifetime, connection(stream, port, directory)).await;
        });
    }
}

/// The number and id of the port that the connection came by.
fn caller(stream: &TcpStream, guests: &RwLock<Arc<Guests>>) -> Option<(u16, PortId)> {
    let mark = socket2::SockRef::from(stream).mark().ok()?;
    let number = u16::try_from(mark >> 16).ok()?;
    let guests = guests.read().unwrap_or_else(PoisonError::into_inner);
    guests.get(&number).map(|guest| (number, guest.port))
}

async fn connection(stream: TcpStream, port: PortId, directory: Arc<dyn GuestDirectory>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let directory = Arc::clone(&directory);
        async move {
            Ok::<_, Infallible>(if request.method() == Method::POST {
                let path = request.uri().path().to_owned();
                take(&path, request.into_body(), port, directory.as_ref()).await
            } else {
                answer(request.method(), request.uri().path(), port, directory.as_ref())
            })
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_S_MAX))
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain", Bytes::from_static(text.as_bytes()))
}

fn readable(path: &str) -> bool {
    path.starts_with('/') && path.len() <= PATH_BYTES_MAX && path.bytes().all(|b| b.is_ascii_graphic())
}

/// Takes what a guest leaves, and answers once it is kept where it outlives this node's agent.
async fn take<B>(path: &str, body: B, port: PortId, directory: &dyn GuestDirectory) -> Response<Full<Bytes>>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let read = Limited::new(body, LEFT_BYTES_MAX).collect();
    let Ok(Ok(body)) = tokio::time::timeout(Duration::from_secs(HEADER_S_MAX), read).await else {
        return plain(StatusCode::BAD_REQUEST, "That is too long, or did not arrive.\n");
    };
    let bytes = body.to_bytes();
    match if readable(path) { directory.leave(port, path, &bytes) } else { Left::NotHere } {
        Left::Stands => plain(StatusCode::CONFLICT, "There is one already.\n"),
        Left::Refused => plain(StatusCode::BAD_REQUEST, "It must be 1 to 1020 printable characters.\n"),
        Left::NotHere => plain(StatusCode::METHOD_NOT_ALLOWED, "Nothing can be left here.\n"),
        Left::Taken => {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(KEPT_S_MAX);
            while directory.document(port, path).is_none_or(|kept| kept != bytes) {
                if tokio::time::Instant::now() > deadline {
                    return plain(StatusCode::SERVICE_UNAVAILABLE, "It could not be kept yet; try again.\n");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            plain(StatusCode::OK, "")
        }
    }
}

fn answer(method: &Method, path: &str, port: PortId, directory: &dyn GuestDirectory) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.\n");
    }
    match readable(path).then(|| directory.document(port, path)).flatten() {
        Some(document) => {
            let kind = if path.ends_with(".json") { "application/json" } else { "text/plain" };
            respond(StatusCode::OK, kind, Bytes::from(document))
        }
        None => plain(StatusCode::NOT_FOUND, "There is nothing under this path.\n"),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl GuestDirectory for Echo {
        fn document(&self, _: PortId, path: &str) -> Option<Vec<u8>> {
            (path != "/none").then(|| path.as_bytes().to_vec())
        }
    }

    /// Keeps what was left after it was looked for a second time.
    #[derive(Default)]
    struct Keeps(Mutex<(Vec<u8>, u32)>);

    impl GuestDirectory for Keeps {
        fn document(&self, _: PortId, _: &str) -> Option<Vec<u8>> {
            let mut kept = self.0.lock().unwrap();
            kept.1 += 1;
            (kept.1 > 1).then(|| kept.0.clone())
        }

        fn leave(&self, _: PortId, path: &str, bytes: &[u8]) -> Left {
            if path != "/password" {
                return Left::NotHere;
            }
            self.0.lock().unwrap().0 = bytes.to_vec();
            Left::Taken
        }
    }

    #[tokio::test]
    async fn what_a_guest_leaves_is_answered_when_it_is_kept() {
        let keeps = Keeps::default();
        let leave =
            async |path: &str, text: String| take(path, Full::new(Bytes::from(text)), PortId::new(), &keeps).await;
        assert_eq!(leave("/password", "sealed".into()).await.status(), StatusCode::OK);
        assert_eq!(*keeps.0.lock().unwrap(), (b"sealed".to_vec(), 2));
        assert_eq!(leave("/meta_data.json", "x".into()).await.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(leave("/password", "x".repeat(5000)).await.status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn only_reading_of_known_paths_is_answered() {
        let status = |method: Method, path: &str| answer(&method, path, PortId::new(), &Echo).status();
        assert_eq!(status(Method::GET, "/openstack"), StatusCode::OK);
        assert_eq!(status(Method::HEAD, "/openstack"), StatusCode::OK);
        assert_eq!(status(Method::POST, "/openstack"), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status(Method::GET, "/none"), StatusCode::NOT_FOUND);
        assert_eq!(status(Method::GET, "*"), StatusCode::NOT_FOUND);
        assert_eq!(status(Method::GET, &format!("/{}", "x".repeat(1024))), StatusCode::NOT_FOUND);
    }

    #[test]
    fn connections_are_counted_per_guest() {
        let open = Open::default();
        let held: Vec<_> = (0..CONNECTIONS_MAX).filter_map(|_| Counted::new(&open, 1)).collect();
        assert!(Counted::new(&open, 1).is_none());
        assert!(Counted::new(&open, 2).is_some());
        drop(held);
        assert!(Counted::new(&open, 1).is_some());
    }
}
