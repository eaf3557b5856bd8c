//! QEMU's control protocol: one JSON object a line, commands answered by id, events in between.
//!
//! Replies and events are read leniently: what is not known is passed over, for QEMU gains values and events with every
//! release. Every command has a deadline. QEMU serves one client at a time and lets the next in when this one is gone.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, oneshot};

/// How long an ordinary command may take, in milliseconds. QEMU answers within one unless the machine is overloaded.
pub const COMMAND_MS_MAX: u64 = 10_000;

/// The longest line that is read, in bytes; the longest known one, the schema, has some 200 KiB.
const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How many events a slow listener may lag behind before it loses some.
const EVENTS_MAX: usize = 256;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU refused it.
    #[error("{message}")]
    Refused {
        /// The error class, such as `GenericError`.
        class: String,
        /// QEMU's words.
        message: String,
    },
    /// The connection is gone.
    #[error("the control connection is closed")]
    Closed,
    /// There was no answer in time.
    #[error("no answer within {limit_ms} ms")]
    Late {
        /// How long we waited, in milliseconds.
        limit_ms: u64,
    },
}

/// Something that QEMU tells unasked.
#[derive(Debug, Clone)]
pub struct QmpEvent {
    /// Its name, such as `SHUTDOWN`.
    pub name: String,
    /// What comes with it; null if nothing.
    pub data: Value,
}

/// A connection to one QEMU, ready for commands. Clones share it; it closes with the last one.
#[derive(Clone)]
pub struct Qmp {
    shared: Arc<Shared>,
    events: broadcast::WeakSender<QmpEvent>,
}

struct Shared {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    pending: Arc<Mutex<Pending>>,
    next_id: AtomicU64,
    reader: tokio::task::AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Who waits for which answer; `None` once the connection is gone.
type Pending = Option<HashMap<u64, oneshot::Sender<Result<Value, QmpError>>>>;

/// Any line of QEMU's.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<LineError>,
    id: Option<Value>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct LineError {
    #[serde(default)]
    class: String,
    #[serde(default)]
    desc: String,
}

impl Qmp {
    /// Connects and negotiates; waits as long as QEMU has not yet begun to serve, so bound it by a deadline.
    ///
    /// # Errors
    /// The socket's, and `InvalidData` if what answers is not QEMU.
    pub async fn connect(socket: &Path) -> io::Result<Self> {
        let (reader, writer) = UnixStream::connect(socket).await?.into_split();
        let mut reader = BufReader::new(reader);
        let greeting = line_read(&mut reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let greeting: Value = serde_json::from_slice(&greeting)?;
        if greeting.get("QMP").is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no QMP greeting"));
        }
        let pending = Arc::new(Mutex::new(Some(HashMap::new())));
        let events = broadcast::channel(EVENTS_MAX).0;
        let weak = events.downgrade();
        // The reader owns the only sender, so that listeners see the end when it ends.
        let task = tokio::spawn(read_lines(reader, pending.clone(), events));
        let shared = Shared {
            writer: tokio::sync::Mutex::new(writer),
            pending,
            next_id: AtomicU64::new(1),
            reader: task.abort_handle(),
        };
        let qmp = Self { shared: Arc::new(shared), events: weak };
        qmp.run("qmp_capabilities", json!({})).await.map_err(io::Error::other)?;
        Ok(qmp)
    }

    /// Whether the other end is still there, as far as is known.
    pub fn is_open(&self) -> bool {
        lock(&self.shared.pending).is_some()
    }

    /// What QEMU tells from now on; ends with the connection.
    pub fn events(&self) -> broadcast::Receiver<QmpEvent> {
        match self.events.upgrade() {
            Some(sender) => sender.subscribe(),
            // A receiver whose sender is gone: it tells the end at once.
            None => broadcast::channel(1).1,
        }
    }

    /// Runs a command with the ordinary deadline.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn run(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.run_within(command, arguments, None, COMMAND_MS_MAX).await
    }

    /// Runs a command that takes a descriptor along.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn run_with_fd(&self, command: &str, arguments: Value, fd: OwnedFd) -> Result<Value, QmpError> {
        self.run_within(command, arguments, Some(fd), COMMAND_MS_MAX).await
    }

    /// Runs a command with a deadline of its own.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn run_within(
        &self,
        command: &str,
        arguments: Value,
        fd: Option<OwnedFd>,
        limit_ms: u64,
    ) -> Result<Value, QmpError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, wait) = oneshot::channel();
        match lock(&self.shared.pending).as_mut() {
            Some(pending) => pending.insert(id, answer),
            None => return Err(QmpError::Closed),
        };
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        let deadline = tokio::time::Instant::now() + Duration::from_millis(limit_ms);
        let result = match tokio::time::timeout_at(deadline, self.write(line.as_bytes(), fd)).await {
            Ok(Ok(())) => match tokio::time::timeout_at(deadline, wait).await {
                Ok(answer) => answer.unwrap_or(Err(QmpError::Closed)),
                Err(_) => Err(QmpError::Late { limit_ms }),
            },
            Ok(Err(_)) => Err(QmpError::Closed),
            Err(_) => {
                // Half a line may have left: what follows it would not be understood.
                self.shared.reader.abort();
                Err(QmpError::Late { limit_ms })
            }
        };
        if let Some(pending) = lock(&self.shared.pending).as_mut() {
            pending.remove(&id);
        }
        result
    }

    async fn write(&self, line: &[u8], fd: Option<OwnedFd>) -> io::Result<()> {
        let mut writer = self.shared.writer.lock().await;
        let mut sent = 0;
        if let Some(fd) = fd {
            let stream = writer.as_ref();
            let send = || send_with_fd(stream.as_raw_fd(), line, &fd);
            sent = stream.async_io(Interest::WRITABLE, send).await?;
        }
        writer.write_all(&line[sent..]).await
    }
}

fn send_with_fd(socket: i32, line: &[u8], fd: &OwnedFd) -> io::Result<usize> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Ok(sendmsg::<()>(socket, &[IoSlice::new(line)], &rights, flags, None)?)
}

/// One line without its end; `None` at the end of the stream.
///
/// # Errors
/// The stream's, and `InvalidData` for a line that is too long.
pub async fn line_read(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let length = reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if length as u64 == LINE_BYTES_MAX => Err(io::Error::new(io::ErrorKind::InvalidData, "line too long")),
        Some(_) => Ok(None),
    }
}

async fn read_lines(
    mut reader: BufReader<OwnedReadHalf>,
    pending: Arc<Mutex<Pending>>,
    events: broadcast::Sender<QmpEvent>,
) {
    let _close = CloseOnDrop(pending.clone());
    while let Ok(Some(bytes)) = line_read(&mut reader).await {
        let Ok(line) = serde_json::from_slice::<Line>(&bytes) else {
            tracing::debug!(bytes = bytes.len(), "a line of QEMU's was passed over");
            continue;
        };
        if let Some(name) = line.event {
            // Nobody may be listening, which is no fault.
            let _ = events.send(QmpEvent { name, data: line.data });
            continue;
        }
        let Some(id) = line.id.as_ref().and_then(Value::as_u64) else { continue };
        let Some(answer) = lock(&pending).as_mut().and_then(|p| p.remove(&id)) else { continue };
        let result = match line.error {
            Some(LineError { class, desc }) => Err(QmpError::Refused { class, message: desc }),
            None => Ok(line.value.unwrap_or_default()),
        };
        // The one who asked may have stopped waiting.
        let _ = answer.send(result);
    }
}

/// Lets everyone who waits for an answer know that none will come, also when the reader is aborted.
struct CloseOnDrop(Arc<Mutex<Pending>>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        *lock(&self.0) = None;
    }
}

fn lock(pending: &Mutex<Pending>) -> std::sync::MutexGuard<'_, Pending> {
    // Nothing that runs under the lock leaves the map half changed.
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    const GREETING: &str =
        r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}"#;

    /// A QEMU that greets, accepts the negotiation, and then sends the given lines for the next command.
    async fn fake(lines: &'static str) -> Qmp {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            stream.write_all(format!("{GREETING}\r\n").as_bytes()).await.unwrap();
            line_read(&mut stream).await.unwrap();
            stream.write_all(b"{\"return\": {}, \"id\": 1}\r\n").await.unwrap();
            line_read(&mut stream).await.unwrap();
            stream.write_all(lines.as_bytes()).await.unwrap();
            line_read(&mut stream).await.unwrap();
        });
        let qmp = Qmp::connect(&path).await.unwrap();
        drop(folder);
        qmp
    }

    #[tokio::test]
    async fn unknown_events_keys_and_broken_lines_do_not_end_the_stream() {
        let qmp = fake(concat!(
            "{\"event\": \"FROM_THE_FUTURE\", \"data\": {\"x\": [1]}, \"news\": 1}\n",
            "not json\n",
            "{\"return\": {\"late\": true}, \"id\": 99}\n",
            "{\"return\": {\"status\": \"brand-new-state\"}, \"id\": 2, \"more\": {}}\n",
        ))
        .await;
        let mut events = qmp.events();
        let answer = qmp.run("query-status", json!({})).await.unwrap();
        assert_eq!(answer["status"], "brand-new-state");
        assert_eq!(events.recv().await.unwrap().name, "FROM_THE_FUTURE");
    }

    #[tokio::test]
    async fn a_refusal_carries_the_words_of_qemu() {
        let qmp = fake("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such device\"}, \"id\": 2}\n").await;
        let error = qmp.run("device_del", json!({"id": "x"})).await.unwrap_err();
        assert_eq!(error.to_string(), "no such device");
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline_and_a_closed_connection_at_once() {
        let qmp = fake("").await;
        let late = qmp.run_within("stop", json!({}), None, 50).await.unwrap_err();
        assert!(matches!(late, QmpError::Late { limit_ms: 50 }), "{late}");
        let closed = qmp.run("cont", json!({})).await.unwrap_err();
        assert!(matches!(closed, QmpError::Closed), "{closed}");
        assert!(qmp.events().recv().await.is_err());
    }
}
