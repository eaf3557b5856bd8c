//! The node's end of byte streams between clients and guests' devices.

use crate::chain;
use crate::node::Shared;
use arcus_types::agent::{RelayKind, RelaySpec};
use futures_util::{SinkExt, StreamExt};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{Bytes, Message};

const READ_BYTES: usize = 16 << 10;
/// The largest piece of a console log that is sent at once, in bytes.
const LOG_PIECE_BYTES: usize = 64 << 10;

/// Carries one byte stream to its end.
pub(crate) async fn carry(shared: Arc<Shared>, relay: RelaySpec) {
    let socket = match shared.link.relay(relay.id).await {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(relay.id = %relay.id, error = chain(&error), "nobody waits for this byte stream");
            return;
        }
    };
    let (mut to_server, mut from_server) = socket.split();
    let hypervisor = &shared.drivers.hypervisor;
    let opened = match relay.kind {
        RelayKind::Serial => hypervisor.serial(relay.server_id).await,
        RelayKind::Vnc => hypervisor.vnc(relay.server_id).await,
        RelayKind::ConsoleLog { bytes_max } => {
            match hypervisor.console_log(relay.server_id, bytes_max).await {
                Ok(log) => {
                    for piece in log.chunks(LOG_PIECE_BYTES) {
                        if to_server.send(Message::Binary(Bytes::copy_from_slice(piece))).await.is_err() {
                            break;
                        }
                    }
                }
                Err(error) => tracing::warn!(server.id = %relay.server_id, error = chain(&error), "no console log"),
            }
            drop(to_server.close().await);
            return;
        }
        RelayKind::Appraisal => {
            let told = hypervisor.appraise(relay.server_id).await;
            match told.map(|appraisal| serde_json::to_vec(&appraisal)) {
                Ok(Ok(text)) => drop(to_server.send(Message::Binary(text.into())).await),
                Ok(Err(error)) => tracing::warn!(server.id = %relay.server_id, %error, "no appraisal"),
                Err(error) => tracing::warn!(server.id = %relay.server_id, error = chain(&error), "no appraisal"),
            }
            drop(to_server.close().await);
            return;
        }
    };
    let stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            let text = format!("\r\narcus: this console cannot be opened: {error}\r\n");
            drop(to_server.send(Message::Binary(text.into_bytes().into())).await);
            drop(to_server.close().await);
            return;
        }
    };
    let (mut from_guest, mut to_guest) = stream.into_split();
    let mut buffer = vec![0_u8; READ_BYTES];
    loop {
        tokio::select! {
            read = from_guest.read(&mut buffer) => {
                let Ok(length @ 1..) = read else { break };
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                if to_server.send(Message::Binary(bytes)).await.is_err() { break }
            }
            message = from_server.next() => {
                let bytes = match message {
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Text(text))) => Bytes::from(text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                };
                if to_guest.write_all(&bytes).await.is_err() { break }
            }
        }
    }
    drop(to_server.close().await);
}
