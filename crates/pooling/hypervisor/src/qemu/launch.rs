//! Starting a guest, and finding one again.
//!
//! Order matters: record, control groups, process (which writes its identity before it becomes QEMU), control connection,
//! memory image, `begun` in the record, first instruction. An agent that dies in between leaves a process that has not
//! run; the next agent ends it and starts afresh.

use super::arguments::{self, Fds};
use super::guest::{CONNECT_MS_MAX, Guest, reason_of_gone};
use super::host::{self, Host};
use super::process::{self, Process, Spawn};
use super::qmp::Qmp;
use super::record::{self, Folder, NicRecord, Record};
use super::{Inner, cgroup, console, disk_copy, memory_image, migration, volumes};
use crate::{Arrival, EndReason, HypervisorError, Launch};
use arcus_types::ids::ServerId;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long QEMU may take from its start to its first answer, in milliseconds: some 200 on an idle machine.
const GREETING_MS_MAX: u64 = 60_000;

/// Starts a guest, or a machine that waits for one; returns when its virtual CPUs run, or when it waits.
///
/// # Errors
/// See [`crate::Hypervisor::start`] and [`crate::Hypervisor::receive`].
pub async fn start(driver: &Inner, launch: Launch, arrival: Option<Arrival>) -> Result<Arc<Guest>, HypervisorError> {
    let host = driver.host().await?;
    let folder = Folder::of(&driver.config.folder, launch.server);
    let mut record = record_of(&launch, &host);
    let unlike = arrival.as_ref().and_then(|arrival| migration::take_after(&mut record, arrival));
    if let Some(reason) = unlike.or_else(|| arguments::refuse(&record)) {
        return Err(HypervisorError::LaunchRefused { server: launch.server, reason });
    }
    end_leftover(&folder).await?;
    folder.prepare()?;
    let limits = cgroup::Limits::of(&record.hardware, arguments::translation_mib(&record));
    record.groups = match driver.hierarchy.create(&driver.config.tag, launch.server, &limits) {
        Ok(groups) => groups,
        Err(error) => {
            driver.warn_of_groups(&error.to_string());
            Vec::new()
        }
    };
    let started = start_process(driver, &host, &folder, &mut record, launch, arrival).await;
    if started.is_err() {
        cgroup::remove(&record.groups).await;
        record::remove_file(&folder.file("launch.json"))?;
    }
    started
}

fn record_of(launch: &Launch, host: &Host) -> Record {
    let nics = launch.nics.iter().zip(0..);
    let nics = nics.map(|(nic, slot)| NicRecord { port: nic.port, mac: nic.mac, mtu: nic.mtu, slot }).collect();
    Record {
        server: launch.server,
        epoch: launch.epoch,
        version: launch.version,
        hardware: launch.hardware.clone(),
        uid: launch.uid,
        disks: launch.disks.clone(),
        volumes: launch.volumes.clone(),
        volume_slots: arguments::volume_slots(launch.hardware.devices, &launch.volumes),
        nics,
        nic_slots: arguments::nic_slots(launch.hardware.devices, launch.nics.len()),
        machine: host.facts.machine.clone(),
        accel: host.facts.accel.clone(),
        cpu_model: host.facts.cpu_model.clone(),
        boot_id: record::boot_id(),
        groups: Vec::new(),
        begun: false,
        movable: true,
        lease: launch.lease.clone(),
        moving: None,
    }
}

/// Ends a process of an earlier launch that never ran; refuses if it may have run.
async fn end_leftover(folder: &Folder) -> Result<(), HypervisorError> {
    let Some(record) = folder.launch()? else { return Ok(()) };
    let server = record.server;
    let found = Process::find(&folder.process());
    let found = found.map_err(|source| HypervisorError::System { server, action: "look for a process", source })?;
    match found {
        Some(_) if record.begun => Err(HypervisorError::AlreadyRuns { server }),
        Some(process) => end_unbegun(&record, &process).await,
        None => {
            cgroup::remove(&record.groups).await;
            Ok(())
        }
    }
}

async fn end_unbegun(record: &Record, process: &Process) -> Result<(), HypervisorError> {
    let server = record.server;
    process.kill().map_err(|source| HypervisorError::System { server, action: "kill the process", source })?;
    let limit = Duration::from_millis(CONNECT_MS_MAX);
    let gone = tokio::time::timeout(limit, process.ended()).await;
    gone.map_err(|_| HypervisorError::WillNotEnd { server, pid: process.pid })?;
    process.reap();
    cgroup::remove(&record.groups).await;
    Ok(())
}

async fn start_process(
    driver: &Inner,
    host: &Host,
    folder: &Folder,
    record: &mut Record,
    launch: Launch,
    arrival: Option<Arrival>,
) -> Result<Arc<Guest>, HypervisorError> {
    folder.launch_write(record)?;
    let resume_from = launch.resume_from.clone();
    let process = spawn(driver, host, folder, record, launch)?;
    match bring_up(folder, record, &process, resume_from.as_deref(), arrival.as_ref()).await {
        Ok(qmp) => {
            let guest = Guest::alive(
                record.clone(),
                folder.clone(),
                process,
                Some(qmp.clone()),
                driver.events.clone(),
                driver.alive.subscribe(),
            );
            // From here on the guest may have run, so that it is no longer undone. Should QEMU refuse to let it go on, it
            // is a paused guest, which is what its state says.
            if arrival.is_none()
                && let Err(error) = qmp.run("cont", json!({})).await
            {
                tracing::warn!(server.id = %record.server, %error, "a guest was started, but does not run yet");
            }
            Ok(guest)
        }
        Err(failure) => {
            end_unbegun(record, &process).await?;
            Err(failure)
        }
    }
}

fn spawn(
    driver: &Inner,
    host: &Host,
    folder: &Folder,
    record: &Record,
    launch: Launch,
) -> Result<Process, HypervisorError> {
    let listen = |name: &str| {
        let bound = folder.socket(name).and_then(|socket| UnixListener::bind(socket.path()));
        bound.map(OwnedFd::from).map_err(|e| record::error("listen on", &folder.file(name), e))
    };
    let open = |name: &str| {
        let path = folder.file(name);
        console::open(&path).map_err(|e| record::error("open", &path, e))
    };
    let (qmp, serial, agent) = (listen("qmp.sock")?, listen("serial.sock")?, listen("agent.sock")?);
    let console_log = OwnedFd::from(open("console.log")?);
    let taps: Vec<OwnedFd> = launch.nics.into_iter().map(|nic| nic.tap).collect();
    let fds = Fds {
        qmp: qmp.as_raw_fd(),
        serial: serial.as_raw_fd(),
        agent: agent.as_raw_fd(),
        console_log: console_log.as_raw_fd(),
        taps: taps.iter().map(AsRawFd::as_raw_fd).collect::<Vec<RawFd>>(),
    };
    let mut inherited = vec![qmp, serial, agent, console_log];
    inherited.extend(taps);
    let server = record.server;
    let system = |action| move |source| HypervisorError::System { server, action, source };
    let incoming = launch.resume_from.is_some() || record.moving.is_some();
    let arguments = arguments::arguments(record, &fds, incoming);
    tracing::debug!(server.id = %server, ?arguments, "QEMU is started");
    process::spawn(Spawn {
        program: &driver.config.qemu,
        arguments,
        uid: record.uid,
        extra_group: host.kvm_group,
        inherited,
        group_joins: cgroup::joins(&record.groups).map_err(system("open its control groups"))?,
        identity: identity_file(&folder.file("process"))?,
        guarded: record.lease.clone().map(|lease| (lease, folder.file("ended.json"))),
        log: open("qemu.log")?,
    })
    .map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => host::missing(&driver.config.qemu),
        io::ErrorKind::PermissionDenied => HypervisorError::Unsuitable {
            reason: "guests run under users of their own, which only root may start; run the agent as root".to_owned(),
        },
        _ => system("start QEMU")(e),
    })
}

fn identity_file(path: &Path) -> Result<File, HypervisorError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).open(path).map_err(|e| record::error("create", path, e))
}

/// From the process's start to where the next command lets the guest run.
async fn bring_up(
    folder: &Folder,
    record: &mut Record,
    process: &Process,
    resume_from: Option<&Path>,
    arrival: Option<&Arrival>,
) -> Result<Qmp, HypervisorError> {
    let server = record.server;
    let failed = |reason: String, transient| HypervisorError::StartFailed { server, reason, transient };
    let socket = folder.socket("qmp.sock").map_err(|e| record::error("connect to", &folder.file("qmp.sock"), e))?;
    let qmp = tokio::select! {
        qmp = Qmp::connect(socket.path()) => qmp,
        () = process.ended() => {
            let (reason, transient) = explain(process.reap(), folder, record);
            return Err(failed(reason, transient));
        }
        () = tokio::time::sleep(Duration::from_millis(GREETING_MS_MAX)) => {
            return Err(failed(format!("QEMU is silent {GREETING_MS_MAX} ms after its start"), true));
        }
    };
    let qmp = match qmp {
        Ok(qmp) => qmp,
        Err(error) => {
            // QEMU closes its sockets a moment before it is gone; its words say more than the closed socket.
            let _ = tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), process.ended()).await;
            if !process.has_ended() {
                return Err(failed(error.to_string(), true));
            }
            let (reason, transient) = explain(process.reap(), folder, record);
            return Err(failed(reason, transient));
        }
    };
    for volume in record.volumes.iter().filter(|volume| !volume.qos.is_unlimited()) {
        let limits = volumes::limits(record.hardware.devices, volume, &volume.qos);
        let limited = qmp.run("block_set_io_throttle", limits).await;
        limited.map_err(|error| failed(format!("volume {} cannot be limited: {error}", volume.volume), false))?;
    }
    if let Some(image) = resume_from {
        memory_image::load(&qmp, server, image).await?;
    }
    if let Some(arrival) = arrival {
        // From then on the guest may come and run at any moment.
        migration::listen(&qmp, folder, record, arrival).await?;
    }
    record.begun = true;
    folder.launch_write(record)?;
    Ok(qmp)
}

/// Why QEMU left at once, in words that help, and whether it may be otherwise later.
fn explain(status: Option<String>, folder: &Folder, record: &Record) -> (String, bool) {
    let words = console::own_words(folder);
    let status = status.unwrap_or_default();
    let (hint, transient) = if words.contains("Cannot allocate memory") || words.contains("cannot set up guest memory")
    {
        ("the node has too little free memory: ".to_owned(), true)
    } else if words.contains("Failed to get \"write\" lock") || words.contains("Failed to get shared \"write\" lock") {
        ("another process has the disk open: ".to_owned(), true)
    } else if words.contains("Permission denied") {
        (format!("user {} may not open a file that the guest needs: ", record.uid), false)
    } else if words.contains("No such file or directory") {
        ("a file that the guest needs is missing: ".to_owned(), false)
    } else {
        (String::new(), false)
    };
    (format!("{hint}{status}: {words}"), transient)
}

/// Gives up what an agent had begun with a guest when it died.
async fn tidy_up(guest: Arc<Guest>) {
    disk_copy::clear(&guest).await;
    if guest.record().moving.is_some() {
        return migration::adopted(&guest).await;
    }
    // Does nothing unless memory was being saved; the guest stands still then, until the agent's next pass resumes it.
    if let Err(error) = guest.run("migrate_cancel", json!({})).await {
        tracing::debug!(server.id = %guest.server, %error, "there was nothing to tidy up");
    }
}

/// Removes all that is kept of a guest without a process.
///
/// # Errors
/// `AlreadyRuns`, `WillNotEnd`, `File`.
pub async fn forget(folder: &Folder, server: ServerId) -> Result<(), HypervisorError> {
    // Looked up on disk as well: a guest whose adoption failed is not known to the driver.
    match end_leftover(folder).await {
        Err(HypervisorError::File { source, .. }) if unreadable(&source) => {
            let process = Process::find(&folder.process());
            let process =
                process.map_err(|source| HypervisorError::System { server, action: "look for a process", source })?;
            if process.is_some() {
                return Err(HypervisorError::AlreadyRuns { server });
            }
        }
        other => other?,
    }
    folder.remove()
}

/// Whether a file is there but does not hold what it should.
fn unreadable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Finds every guest of the folder again.
///
/// # Errors
/// `File` if the folder cannot be read. A single guest's trouble is logged and does not keep the others from being found.
pub async fn adopt(driver: &Inner) -> Result<Vec<Arc<Guest>>, HypervisorError> {
    let folder = &driver.config.folder;
    let entries = std::fs::read_dir(folder).map_err(|e| record::error("read", folder, e))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| record::error("read", folder, e))?;
        let Some(server) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let one = Folder::of(folder, server);
        match adopt_one(driver, &one).await {
            Ok(guest) => found.extend(guest),
            Err(error) => tracing::error!(server.id = %server, %error, "a guest's record cannot be used"),
        }
    }
    Ok(found)
}

async fn adopt_one(driver: &Inner, folder: &Folder) -> Result<Option<Arc<Guest>>, HypervisorError> {
    let Some(record) = folder.launch()? else { return Ok(None) };
    let server = record.server;
    let process = Process::find(&folder.process());
    let process = process.map_err(|source| HypervisorError::System { server, action: "look for a process", source })?;
    let events = driver.events.clone();
    match process {
        Some(process) if !record.begun => {
            end_unbegun(&record, &process).await?;
            record::remove_file(&folder.file("launch.json"))?;
            Ok(None)
        }
        Some(process) => {
            let qmp = match folder.socket("qmp.sock") {
                Ok(socket) => {
                    tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), Qmp::connect(socket.path())).await.ok()
                }
                Err(_) => None,
            };
            // A QEMU that is silent now is tried again by its watcher; the guest itself may be well.
            let qmp = qmp.and_then(Result::ok);
            tracing::info!(server.id = %server, process.id = process.pid, answers = qmp.is_some(), "a guest was found again");
            let guest = Guest::alive(record, folder.clone(), process, qmp, events, driver.alive.subscribe());
            tokio::spawn(tidy_up(guest.clone()));
            Ok(Some(guest))
        }
        None if !record.begun => {
            cgroup::remove(&record.groups).await;
            record::remove_file(&folder.file("launch.json"))?;
            Ok(None)
        }
        None => {
            let reason: EndReason = reason_of_gone(&record, folder);
            cgroup::remove(&record.groups).await;
            folder.ended_write(&reason)?;
            Ok(Some(Guest::gone(record, folder.clone(), reason, events)))
        }
    }
}
