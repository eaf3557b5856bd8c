//! A node's folders, disks and guests for one test. Whatever a test does, no process and no control group outlives it.

use arcus_hypervisor::{DiskAttachment, GuestEvent, GuestState, Hypervisor, Launch, QemuConfig, QemuHypervisor};
use arcus_types::agent::{DeviceModel, DiskFormat, HardwareSpec};
use arcus_types::ids::ServerId;
use std::fs::Permissions;
use std::future::Future;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;

/// A user that no machine names.
pub const UID: u32 = 0x6000_0fff;

/// How long a guest may take for what a test waits for; some twenty times what an idle machine needs.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Node {
    pub root: tempfile::TempDir,
    pub tag: String,
}

impl Node {
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("arcus-hv-").tempdir().unwrap();
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o711)).unwrap();
        let tag = ServerId::random().to_string()[..4].to_owned();
        Self { root, tag }
    }

    pub fn folder(&self) -> PathBuf {
        self.root.path().join("guests")
    }

    pub fn config(&self) -> QemuConfig {
        QemuConfig::new(self.folder(), &self.tag)
    }

    pub fn driver(&self) -> QemuHypervisor {
        QemuHypervisor::open(self.config()).unwrap()
    }

    /// A folder that only the guest's user may enter, as the storage driver makes it.
    pub fn server_folder(&self, server: ServerId) -> PathBuf {
        let folder = self.root.path().join(server.to_string());
        if !folder.exists() {
            std::fs::create_dir(&folder).unwrap();
            std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
            chown(&folder, Some(UID), Some(UID)).unwrap();
        }
        folder
    }

    /// A launch of a machine with an empty disk: its firmware finds nothing to boot and waits.
    pub fn empty(&self, devices: DeviceModel) -> Launch {
        let server = ServerId::new();
        let path = self.server_folder(server).join("root.qcow2");
        qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "64M"]);
        chown(&path, Some(UID), Some(UID)).unwrap();
        launch(server, devices, path)
    }

    /// A launch of a machine that boots the project's own image.
    pub fn tiny(&self) -> Launch {
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/guest/arcus-tiny.qcow2");
        assert!(image.is_file(), "{} is missing: run `cargo xtask image`", image.display());
        let base = self.root.path().join("base.qcow2");
        std::fs::copy(&image, &base).unwrap();
        std::fs::set_permissions(&base, Permissions::from_mode(0o644)).unwrap();
        let server = ServerId::new();
        let path = self.server_folder(server).join("root.qcow2");
        let (base, overlay) = (base.to_str().unwrap(), path.to_str().unwrap());
        qemu_img(&["create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay, "256M"]);
        chown(&path, Some(UID), Some(UID)).unwrap();
        launch(server, DeviceModel::Virtio, path)
    }

    /// The control groups of this node's guests.
    pub fn groups(&self) -> Vec<PathBuf> {
        let output = Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("arcus-{}", self.tag)]).output();
        String::from_utf8(output.unwrap().stdout).unwrap().lines().map(PathBuf::from).collect()
    }

    /// The processes that name this node's folders or servers.
    pub fn processes(&self) -> Vec<u32> {
        let Ok(servers) = std::fs::read_dir(self.folder()) else { return Vec::new() };
        let identity = |server: std::io::Result<std::fs::DirEntry>| {
            let server = server.ok()?;
            let line = std::fs::read_to_string(server.path().join("process")).ok()?;
            let pid: u32 = line.split(' ').next()?.parse().ok()?;
            let running = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            String::from_utf8_lossy(&running).contains(server.file_name().to_str()?).then_some(pid)
        };
        servers.filter_map(identity).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for pid in self.processes() {
            sigkill(pid);
            while Path::new(&format!("/proc/{pid}/exe")).exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for group in self.groups() {
            for guest in std::fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(guest.path());
            }
            let _ = std::fs::remove_dir(&group);
        }
    }
}

pub fn launch(server: ServerId, devices: DeviceModel, disk: PathBuf) -> Launch {
    Launch {
        server,
        epoch: 7,
        version: 3,
        hardware: HardwareSpec { vcpus: 1, memory_mib: 128, devices, cpu_weight: 100, cpu_limit_millicores: None },
        uid: UID,
        disks: vec![DiskAttachment {
            path: disk,
            format: DiskFormat::Qcow2,
            read_only: false,
            boot_index: Some(1),
            serial: "root".into(),
        }],
        volumes: Vec::new(),
        nics: Vec::new(),
        lease: None,
        resume_from: None,
    }
}

pub fn qemu_img(arguments: &[&str]) -> String {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(output.status.success(), "qemu-img {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn sigkill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

/// Waits until the condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the console's log holds the text.
pub async fn until_console(driver: &dyn Hypervisor, server: ServerId, text: &str) {
    let begin = Instant::now();
    loop {
        let log = driver.console_log(server, 1 << 20).await.unwrap();
        let log = String::from_utf8_lossy(&log).into_owned();
        if log.contains(text) {
            return;
        }
        let state = driver.state(server).await;
        assert!(begin.elapsed() < PATIENCE, "no '{text}' on the console of a guest that is {state:?}:\n{log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for an event that the test is about.
pub async fn until_event(events: &mut Receiver<GuestEvent>, wanted: impl Fn(&GuestEvent) -> bool) -> GuestEvent {
    let wait = async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

/// What a guest that has ended ended for.
pub async fn until_ended(driver: &dyn Hypervisor, server: ServerId) -> arcus_hypervisor::EndReason {
    let begin = Instant::now();
    loop {
        match driver.state(server).await {
            GuestState::Ended(reason) => return reason,
            other => assert!(begin.elapsed() < PATIENCE, "the guest is still {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
