//! The metadata service: HTTP/1.1 on 169.254.169.254:80 and `fe80::a9fe:a9fe`:80 in each segment's namespace.
//!
//! Who asks is told by the kernel: the filter marks a guest's packets with the number of the port that they came by, and
//! the accepted socket carries the mark. No address that a guest can choose has a part in it.

use super::segment::Guests;
use crate::GuestDirectory;
use arcus_types::ids::PortId;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
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
        let answer = answer(request.method(), request.uri().path(), port, directory.as_ref());
        async move { Ok::<_, Infallible>(answer) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_S_MAX))
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(method: &Method, path: &str, port: PortId, directory: &dyn GuestDirectory) -> Response<Full<Bytes>> {
    let plain =
        |status: StatusCode, text: &'static str| respond(status, "text/plain", Bytes::from_static(text.as_bytes()));
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.\n");
    }
    let readable = path.starts_with('/') && path.len() <= PATH_BYTES_MAX && path.bytes().all(|b| b.is_ascii_graphic());
    match readable.then(|| directory.document(port, path)).flatten() {
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
