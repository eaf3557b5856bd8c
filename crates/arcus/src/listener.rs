//! The one TLS port. Clients may show a certificate; a node's is told to the handlers as [`PeerNode`].

use anyhow::{Context as _, Result};
use arcus_api::auth::PeerNode;
use arcus_engine::authority::{Authority, node_of_uri};
use arcus_types::NodeId;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Requests that are under way when the server stops get so long to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// The most connections at once; beyond that, new ones wait to be accepted.
const CONNECTIONS_MAX: usize = 20_000;

/// The TLS side of the endpoint.
pub fn acceptor(authority: &Authority, names: &[String]) -> Result<TlsAcceptor> {
    let own = authority.issue_server(names)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.ca_pem().as_bytes()) {
        roots.add(certificate?)?;
    }
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(own.certificate_pem.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes())?;
    let mut config =
        rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `stop` is cancelled, then lets requests end.
pub async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) -> Result<()> {
    let tasks = TaskTracker::new();
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.context("the listener was closed")?;
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        tasks.spawn(async move {
            connection(stream, acceptor, router, stop).await;
            drop(place);
        });
    }
    tasks.close();
    drop(tokio::time::timeout(DRAIN_DEADLINE, tasks.wait()).await);
    Ok(())
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router, stop: CancellationToken) {
    drop(stream.set_nodelay(true));
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await else {
        return;
    };
    let node = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(node_of);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(node) = node {
            request.extensions_mut().insert(PeerNode(node));
        }
        router.clone().call(request)
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(250);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The node that a client certificate names.
fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => node_of_uri(uri),
        _ => None,
    })
}
