//! The link to the server: mutual TLS with a certificate that renews itself, and the calls of the agent protocol.

use arcus_storage::{ImageBytes, ImageFetch};
use arcus_types::agent::{
    ImageSource, JoinRequest, LeaseGrant, NodeIdentity, NodeReport, NodeSpec, PROTOCOL_VERSION, RenewRequest,
    SPEC_POLL_S,
};
use arcus_types::nodes::LEASE_RENEW_MS;
use arcus_types::{ImageId, NodeId, RelayId};
use futures_util::TryStreamExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};

/// A short call is given up after this time.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// A lease that takes longer to come is of little use.
const LEASE_DEADLINE: Duration = Duration::from_millis(LEASE_RENEW_MS);
/// Bytes must keep coming: a transfer that stalls for so long is given up.
const STALL_DEADLINE: Duration = Duration::from_secs(60);

/// How many times as long the server may take to answer to an upload that it has whole.
const STALLS_MAX_WHEN_SENT: u32 = 30;

/// Why a call to the server failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The server cannot be reached or the transfer broke; try again.
    #[error("the server at {url} cannot be reached")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What failed.
        #[source]
        source: reqwest::Error,
    },
    /// An upload does not move on; try again.
    #[error("the server took {sent_bytes} of {length_bytes} bytes and then no more")]
    Stalled {
        /// What was sent, in bytes.
        sent_bytes: u64,
        /// What there is to send, in bytes.
        length_bytes: u64,
    },
    /// The server refused.
    #[error("the server refused {what} with {status}: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
        /// What it said, cut to 500 characters.
        message: String,
    },
    /// The server is not the one that the join token is for.
    #[error("the server at {url} is not the one that the join token is for, or the token was not copied whole")]
    Stranger {
        /// Where it was looked for.
        url: String,
    },
    /// A file of the node's identity cannot be read or written.
    #[error("could not use {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key is not valid.
    #[error("the node's identity is not valid: {0}; remove the folder identity/ and join again")]
    Identity(String),
    /// The relay's stream could not be opened.
    #[error("could not open the byte stream")]
    Relay(#[source] Box<tokio_tungstenite::tungstenite::Error>),
}

impl LinkError {
    /// Whether the same call may work later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Stalled { .. } | Self::Relay(_) => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::File { .. } | Self::Identity(_) | Self::Stranger { .. } => false,
        }
    }
}

/// The link to the server.
pub struct Link {
    url: String,
    folder: PathBuf,
    node_id: NodeId,
    client: RwLock<Client>,
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    /// Without a deadline for the answer, which only comes when all is sent; see [`stalled`].
    uploads: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
}

/// The node's identity: one file, for a key and a certificate of which only one is new are of no use.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    node_id: NodeId,
    ca_pem: String,
    certificate_pem: String,
    key_pem: String,
}

/// Where it is.
const IDENTITY_FILE: &str = "node.json";

impl Link {
    /// Joins the cloud at `url`, once. `ca_pem` is what the server's certificate must lead to.
    ///
    /// # Errors
    /// [`LinkError`]: the token may be used up or too old.
    pub async fn join(
        url: &str,
        ca_pem: &str,
        token: &str,
        name: &str,
        cluster: Option<&str>,
        folder: &Path,
    ) -> Result<Self, LinkError> {
        let (key_pem, csr_pem) = request()?;
        let http = client(ca_pem, None)?.http;
        let body = JoinRequest {
            token: token.to_owned(),
            name: name.to_owned(),
            csr_pem,
            cluster: cluster.map(str::to_owned),
        };
        let sent = http.post(format!("{url}/agent/v1/join")).json(&body).timeout(CALL_DEADLINE).send().await;
        let answer = checked("to let this node join", url, sent).await?;
        let identity: NodeIdentity = answer.json().await.map_err(|source| unreachable(url, source))?;
        store(folder, &identity, &key_pem)?;
        Self::open(url, folder)
    }

    /// Asks the server at `url` for its certificate authority, in PEM. Nothing vouches for the server yet: what it says
    /// is believed only if it is the authority that the token names. Answers it with the secret part of the token.
    ///
    /// # Errors
    /// [`LinkError::Stranger`] if the server is another than the token is for, or the token is none.
    pub async fn discover(url: &str, token: &str) -> Result<(String, String), LinkError> {
        let stranger = || LinkError::Stranger { url: url.to_owned() };
        let (secret, wanted) = token.split_once('.').ok_or_else(stranger)?;
        let http = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .no_proxy()
            .timeout(CALL_DEADLINE)
            .build()
            .map_err(|source| unreachable(url, source))?;
        let sent = http.get(format!("{url}/agent/v1/ca")).send().await;
        let answer = checked("its certificate authority", url, sent).await?;
        let ca_pem = answer.text().await.map_err(|source| unreachable(url, source))?;
        if fingerprint(&ca_pem) == wanted { Ok((ca_pem, secret.to_owned())) } else { Err(stranger()) }
    }

    /// Opens the link of a node that has joined before.
    ///
    /// # Errors
    /// [`LinkError::File`] if it has not.
    pub fn open(url: &str, folder: &Path) -> Result<Self, LinkError> {
        let stored = Stored::read(folder)?;
        let client = stored.client()?;
        Ok(Self {
            url: url.to_owned(),
            folder: folder.to_owned(),
            node_id: stored.node_id,
            client: RwLock::new(client),
        })
    }

    /// Whether a node has joined with this folder before.
    pub fn has_joined(folder: &Path) -> bool {
        folder.join(IDENTITY_FILE).exists()
    }

    fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Gets a fresh certificate and uses it from now on; answers when to do so again.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn renew(&self) -> Result<Duration, LinkError> {
        let (key_pem, csr_pem) = request()?;
        let sent = self.client().http.post(format!("{}/agent/v1/renew", self.url)).json(&RenewRequest { csr_pem });
        let answer = checked("a new certificate", &self.url, sent.timeout(CALL_DEADLINE).send().await).await?;
        let identity: NodeIdentity = answer.json().await.map_err(|source| unreachable(&self.url, source))?;
        store(&self.folder, &identity, &key_pem)?;
        let fresh = Stored::read(&self.folder)?.client()?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(Duration::from_secs(identity.renew_after_s.max(60)))
    }

    /// The next spec that is newer than `after` or has relays that are not `known`; `None` if there is none for now.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn spec(&self, after: u64, known: &[RelayId]) -> Result<Option<NodeSpec>, LinkError> {
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        let url = format!("{}/agent/v1/spec?after={after}&relays={}", self.url, known.join(","));
        let sent = self.client().http.get(url).timeout(Duration::from_secs(SPEC_POLL_S) + CALL_DEADLINE).send().await;
        let answer = checked("the node's spec", &self.url, sent).await?;
        if answer.status() == reqwest::StatusCode::NO_CONTENT {
            return Ok(None);
        }
        answer.json().await.map(Some).map_err(|source| unreachable(&self.url, source))
    }

    /// Asks for the next lease; how long it is from the moment of asking, zero if none is granted.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn lease(&self) -> Result<Duration, LinkError> {
        let request = self.client().http.post(format!("{}/agent/v1/lease", self.url)).timeout(LEASE_DEADLINE);
        let answer = checked("a lease", &self.url, request.send().await).await?;
        let grant: LeaseGrant = answer.json().await.map_err(|source| unreachable(&self.url, source))?;
        Ok(Duration::from_millis(grant.lease_ms))
    }

    /// Asks the server for so many bytes, to measure the way to it; answers how many came.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn probe(&self, bytes: u64) -> Result<u64, LinkError> {
        let request = self.client().http.get(format!("{}/agent/v1/probe?bytes={bytes}", self.url));
        let sent = request.timeout(CALL_DEADLINE).send().await;
        let (mut answer, mut came) = (checked("bytes to measure by", &self.url, sent).await?, 0);
        while let Some(piece) = answer.chunk().await.map_err(|source| unreachable(&self.url, source))? {
            came += piece.len() as u64;
        }
        Ok(came)
    }

    /// Tells the server what the node has observed.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn report(&self, report: &NodeReport) -> Result<(), LinkError> {
        let request = self.client().http.post(format!("{}/agent/v1/report", self.url)).json(report);
        checked("the node's report", &self.url, request.timeout(CALL_DEADLINE).send().await).await.map(drop)
    }

    /// Sends a snapshot's bytes.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn image_put(&self, id: ImageId, file: tokio::fs::File, length: u64) -> Result<(), LinkError> {
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let stream = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10).inspect_ok(move |bytes| {
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        });
        let request = self
            .client()
            .uploads
            .put(format!("{}/agent/v1/images/{id}", self.url))
            .header(reqwest::header::CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(stream));
        tokio::select! {
            answer = request.send() => checked("the snapshot", &self.url, answer).await.map(drop),
            () = stalled(&sent, length) => {
                Err(LinkError::Stalled { sent_bytes: sent.load(Ordering::Relaxed), length_bytes: length })
            }
        }
    }

    /// Opens the node's end of a byte stream that a client waits for.
    ///
    /// # Errors
    /// [`LinkError::Relay`].
    pub async fn relay(
        &self,
        id: RelayId,
    ) -> Result<WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>, LinkError> {
        let url = format!("{}/agent/v1/relays/{id}", self.url.replacen("https://", "wss://", 1));
        let tls = self.client().tls;
        let mut config = (*tls).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = Connector::Rustls(Arc::new(config));
        let connecting = tokio_tungstenite::connect_async_tls_with_config(url, None, true, Some(connector));
        match tokio::time::timeout(CALL_DEADLINE, connecting).await {
            Ok(Ok((stream, _))) => Ok(stream),
            Ok(Err(error)) => Err(LinkError::Relay(Box::new(error))),
            Err(_) => {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Err(LinkError::Relay(Box::new(tokio_tungstenite::tungstenite::Error::Io(late))))
            }
        }
    }
}

#[async_trait::async_trait]
impl ImageFetch for Link {
    async fn fetch(&self, source: &ImageSource) -> std::io::Result<ImageBytes> {
        let request = self.client().http.get(format!("{}/agent/v1/images/{}", self.url, source.id));
        let answer = checked("an image", &self.url, request.send().await).await.map_err(std::io::Error::other)?;
        let stream = answer.bytes_stream().map_err(std::io::Error::other);
        Ok(Box::pin(tokio_util::io::StreamReader::new(stream)))
    }
}

async fn checked(
    what: &'static str,
    url: &str,
    sent: Result<reqwest::Response, reqwest::Error>,
) -> Result<reqwest::Response, LinkError> {
    let answer = sent.map_err(|source| unreachable(url, source))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let message = answer.text().await.unwrap_or_default().chars().take(500).collect();
    Err(LinkError::Refused { what, status: status.as_u16(), message })
}

fn unreachable(url: &str, source: reqwest::Error) -> LinkError {
    LinkError::Unreachable { url: url.to_owned(), source }
}

/// How a join token names a certificate authority: the SHA-256 of its PEM text, in hexadecimal.
fn fingerprint(ca_pem: &str) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ca_pem.as_bytes()))
}

/// A fresh key and the request for a certificate of it, both in PEM.
fn request() -> Result<(String, String), LinkError> {
    let invalid = |error: rcgen::Error| LinkError::Identity(error.to_string());
    let key = rcgen::KeyPair::generate().map_err(invalid)?;
    let params = rcgen::CertificateParams::new(Vec::new()).map_err(invalid)?;
    let csr = params.serialize_request(&key).map_err(invalid)?;
    Ok((key.serialize_pem(), csr.pem().map_err(invalid)?))
}

/// Returns when an upload has not moved on for too long. A server that is gone is noticed sooner, by the connection.
async fn stalled(sent: &AtomicU64, length: u64) {
    let (mut before, mut whole) = (0, 0);
    loop {
        tokio::time::sleep(STALL_DEADLINE).await;
        let now = sent.load(Ordering::Relaxed);
        whole += u32::from(now >= length);
        if (now < length && now == before) || whole > STALLS_MAX_WHEN_SENT {
            return;
        }
        before = now;
    }
}

fn client(ca_pem: &str, own: Option<(&str, &str)>) -> Result<Client, LinkError> {
    let invalid = |error: &dyn std::fmt::Display| LinkError::Identity(error.to_string());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|e| invalid(&e))?).map_err(|e| invalid(&e))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(&e))?
        .with_root_certificates(roots);
    let mut tls = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| invalid(&e))?;
            builder.with_client_auth_cert(chain.map_err(|e| invalid(&e))?, key).map_err(|e| invalid(&e))?
        }
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let builder = || {
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .no_proxy()
            .connect_timeout(CALL_DEADLINE)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .default_headers(
                [(reqwest::header::HeaderName::from_static("arcus-agent-protocol"), PROTOCOL_VERSION.into())]
                    .into_iter()
                    .collect(),
            )
    };
    let http = builder().read_timeout(STALL_DEADLINE).build().map_err(|e| invalid(&e))?;
    let uploads = builder().build().map_err(|e| invalid(&e))?;
    Ok(Client { http, uploads, tls: Arc::new(tls) })
}

impl Stored {
    fn read(folder: &Path) -> Result<Self, LinkError> {
        let path = folder.join(IDENTITY_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| LinkError::File { path, source })?;
        serde_json::from_str(&text).map_err(|error| LinkError::Identity(error.to_string()))
    }

    fn client(&self) -> Result<Client, LinkError> {
        client(&self.ca_pem, Some((&self.certificate_pem, &self.key_pem)))
    }
}

/// Writes the identity, whole or not at all.
fn store(folder: &Path, identity: &NodeIdentity, key_pem: &str) -> Result<(), LinkError> {
    let stored = Stored {
        node_id: identity.node_id,
        ca_pem: identity.ca_pem.clone(),
        certificate_pem: identity.certificate_pem.clone(),
        key_pem: key_pem.to_owned(),
    };
    let text = serde_json::to_string(&stored).map_err(|error| LinkError::Identity(error.to_string()))?;
    let path = folder.join(IDENTITY_FILE);
    write_private(folder, &path, &text).map_err(|source| LinkError::File { path, source })
}

fn write_private(folder: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}
