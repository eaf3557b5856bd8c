//! One guest: its process, its control connection, and the task that watches both.
//!
//! ```text
//!            SHUTDOWN event / status `shutdown`            pidfd readable
//!  alive ------------------------------------> ending ------------------> ended
//!    |   kill, suspend: reason written first     ^                          ^
//!    +-------------------------------------------+     process dies         |
//!    +----------------------------------------------------------------------+
//! ```
//! The reason is on disk before the process is made to end, so that whoever finds the process gone knows why.

use super::migration::Departing;
use super::qmp::{Qmp, QmpError, QmpEvent};
use super::record::{self, Folder, MovingPart, Record};
use super::{cgroup, console, process::Process};
use crate::{EndReason, GuestChange, GuestEvent, GuestState, HypervisorError};
use arcus_types::ids::ServerId;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// How long QEMU may take to flush its disks and leave when asked to, in milliseconds; then it is killed.
const QUIT_MS_MAX: u64 = 5_000;
/// How long a killed process may take to be gone, in milliseconds; longer means that it hangs in the kernel.
const KILL_MS_MAX: u64 = 10_000;
/// How long the status may take, in milliseconds; then the last known one is told.
const STATUS_MS_MAX: u64 = 2_000;
/// How long a guard may take to note why it killed its guest, in milliseconds.
const GUARD_NOTE_MS: u64 = 200;
/// How often the logs' sizes are looked at and a lost connection is tried again, in milliseconds.
const TICK_MS: u64 = 2_000;
/// How long a connection to a QEMU that runs may take, in milliseconds.
pub const CONNECT_MS_MAX: u64 = 5_000;

/// A guest of this node that was started and not yet forgotten.
pub struct Guest {
    /// The server.
    pub server: ServerId,
    /// What is kept of it on disk.
    pub folder: Folder,
    /// Held while the serial console is given to a client.
    pub serial_turn: tokio::sync::Mutex<()>,
    /// Held while the guest agent is spoken to: it serves one at a time.
    pub agent_turn: tokio::sync::Mutex<()>,
    /// Held while the root disk is copied.
    pub copy_turn: tokio::sync::Mutex<()>,
    record: Mutex<Record>,
    /// `None` if it had ended before this driver began.
    process: Option<Process>,
    connection: Mutex<Option<Qmp>>,
    /// The status told last, for when QEMU is silent.
    last: Mutex<GuestState>,
    /// The move to another node that this driver works at.
    departing: Mutex<Option<Departing>>,
    /// Why it is being ended.
    intent: Mutex<Option<EndReason>>,
    ended: watch::Sender<Option<EndReason>>,
    events: broadcast::Sender<GuestEvent>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value under these locks is replaced whole, so a panic elsewhere cannot leave half of one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guest {
    /// A guest whose process runs. It is watched from now on, until the driver is dropped.
    pub fn alive(
        record: Record,
        folder: Folder,
        process: Process,
        connection: Option<Qmp>,
        events: broadcast::Sender<GuestEvent>,
        driver: watch::Receiver<()>,
    ) -> Arc<Self> {
        let intent = folder.ended().unwrap_or_default();
        let guest = Arc::new(Self::new(record, folder, Some(process), events));
        *lock(&guest.intent) = intent;
        *lock(&guest.connection) = connection;
        tokio::spawn(guest.clone().watch(driver));
        guest
    }

    /// A guest whose process is gone.
    pub fn gone(record: Record, folder: Folder, reason: EndReason, events: broadcast::Sender<GuestEvent>) -> Arc<Self> {
        let guest = Self::new(record, folder, None, events);
        guest.ended.send_replace(Some(reason));
        Arc::new(guest)
    }

    fn new(record: Record, folder: Folder, process: Option<Process>, events: broadcast::Sender<GuestEvent>) -> Self {
        Self {
            server: record.server,
            folder,
            serial_turn: tokio::sync::Mutex::default(),
            agent_turn: tokio::sync::Mutex::default(),
            copy_turn: tokio::sync::Mutex::default(),
            record: Mutex::new(record),
            process,
            connection: Mutex::new(None),
            last: Mutex::new(GuestState::Running),
            departing: Mutex::new(None),
            intent: Mutex::new(None),
            ended: watch::channel(None).0,
            events,
        }
    }

    /// The launch as it stands now.
    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Changes the launch and keeps it.
    ///
    /// # Errors
    /// `File`.
    pub fn record_change(&self, change: impl FnOnce(&mut Record)) -> Result<(), HypervisorError> {
        let mut record = lock(&self.record);
        change(&mut record);
        self.folder.launch_write(&record)
    }

    /// The move to another node that this driver works at.
    pub fn departing(&self) -> MutexGuard<'_, Option<Departing>> {
        lock(&self.departing)
    }

    /// Tells that its move has come further.
    pub fn moved(&self) {
        self.tell(GuestChange::Moving);
    }

    /// Why it has ended, if it has.
    pub fn ended(&self) -> Option<EndReason> {
        self.ended.borrow().clone()
    }

    /// The process's number while it lives.
    pub fn pid(&self) -> Option<u32> {
        if self.ended().is_some() { None } else { self.process.as_ref().map(|process| process.pid) }
    }

    /// The control connection.
    ///
    /// # Errors
    /// `NotRunning`, and `Silent` while the connection is lost.
    pub fn qmp(&self) -> Result<Qmp, HypervisorError> {
        if self.ended().is_some() {
            return Err(HypervisorError::NotRunning { server: self.server });
        }
        let silent =
            HypervisorError::Silent { server: self.server, command: "qmp_capabilities", limit_ms: CONNECT_MS_MAX };
        lock(&self.connection).clone().ok_or(silent)
    }

    /// Runs a control command.
    ///
    /// # Errors
    /// `NotRunning`, `Silent`, `Refused`.
    pub async fn run(&self, command: &'static str, arguments: Value) -> Result<Value, HypervisorError> {
        self.qmp()?.run(command, arguments).await.map_err(|e| self.qmp_error(command, e))
    }

    /// An error of a control command as one of this crate.
    pub fn qmp_error(&self, command: &'static str, error: QmpError) -> HypervisorError {
        let server = self.server;
        match error {
            QmpError::Refused { message, .. } => HypervisorError::Refused { server, command, message },
            QmpError::Closed if self.process.as_ref().is_none_or(Process::has_ended) => {
                HypervisorError::NotRunning { server }
            }
            QmpError::Closed => HypervisorError::Silent { server, command, limit_ms: 0 },
            QmpError::Late { limit_ms } => HypervisorError::Silent { server, command, limit_ms },
        }
    }

    /// What it does.
    pub async fn state(&self) -> GuestState {
        if let Some(reason) = self.ended() {
            return GuestState::Ended(reason);
        }
        let status = match self.qmp() {
            Ok(qmp) => qmp.run_within("query-status", json!({}), None, STATUS_MS_MAX).await.ok(),
            Err(_) => None,
        };
        let status = status.as_ref().and_then(|status| status["status"].as_str());
        let is_over = status.is_some_and(|status| over(status).is_some())
            || lock(&self.intent).is_some()
            || self.process.as_ref().is_some_and(Process::has_ended);
        if is_over {
            self.wait_ended(QUIT_MS_MAX + STATUS_MS_MAX).await;
        }
        if let Some(reason) = self.ended() {
            return GuestState::Ended(reason);
        }
        let mut last = lock(&self.last);
        let part = lock(&self.record).moving.as_ref().map(|moving| moving.part.clone());
        if let Some(state) = status.and_then(|status| state_of(status, part.as_ref())) {
            *last = state;
        }
        last.clone()
    }

    /// Ends the process for this reason, unless it is being ended for another already, and waits until it is gone.
    ///
    /// # Errors
    /// `File` if the reason cannot be kept, `WillNotEnd`.
    pub async fn end(&self, reason: EndReason) -> Result<(), HypervisorError> {
        let Some(process) = self.process.as_ref().filter(|_| self.ended().is_none()) else { return Ok(()) };
        self.intend(reason)?;
        if let Ok(qmp) = self.qmp() {
            let answer = qmp.run_within("quit", json!({}), None, QUIT_MS_MAX).await;
            // The answer may be lost in the leaving; only a QEMU that hangs is not waited for.
            if !matches!(answer, Err(QmpError::Late { .. })) {
                self.wait_ended(QUIT_MS_MAX).await;
            }
        }
        if self.ended().is_none() {
            let failed = |source| HypervisorError::System { server: self.server, action: "kill the process", source };
            process.kill().map_err(failed)?;
            self.wait_ended(KILL_MS_MAX).await;
        }
        match self.ended() {
            Some(_) => Ok(()),
            None => Err(HypervisorError::WillNotEnd { server: self.server, pid: process.pid }),
        }
    }

    fn intend(&self, reason: EndReason) -> Result<(), HypervisorError> {
        let mut intent = lock(&self.intent);
        if intent.is_none() {
            self.folder.ended_write(&reason)?;
            *intent = Some(reason);
        }
        Ok(())
    }

    async fn wait_ended(&self, limit_ms: u64) {
        let mut ended = self.ended.subscribe();
        let gone = ended.wait_for(Option::is_some);
        // The deadline is no error here: who waits looks again.
        let _ = tokio::time::timeout(Duration::from_millis(limit_ms), gone).await;
    }

    fn tell(&self, change: GuestChange) {
        // Nobody may be listening, which is no fault.
        let _ = self.events.send(GuestEvent { server: self.server, change });
    }

    /// Watches until the process or the driver ends.
    async fn watch(self: Arc<Self>, mut driver: watch::Receiver<()>) {
        let Some(process) = &self.process else { return };
        let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut events = None;
        loop {
            if events.is_none() {
                events = self.listen().await;
            }
            tokio::select! {
                () = process.ended() => return self.bury(process).await,
                _ = driver.changed() => return,
                event = next(&mut events) => self.react(event).await,
                _ = tick.tick() => self.bound_logs().await,
            }
        }
    }

    /// Listens to QEMU, connecting first if need be, and catches up with what happened while nobody listened.
    async fn listen(self: &Arc<Self>) -> Option<broadcast::Receiver<QmpEvent>> {
        let connection = lock(&self.connection).clone();
        let qmp = match connection {
            Some(qmp) if qmp.is_open() => qmp,
            _ => {
                *lock(&self.connection) = None;
                let socket = self.folder.socket("qmp.sock").ok()?;
                let connect = Qmp::connect(socket.path());
                let process = self.process.as_ref()?;
                tokio::select! {
                    () = process.ended() => return None,
                    () = tokio::time::sleep(Duration::from_millis(STATUS_MS_MAX)) => return None,
                    qmp = connect => qmp.ok()?,
                }
            }
        };
        let events = qmp.events();
        *lock(&self.connection) = Some(qmp.clone());
        let status = qmp.run_within("query-status", json!({}), None, STATUS_MS_MAX).await.ok()?;
        let intended = lock(&self.intent).clone();
        if let Some(reason) = intended.or_else(|| over(status["status"].as_str().unwrap_or_default())) {
            self.end_soon(reason);
        }
        Some(events)
    }

    async fn react(self: &Arc<Self>, event: QmpEvent) {
        match event.name.as_str() {
            "SHUTDOWN" if event.data["guest"] == true => {
                let reason = over(match event.data["reason"].as_str() {
                    Some("guest-panic") => "guest-panicked",
                    _ => "shutdown",
                });
                self.end_soon(reason.unwrap_or(EndReason::PoweredOff));
            }
            "GUEST_PANICKED" => self.end_soon(crashed("the guest's kernel panicked")),
            "STOP" => self.tell(GuestChange::Paused),
            "RESUME" => self.tell(GuestChange::Resumed),
            "RESET" => self.tell(GuestChange::Reset),
            "MIGRATION" => self.tell(GuestChange::Moving),
            "BLOCK_IO_ERROR" => {
                let (server, reason) = (self.server, event.data["reason"].as_str().unwrap_or_default());
                tracing::warn!(server.id = %server, reason, "a disk of a guest failed");
                self.tell(GuestChange::StorageFault);
            }
            // Not news: events of jobs and devices are awaited by those who started them.
            _ => {}
        }
    }

    /// Ends the process without holding up the watcher, which must see it end.
    fn end_soon(self: &Arc<Self>, reason: EndReason) {
        let guest = self.clone();
        tokio::spawn(async move {
            if let Err(error) = guest.end(reason).await {
                tracing::error!(server.id = %guest.server, %error, "a guest that is over could not be ended");
            }
        });
    }

    async fn bound_logs(&self) {
        let folder = self.folder.clone();
        let done = tokio::task::spawn_blocking(move || console::bound(&folder)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(server.id = %self.server, %error, "a guest's logs could not be cut");
        }
    }

    /// The process is gone: finds out why, keeps it and tells it.
    async fn bury(&self, process: &Process) {
        let status = process.reap();
        let groups = lock(&self.record).groups.clone();
        let mut reason = lock(&self.intent).clone();
        if reason.is_none() && lock(&self.record).lease.is_some() {
            // Its guard kills first and notes why afterwards: nothing may hold up the killing.
            tokio::time::sleep(Duration::from_millis(GUARD_NOTE_MS)).await;
            reason = self.folder.ended().unwrap_or_default();
        }
        let reason = reason.unwrap_or_else(|| {
            crashed(&death_notice(status.as_deref(), cgroup::ran_out_of_memory(&groups), &self.folder))
        });
        cgroup::remove(&groups).await;
        if let Err(error) = self.folder.ended_write(&reason) {
            tracing::warn!(server.id = %self.server, %error, "why a guest ended could not be kept");
        }
        tracing::info!(server.id = %self.server, process.id = process.pid, ?reason, "a guest ended");
        *lock(&self.connection) = None;
        self.ended.send_replace(Some(reason.clone()));
        self.tell(GuestChange::Ended(reason));
    }
}

/// The next event; waits for ever while there is no connection, and takes the receiver away when it closes.
async fn next(events: &mut Option<broadcast::Receiver<QmpEvent>>) -> QmpEvent {
    loop {
        let Some(receiver) = events else { return std::future::pending().await };
        match receiver.recv().await {
            Ok(event) => return event,
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => *events = None,
        }
    }
}

/// The reason that a run state of QEMU's means the end for, if so.
fn over(status: &str) -> Option<EndReason> {
    match status {
        "shutdown" => Some(EndReason::PoweredOff),
        "guest-panicked" => Some(crashed("the guest's kernel panicked")),
        "internal-error" => Some(crashed("the virtual CPU met a state that it cannot run")),
        _ => None,
    }
}

/// The guest's state in a run state of QEMU's; `None` for one that is over or unknown.
fn state_of(status: &str, moving: Option<&MovingPart>) -> Option<GuestState> {
    match (status, moving) {
        ("postmigrate", Some(MovingPart::Source)) => return Some(GuestState::Moved),
        ("inmigrate", Some(MovingPart::Destination { .. })) => return Some(GuestState::Arriving),
        _ => {}
    }
    match status {
        "running" => Some(GuestState::Running),
        "paused" | "prelaunch" | "io-error" | "inmigrate" | "finish-migrate" | "postmigrate" | "save-vm"
        | "restore-vm" | "debug" | "watchdog" | "suspended" => Some(GuestState::Paused),
        _ => None,
    }
}

fn crashed(details: &str) -> EndReason {
    EndReason::Crashed { details: details.to_owned() }
}

fn death_notice(status: Option<&str>, out_of_memory: bool, folder: &Folder) -> String {
    let mut notice = status.unwrap_or("QEMU is gone, and was not our child to learn how").to_owned();
    if out_of_memory {
        notice.push_str("; the kernel ended it because its memory limit was reached");
    }
    let words = console::own_words(folder);
    if !words.is_empty() {
        notice.push_str("; its last words: ");
        notice.push_str(&words);
    }
    notice
}

/// Why a guest that was found without a process is gone.
pub fn reason_of_gone(record: &Record, folder: &Folder) -> EndReason {
    match folder.ended() {
        Ok(Some(reason)) => reason,
        _ if record.boot_id != record::boot_id() => crashed("the node was restarted"),
        _ => crashed(&death_notice(None, cgroup::ran_out_of_memory(&record.groups), folder)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_from_a_newer_qemu_changes_nothing() {
        assert_eq!(state_of("brand-new", None), None);
        assert_eq!(over("brand-new"), None);
        assert_eq!(state_of("io-error", None), Some(GuestState::Paused));
        assert_eq!(state_of("postmigrate", None), Some(GuestState::Paused));
        assert_eq!(state_of("postmigrate", Some(&MovingPart::Source)), Some(GuestState::Moved));
    }
}
