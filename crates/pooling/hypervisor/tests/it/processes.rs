//! What a guest's process is, how its end is noticed, and that it outlives the agent. No guest boots here.

use crate::fixture::{Node, PATIENCE, UID, qemu_img, sigkill, until, until_ended, until_event};
use arcus_hypervisor::{
    AccelChoice, DiskAttachment, EndReason, GuestChange, GuestState, Hypervisor, HypervisorError, Nic, QemuConfig,
    QemuHypervisor,
};
use arcus_types::agent::{DeviceModel, DiskFormat};
use arcus_types::ids::{PortId, ServerId};
use arcus_types::text::MacAddr;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};

#[tokio::test]
async fn a_guest_is_started_paused_resumed_reset_and_killed_and_leaves_nothing() {
    let node = Node::new();
    let driver = node.driver();
    let launch = node.empty(DeviceModel::Virtio);
    let server = launch.server;
    assert_eq!(driver.state(server).await, GuestState::Absent);
    driver.start(launch).await.unwrap();
    assert_eq!(driver.state(server).await, GuestState::Running);
    let mut events = driver.events();

    for _ in 0..2 {
        driver.pause(server).await.unwrap();
        assert_eq!(driver.state(server).await, GuestState::Paused);
    }
    until_event(&mut events, |event| event.change == GuestChange::Paused).await;
    for _ in 0..2 {
        driver.resume(server).await.unwrap();
        assert_eq!(driver.state(server).await, GuestState::Running);
    }
    driver.reset(server).await.unwrap();
    until_event(&mut events, |event| event.change == GuestChange::Reset).await;
    let usage = driver.usage(server).await.unwrap();
    assert!(usage.memory_kib > 10_000, "{usage:?}");

    assert!(matches!(driver.forget(server).await, Err(HypervisorError::AlreadyRuns { .. })));
    for _ in 0..2 {
        driver.kill(server).await.unwrap();
        assert_eq!(driver.state(server).await, GuestState::Ended(EndReason::Killed));
    }
    assert!(matches!(driver.pause(server).await, Err(HypervisorError::NotRunning { .. })));
    assert_eq!(driver.usage(server).await, None);
    assert_eq!(node.processes(), Vec::<u32>::new());
    assert!(node.groups().is_empty());
    for _ in 0..2 {
        driver.forget(server).await.unwrap();
        assert_eq!(driver.state(server).await, GuestState::Absent);
    }
    assert_eq!(std::fs::read_dir(node.folder()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_process_is_unprivileged_confined_and_in_its_own_groups() {
    let node = Node::new();
    let driver = node.driver();
    let mut launch = node.empty(DeviceModel::Virtio);
    launch.hardware.cpu_limit_millicores = Some(500);
    let server = launch.server;
    driver.start(launch).await.unwrap();
    let pid = driver.process_id(server).unwrap();
    let proc_file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let status = proc_file("status");
    let value = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_once(':').unwrap().1.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(value("Uid:"), format!("{UID} {UID} {UID} {UID}"));
    assert_eq!(value("Gid:"), format!("{UID} {UID} {UID} {UID}"));
    assert_eq!(value("Groups:"), "");
    assert_eq!(value("CapEff:"), "0000000000000000");
    assert_eq!(value("NoNewPrivs:"), "1");
    assert_eq!(value("Seccomp:"), "2");
    assert_eq!(proc_file("oom_score_adj").trim(), "300");
    assert!(
        proc_file("limits").lines().any(|line| {
            line.starts_with("Max core file size") && line.split_whitespace().rev().nth(1) == Some("0")
        })
    );
    // A session of its own, and nothing of ours but what it was given: console, log, sockets.
    let session = proc_file("stat").rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string());
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| fd.unwrap().path());
    let log = fds.into_iter().find(|fd| std::fs::read_link(fd).unwrap().ends_with("console.log")).unwrap();
    let info = proc_file(&format!("fdinfo/{}", log.file_name().unwrap().to_str().unwrap()));
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
    assert_ne!(flags & nix::libc::O_APPEND, 0, "a log that is cut would get a hole");
    assert!(!node.groups().is_empty(), "no control groups were made");
    let group = format!("arcus-{}/{server}", node.tag);
    assert!(proc_file("cgroup").contains(&group), "{}", proc_file("cgroup"));
    let quota = node.groups().iter().find_map(|parent| {
        let group = parent.join(server.to_string());
        let v1 = std::fs::read_to_string(group.join("cpu.cfs_quota_us"));
        v1.or_else(|_| std::fs::read_to_string(group.join("cpu.max"))).ok()
    });
    assert!(quota.unwrap().starts_with("50000"));
    driver.kill(server).await.unwrap();
}

#[tokio::test]
async fn a_killed_process_is_noticed_and_told_from_a_power_off() {
    let node = Node::new();
    let driver = node.driver();
    let launch = node.empty(DeviceModel::Virtio);
    let server = launch.server;
    driver.start(launch).await.unwrap();
    let mut events = driver.events();
    sigkill(driver.process_id(server).unwrap());
    let event = until_event(&mut events, |event| matches!(event.change, GuestChange::Ended(_))).await;
    let GuestChange::Ended(EndReason::Crashed { details }) = event.change else { panic!("{event:?}") };
    assert!(details.contains("SIGKILL"), "{details}");
    assert!(matches!(driver.state(server).await, GuestState::Ended(EndReason::Crashed { .. })));
    assert!(node.groups().is_empty());

    // It can be started again, and a process of the same server is never started beside it.
    let again = || crate::fixture::launch(server, DeviceModel::Virtio, node.server_folder(server).join("root.qcow2"));
    driver.start(again()).await.unwrap();
    assert!(matches!(driver.start(again()).await, Err(HypervisorError::AlreadyRuns { .. })));
    let other = node.driver();
    assert!(matches!(other.start(again()).await, Err(HypervisorError::AlreadyRuns { .. })));
    driver.kill(server).await.unwrap();
}

#[tokio::test]
async fn a_guest_outlives_the_driver_and_is_adopted_and_one_that_died_meanwhile_is_known() {
    let node = Node::new();
    let driver = node.driver();
    let (first, second) = (node.empty(DeviceModel::Virtio), node.empty(DeviceModel::Virtio));
    let (lives, dies) = (first.server, second.server);
    driver.start(first).await.unwrap();
    driver.start(second).await.unwrap();
    let (pid, doomed) = (driver.process_id(lives).unwrap(), driver.process_id(dies).unwrap());
    driver.pause(lives).await.unwrap();
    drop(driver);
    sigkill(doomed);
    // Its entry in /proc goes blank before its last thread is gone. An error means that it was reaped already.
    let _ = waitid(Id::Pid(Pid::from_raw(doomed.cast_signed())), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);

    let driver = node.driver();
    let mut found = driver.adopt().await.unwrap();
    found.sort_by_key(|guest| guest.server != lives);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].server, found[0].epoch, found[0].version, found[0].uid), (lives, 7, 3, UID));
    assert_eq!(found[0].state, GuestState::Paused);
    assert!(matches!(found[1].state, GuestState::Ended(EndReason::Crashed { .. })), "{:?}", found[1]);
    assert_eq!(driver.process_id(lives), Some(pid));
    driver.resume(lives).await.unwrap();
    assert_eq!(driver.state(lives).await, GuestState::Running);

    let mut events = driver.events();
    sigkill(pid);
    until_event(&mut events, |event| event.server == lives && matches!(event.change, GuestChange::Ended(_))).await;
    assert!(node.groups().is_empty());
}

/// Runs twice: as the test, and, started by itself with a folder in the environment, as an agent that gets killed.
#[tokio::test]
async fn a_guest_outlives_a_killed_agent_process() {
    const FOLDER: &str = "ARCUS_TEST_AGENT_FOLDER";
    if let Ok(folder) = std::env::var(FOLDER) {
        let (disk, server) = (std::env::var("ARCUS_TEST_DISK").unwrap(), std::env::var("ARCUS_TEST_SERVER").unwrap());
        let driver = QemuHypervisor::open(QemuConfig::new(&folder, std::env::var("ARCUS_TEST_TAG").unwrap())).unwrap();
        let server: ServerId = server.parse().unwrap();
        driver.start(crate::fixture::launch(server, DeviceModel::Virtio, disk.into())).await.unwrap();
        std::fs::write(format!("{folder}/started"), b"").unwrap();
        return std::future::pending().await;
    }
    let node = Node::new();
    let launch = node.empty(DeviceModel::Virtio);
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::a_guest_outlives_a_killed_agent_process"])
        .env(FOLDER, node.folder())
        .env("ARCUS_TEST_TAG", &node.tag)
        .env("ARCUS_TEST_DISK", &launch.disks[0].path)
        .env("ARCUS_TEST_SERVER", launch.server.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let started = node.folder().join("started");
    until("the agent has started the guest", || async { started.exists() }).await;
    agent.kill().unwrap();
    agent.wait().unwrap();

    let driver = node.driver();
    let found = driver.adopt().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].state, GuestState::Running);
    driver.kill(launch.server).await.unwrap();
    assert_eq!(driver.state(launch.server).await, GuestState::Ended(EndReason::Killed));
}

#[tokio::test]
async fn the_emulated_model_takes_disks_cds_and_interfaces() {
    let node = Node::new();
    let driver = node.driver();
    let mut launch = node.empty(DeviceModel::Emulated);
    let server = launch.server;
    for (name, format) in [("config", DiskFormat::Raw), ("cd.iso", DiskFormat::Iso)] {
        let path = node.server_folder(server).join(name);
        qemu_img(&["create", "-q", "-f", "raw", path.to_str().unwrap(), "1M"]);
        chown(&path, Some(UID), Some(UID)).unwrap();
        let serial = name.to_owned();
        launch.disks.push(DiskAttachment { path, format, read_only: true, boot_index: None, serial });
    }
    launch.nics.push(nic());
    driver.start(launch).await.unwrap();
    assert_eq!(driver.state(server).await, GuestState::Running);
    assert!(matches!(driver.nic_attach(server, nic()).await, Err(HypervisorError::LaunchRefused { .. })));
    driver.kill(server).await.unwrap();
}

pub fn nic() -> Nic {
    let port = PortId::random();
    let [a, b, c, ..] = port.0.into_bytes();
    Nic { port, mac: MacAddr::for_port([a, b, c]), mtu: 1450, tap: tap() }
}

/// A tap that is connected to nothing and vanishes with its last descriptor.
fn tap() -> std::os::fd::OwnedFd {
    nix::ioctl_write_int!(tun_set_iff, b'T', 202);
    let file = std::fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // The kernel's `ifreq`: 16 bytes of name, left to the kernel, then the flags IFF_TAP | IFF_NO_PI | IFF_VNET_HDR.
    let mut request = [0_u8; 40];
    request[16..18].copy_from_slice(&(0x0002_u16 | 0x1000 | 0x4000).to_ne_bytes());
    let request = request.as_mut_ptr() as usize as nix::libc::c_ulong;
    // SAFETY: the request is a whole `ifreq` that outlives the call.
    unsafe { tun_set_iff(std::os::fd::AsRawFd::as_raw_fd(&file), request).unwrap() };
    file.into()
}

#[tokio::test]
async fn what_keeps_a_guest_from_starting_is_told_in_words_that_help() {
    let node = Node::new();
    let driver = node.driver();

    let hidden = node.empty(DeviceModel::Virtio);
    let (server, path) = (hidden.server, hidden.disks[0].path.clone());
    chown(&path, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let error = driver.start(hidden).await.unwrap_err();
    assert!(error.to_string().contains(&format!("user {UID} may not open")), "{error}");
    assert!(!error.is_transient());
    assert_eq!(driver.state(server).await, GuestState::Absent);
    assert!(node.groups().is_empty());

    let holder = node.empty(DeviceModel::Virtio);
    let mut second = node.empty(DeviceModel::Virtio);
    second.disks.clone_from(&holder.disks);
    let holder_id = holder.server;
    driver.start(holder).await.unwrap();
    let error = driver.start(second).await.unwrap_err();
    assert!(error.to_string().contains("another process has the disk open"), "{error}");
    assert!(error.is_transient());
    driver.kill(holder_id).await.unwrap();

    let mut foreign = node.empty(DeviceModel::Virtio);
    foreign.disks[0].format = DiskFormat::Vmdk;
    assert!(matches!(driver.start(foreign).await, Err(HypervisorError::LaunchRefused { .. })));

    let mut config = node.config();
    config.qemu = "qemu-system-missing".into();
    let without = QemuHypervisor::open(config).unwrap();
    let error = without.facts().await.unwrap_err();
    assert!(error.to_string().contains("install the package qemu-system-x86"), "{error}");
    assert_eq!(node.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn facts_name_a_versioned_machine_and_choose_kvm_only_where_the_cpu_offers_it() {
    let node = Node::new();
    let facts = node.driver().facts().await.unwrap();
    assert!(facts.machine.starts_with("pc-q35-"), "{facts:?}");
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    if !flags.contains(" vmx ") && !flags.contains(" svm ") {
        assert_eq!(facts.accel, "tcg");
        let kvm = QemuHypervisor::open(QemuConfig { accel: AccelChoice::Kvm, ..node.config() }).unwrap();
        let error = kvm.facts().await.unwrap_err();
        assert!(error.to_string().contains("neither vmx nor svm"), "{error}");
    }
}

#[tokio::test]
async fn a_process_that_hangs_is_killed_after_its_time() {
    let node = Node::new();
    let driver = node.driver();
    let launch = node.empty(DeviceModel::Virtio);
    let server = launch.server;
    driver.start(launch).await.unwrap();
    let pid = Pid::from_raw(i32::try_from(driver.process_id(server).unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    // A silent QEMU is no dead guest.
    assert_eq!(driver.state(server).await, GuestState::Running);
    tokio::time::timeout(PATIENCE, driver.kill(server)).await.unwrap().unwrap();
    assert_eq!(until_ended(&driver, server).await, EndReason::Killed);
}
