//! The guest agent (qemu-ga) inside a guest. It belongs to the guest, so nothing it says is trusted and nothing waits
//! for it longer than told.

use super::guest::Guest;
use super::qmp::line_read;
use crate::HypervisorError;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long the agent may take to show that it is there, in milliseconds.
pub const ANSWER_MS_MAX: u64 = 2_000;

/// How long a command that does not answer may take to be refused, in milliseconds.
const REFUSAL_MS_MAX: u64 = 300;

/// The mark that begins an answer to `guest-sync-delimited`; it occurs in no JSON text.
const MARK: u8 = 0xff;

/// How many bytes of old answers are passed over before the mark, at most.
const STALE_BYTES_MAX: u64 = 1024 * 1024;

/// Runs a command of the agent's. `answers` tells whether it answers when it succeeds: `guest-shutdown` does not.
///
/// # Errors
/// `NotRunning`, `Silent`, and `NoGuestAgent` if there is none, it is silent or refuses.
pub async fn call(
    guest: &Guest,
    command: &'static str,
    arguments: Value,
    limit_ms: u64,
    answers: bool,
) -> Result<Value, HypervisorError> {
    let _turn = guest.agent_turn.lock().await;
    let silent = |reason: &str| HypervisorError::NoGuestAgent { server: guest.server, reason: reason.to_owned() };
    if !listens(guest).await? {
        return Err(silent("none runs in the guest"));
    }
    let exchange = async {
        let stream = UnixStream::connect(guest.folder.socket("agent.sock")?.path()).await?;
        let mut stream = BufReader::new(stream);
        tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), synchronise(&mut stream)).await??;
        send(&mut stream, json!({ "execute": command, "arguments": arguments })).await?;
        let line = if answers {
            line_read(&mut stream).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?
        } else {
            match tokio::time::timeout(Duration::from_millis(REFUSAL_MS_MAX), line_read(&mut stream)).await {
                Ok(Ok(Some(line))) => line,
                Ok(_) | Err(_) => return Ok(json!({ "return": {} })),
            }
        };
        std::io::Result::Ok(serde_json::from_slice::<Value>(&line)?)
    };
    let limit = Duration::from_millis(ANSWER_MS_MAX + limit_ms);
    let mut answer = match tokio::time::timeout(limit, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) if e.kind() != std::io::ErrorKind::TimedOut => return Err(silent(&e.to_string())),
        Ok(Err(_)) | Err(_) => return Err(silent("it does not answer")),
    };
    match answer["error"]["desc"].as_str() {
        Some(refusal) => Err(silent(refusal)),
        None => Ok(answer["return"].take()),
    }
}

/// Whether a program in the guest has opened the agent's port.
async fn listens(guest: &Guest) -> Result<bool, HypervisorError> {
    let devices = guest.run("query-chardev", json!({})).await?;
    let port = devices.as_array().into_iter().flatten().find(|device| device["label"] == "agent0");
    Ok(port.is_some_and(|port| port["frontend-open"] == true))
}

async fn send(stream: &mut BufReader<UnixStream>, command: Value) -> std::io::Result<()> {
    let mut line = command.to_string();
    line.push('\n');
    stream.write_all(line.as_bytes()).await
}

/// Passes over what an earlier conversation left behind.
async fn synchronise(stream: &mut BufReader<UnixStream>) -> std::io::Result<()> {
    let id = u64::from(uuid::Uuid::new_v4().as_fields().0);
    send(stream, json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } })).await?;
    loop {
        let mut stale = Vec::new();
        (&mut *stream).take(STALE_BYTES_MAX).read_until(MARK, &mut stale).await?;
        if stale.last() != Some(&MARK) {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line_read(stream).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        if serde_json::from_slice::<Value>(&line).is_ok_and(|answer| answer["return"] == id) {
            return Ok(());
        }
    }
}
