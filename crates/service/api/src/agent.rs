//! The link to the nodes, and the consoles that it carries. The protocol is told in [`arcus_types::agent`].

use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::EngineError;
use arcus_types::agent::{JoinRequest, LeaseGrant, NodeIdentity, NodeReport, RenewRequest};
use arcus_types::policy::arcus;
use arcus_types::{ImageId, RelayId};
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A console that carries nothing for so long is closed.
const CONSOLE_IDLE: Duration = Duration::from_secs(3600);
/// The largest WebSocket message that is read, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 16 << 10;
/// What a node measures its way here by, over and over.
static PROBE_PIECE: [u8; 64 << 10] = [b'0'; 64 << 10];

/// The routes of the link to the nodes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/agent/v1/ca", arcus::CA_READ, ca),
        Route::post("/agent/v1/join", arcus::NODE_JOIN, join),
        Route::post("/agent/v1/renew", arcus::NODE_RENEW, renew),
        Route::get("/agent/v1/spec", arcus::NODE_SPEC, spec),
        Route::post("/agent/v1/lease", arcus::NODE_LEASE, lease),
        Route::get("/agent/v1/probe", arcus::NODE_PROBE, probe),
        Route::post("/agent/v1/report", arcus::NODE_REPORT, report),
        Route::get("/agent/v1/images/{id}", arcus::NODE_IMAGE_READ, image_read),
        Route::put("/agent/v1/images/{id}", arcus::NODE_IMAGE_WRITE, image_write),
        Route::get("/agent/v1/relays/{id}", arcus::NODE_RELAY, relay),
        Route::get("/console/serial", arcus::CONSOLE_OPEN, console),
        Route::get("/console/vnc", arcus::CONSOLE_OPEN, console),
    ]
}

async fn ca(State(app): State<App>) -> Result<String, ApiError> {
    Ok(app.engine.authority().map_err(EngineError::from)?.ca_pem().to_owned())
}

async fn join(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(body): Json<JoinRequest>,
) -> Result<axum::Json<NodeIdentity>, ApiError> {
    Ok(axum::Json(app.engine.node_join(&ctx, &body.token, &body.name, &body.csr_pem, body.cluster.as_deref()).await?))
}

async fn renew(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(body): Json<RenewRequest>,
) -> Result<axum::Json<NodeIdentity>, ApiError> {
    Ok(axum::Json(app.engine.node_renew(&ctx, &body.csr_pem).await?))
}

async fn spec(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Response, ApiError> {
    let after = query.first("after").unwrap_or("0");
    let after = after.parse().map_err(|_| ApiError::bad_request("after must be a whole number"))?;
    let known = query.first("relays").unwrap_or("").split(',').filter_map(|id| id.parse().ok()).collect();
    Ok(match app.engine.node_spec(&ctx, after, &known).await? {
        Some(spec) => axum::Json(spec).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

async fn lease(Ctx(ctx): Ctx, State(app): State<App>) -> Result<axum::Json<LeaseGrant>, ApiError> {
    Ok(axum::Json(LeaseGrant { lease_ms: app.engine.node_lease(&ctx, std::time::Instant::now()).await? }))
}

async fn probe(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Response, ApiError> {
    let bytes = query.first("bytes").unwrap_or("1");
    let bytes = bytes.parse().map_err(|_| ApiError::bad_request("bytes must be a whole number"))?;
    let mut left = app.engine.node_probe(&ctx, bytes)?;
    let pieces = std::iter::from_fn(move || {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(PROBE_PIECE.len());
        left -= piece as u64;
        (piece > 0).then(|| Ok::<_, std::convert::Infallible>(Bytes::from_static(&PROBE_PIECE[..piece])))
    });
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    Ok(([(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

async fn report(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    LargeJson(body): LargeJson<NodeReport>,
) -> Result<StatusCode, ApiError> {
    app.engine.node_report(&ctx, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn image_read(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ImageId>) -> Result<Response, ApiError> {
    let (file, length) = app.engine.image_file_for_node(&ctx, id).await?;
    let body = Body::from_stream(tokio_util::io::ReaderStream::with_capacity(file, 256 << 10));
    let headers =
        [(header::CONTENT_LENGTH, length.to_string()), (header::CONTENT_TYPE, "application/octet-stream".into())];
    Ok((headers, body).into_response())
}

async fn image_write(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ImageId>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let stream = request.into_body().into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
    app.engine.image_fill(&ctx, id, stream).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn relay(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RelayId>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let stream = app.engine.relay_accept(&ctx, id)?.ok_or_else(|| ApiError::not_found("Relay", id))?;
    Ok(upgrade.max_message_size(MESSAGE_BYTES_MAX).on_upgrade(|socket| splice(socket, stream)))
}

/// A refusal has no body: to a client that expects a WebSocket its bytes would be the first of the screen.
async fn console(State(app): State<App>, query: Pairs, upgrade: WebSocketUpgrade) -> Result<Response, StatusCode> {
    let token = query.first("token").ok_or(StatusCode::BAD_REQUEST)?;
    let stream = app.engine.console_connect(token).await.map_err(|e| ApiError::from(e).into_response().status())?;
    let upgrade = upgrade.protocols(["binary"]).max_message_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(|socket| splice(socket, stream)))
}

/// Carries bytes both ways until one side ends or nothing moves for [`CONSOLE_IDLE`].
async fn splice(socket: WebSocket, stream: DuplexStream) {
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_stream, mut to_stream) = tokio::io::split(stream);
    let mut buffer = vec![0_u8; READ_BYTES];
    loop {
        tokio::select! {
            read = from_stream.read(&mut buffer) => {
                let Ok(length @ 1..) = read else { break };
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                if to_client.send(Message::Binary(bytes)).await.is_err() { break }
            }
            message = from_client.next() => {
                let bytes = match message {
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Text(text))) => Bytes::from(text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                };
                if to_stream.write_all(&bytes).await.is_err() { break }
            }
            () = tokio::time::sleep(CONSOLE_IDLE) => break,
        }
    }
    drop(to_client.close().await);
}

/// A node's report: larger than other bodies, for nodes with many guests.
struct LargeJson<T>(T);

/// The largest report that is read, in bytes.
const REPORT_BYTES_MAX: usize = 16 << 20;

impl<T: serde::de::DeserializeOwned, S: Sync> axum::extract::FromRequest<S> for LargeJson<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = axum::body::to_bytes(request.into_body(), REPORT_BYTES_MAX)
            .await
            .map_err(|_| ApiError::bad_request("the report ended early or is too large"))?;
        serde_json::from_slice(&bytes).map(LargeJson).map_err(|e| ApiError::bad_request(format!("bad report: {e}")))
    }
}
