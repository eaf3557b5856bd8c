//! A generator of load that costs little itself: it shares the machine's cores with the cloud that it loads. One
//! connection a client, HTTP/1.1 over TLS, requests made beforehand, answers read and not parsed.

use anyhow::{Context as _, Result, bail, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// So many clients ask at once.
pub const CLIENTS: usize = 16;
/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 << 10;

/// Where the load goes.
#[derive(Clone)]
pub struct Target {
    tls: TlsConnector,
    address: String,
}

/// One connection.
pub struct Client {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// How a load went.
pub struct Load {
    /// From the first request to the last answer.
    pub took: Duration,
    /// Of each request, rising.
    pub latencies: Vec<Duration>,
}

impl Target {
    /// The cloud with this home folder and endpoint.
    pub fn new(home: &Path, url: &str) -> Result<Self> {
        let clouds = std::fs::read_to_string(home.join("clouds.yaml"))?;
        let ca = clouds.lines().find_map(|line| line.trim().strip_prefix("cacert: ")).context("no cacert")?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&std::fs::read(ca)?) {
            roots.add(certificate?)?;
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let address = url.strip_prefix("https://").context("not a TLS endpoint")?.to_owned();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), address })
    }

    /// A connection.
    pub async fn connect(&self) -> Result<Client> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(self.address.split(':').next().unwrap_or_default().to_owned())?;
        let stream = self.tls.connect(name, tcp).await?;
        Ok(Client { stream, buffer: Vec::with_capacity(READ_BYTES) })
    }

    /// Sends `total` requests over [`CLIENTS`] connections. `request` makes the bytes of one from its number; each must be
    /// answered with `status`.
    pub async fn load<F>(&self, total: usize, status: u16, request: F) -> Result<Load>
    where
        F: Fn(usize) -> Vec<u8> + Send + Sync + 'static,
    {
        let (request, next) = (Arc::new(request), Arc::new(AtomicUsize::new(0)));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(self.connect().await?);
        }
        let began = Instant::now();
        let tasks: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let (request, next) = (Arc::clone(&request), Arc::clone(&next));
                tokio::spawn(async move {
                    let mut latencies = Vec::with_capacity(total / CLIENTS * 2);
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= total {
                            return Ok::<_, anyhow::Error>(latencies);
                        }
                        let bytes = request(number);
                        let asked = Instant::now();
                        let answer = client.ask(&bytes).await?;
                        latencies.push(asked.elapsed());
                        if answer.status != status {
                            bail!("answered with {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
                        }
                    }
                })
            })
            .collect();
        let mut latencies = Vec::with_capacity(total);
        for task in tasks {
            latencies.extend(task.await??);
        }
        let took = began.elapsed();
        latencies.sort_unstable();
        Ok(Load { took, latencies })
    }
}

impl Client {
    /// Sends a request and waits for its answer.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        let head = loop {
            self.more().await?;
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = std::str::from_utf8(self.buffer.get(..head).context("no head")?)?;
        let status = text.split(' ').nth(1).context("no status")?.parse()?;
        let length: usize = text
            .lines()
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            })
            .unwrap_or(0);
        ensure!(!text.contains("chunked"), "an answer whose length is not told");
        while self.buffer.len() < head + length {
            self.more().await?;
        }
        let body = self.buffer.get(head..head + length).unwrap_or_default().to_vec();
        Ok(Answer { status, body })
    }

    async fn more(&mut self) -> Result<()> {
        self.buffer.reserve(READ_BYTES);
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the connection was closed");
        Ok(())
    }
}

impl Load {
    /// How many were answered in a second.
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency that this share of the requests (0 to 1) did not exceed, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let at = (self.latencies.len() as f64 * share) as usize;
        let latency = self.latencies.get(at.min(self.latencies.len().saturating_sub(1)));
        latency.map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: cloud\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method != "GET" {
        text.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}
