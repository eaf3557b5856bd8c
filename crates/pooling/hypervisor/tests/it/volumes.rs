//! Volumes in a machine: what needs QEMU, and what needs a system inside.

use crate::fixture::{Node, UID, launch, qemu_img, until, until_console};
use arcus_hypervisor::{Hypervisor, HypervisorError, QemuHypervisor, SimHypervisor, VolumeAttachment};
use arcus_types::agent::{DeviceModel, DiskFormat, DiskQos};
use arcus_types::ids::{ServerId, VolumeId};
use serde_json::{Value, json};
use std::os::unix::fs::chown;
use std::path::Path;

fn volume(node: &Node, slot: Option<u32>, size: &str) -> VolumeAttachment {
    let volume = VolumeId::random();
    let path = node.root.path().join(format!("{volume}.qcow2"));
    qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().unwrap(), size]);
    chown(&path, Some(UID), Some(UID)).unwrap();
    let (format, qos) = (DiskFormat::Qcow2, DiskQos::default());
    VolumeAttachment { volume, slot, path, format, read_only: false, boot_index: None, qos }
}

async fn inserted(driver: &QemuHypervisor, server: ServerId, volume: &VolumeAttachment) -> Value {
    let devices = driver.command(server, "query-block", json!({})).await.unwrap();
    let devices = devices.as_array().unwrap();
    let name = volume.volume.to_string();
    let found = devices.iter().find(|device| device["qdev"].as_str().is_some_and(|path| path.contains(&name)));
    found.map(|device| device["inserted"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn volumes_are_limited_at_launch_and_later_grown_and_kept_while_the_machine_runs() {
    let node = Node::new();
    let driver = node.driver();
    let mut wish = node.empty(DeviceModel::Virtio);
    let server = wish.server;
    let mut first = volume(&node, Some(2), "64M");
    first.qos =
        DiskQos { total_iops_sec: 500, total_iops_sec_max: 900, write_bytes_sec: 1 << 20, ..DiskQos::default() };
    wish.volumes.push(first.clone());
    driver.start(wish).await.unwrap();
    let told = inserted(&driver, server, &first).await;
    assert_eq!((&told["iops"], &told["iops_max"], &told["bps_wr"]), (&json!(500), &json!(900), &json!(1 << 20)));
    assert_eq!(told["cache"], json!({ "writeback": true, "direct": false, "no-flush": false }), "a flush is a flush");

    let slower = DiskQos { read_iops_sec: 7, ..DiskQos::default() };
    for _ in 0..2 {
        driver.volume_limit(server, first.volume, slower).await.unwrap();
    }
    let told = inserted(&driver, server, &first).await;
    assert_eq!((&told["iops"], &told["iops_rd"], &told["iops_max"]), (&json!(0), &json!(7), &Value::Null));

    driver.volume_grow(server, first.volume, 96 << 20).await.unwrap();
    driver.volume_snapshot_make(server, first.volume, "then").await.unwrap();
    let told = inserted(&driver, server, &first).await;
    assert_eq!(told["image"]["virtual-size"], 96 << 20);
    assert_eq!(told["image"]["snapshots"][0]["name"], "then");
    driver.volume_grow(server, first.volume, 128 << 20).await.unwrap();
    // A copy of what was kept, while the machine has the disk open.
    let copy = node.root.path().join("copy.qcow2");
    let path = first.path.to_str().unwrap();
    qemu_img(&["convert", "-U", "-l", "snapshot.name=then", "-O", "qcow2", path, copy.to_str().unwrap()]);
    driver.volume_snapshot_remove(server, first.volume, "then").await.unwrap();
    assert!(inserted(&driver, server, &first).await["image"].get("snapshots").is_none());

    // Another driver over the same folder knows what is plugged.
    let second = volume(&node, Some(0), "64M");
    for _ in 0..2 {
        driver.volume_attach(server, second.clone()).await.unwrap();
    }
    let taken = driver.volume_attach(server, volume(&node, Some(0), "64M")).await.unwrap_err();
    assert!(matches!(taken, HypervisorError::LaunchRefused { .. }), "{taken}");
    drop(driver);
    let driver = node.driver();
    driver.adopt().await.unwrap();
    assert_eq!(driver.volumes(server).await, [first.volume, second.volume]);
    driver.kill(server).await.unwrap();
    assert!(driver.volumes(server).await.is_empty());
    qemu_img(&["check", "-q", first.path.to_str().unwrap()]);
}

#[tokio::test]
async fn emulated_disks_are_limited_as_well() {
    let node = Node::new();
    let driver = node.driver();
    let mut wish = node.empty(DeviceModel::Emulated);
    let server = wish.server;
    let qos = DiskQos { total_iops_sec: 500, ..DiskQos::default() };
    let first = VolumeAttachment { qos, ..volume(&node, Some(0), "64M") };
    let second = VolumeAttachment { qos, read_only: true, ..volume(&node, Some(1), "64M") };
    wish.volumes = vec![first.clone(), second.clone()];
    driver.start(wish).await.unwrap();
    for volume in [first, second] {
        assert_eq!(inserted(&driver, server, &volume).await["iops"], 500);
    }
    let refused = driver.volume_attach(server, volume(&node, Some(2), "64M")).await.unwrap_err();
    assert!(refused.to_string().contains("stopped"), "{refused}");
    driver.kill(server).await.unwrap();
}

#[tokio::test]
async fn a_machine_refuses_what_it_cannot_plug_and_goes_on() {
    let node = Node::new();
    let driver = node.driver();
    let wish = node.empty(DeviceModel::Virtio);
    let server = wish.server;
    driver.start(wish).await.unwrap();
    let mut missing = volume(&node, Some(1), "64M");
    std::fs::remove_file(&missing.path).unwrap();
    assert!(driver.volume_attach(server, missing.clone()).await.is_err());
    assert!(driver.volumes(server).await.is_empty());
    missing.slot = Some(99);
    assert!(driver.volume_attach(server, missing.clone()).await.is_err());
    let absent = driver.volume_grow(server, missing.volume, 1 << 30).await.unwrap_err();
    assert!(absent.to_string().contains("does not have"), "{absent}");
    driver.volume_detach(server, missing.volume).await.unwrap();
    driver.kill(server).await.unwrap();
}

#[tokio::test]
async fn a_guest_takes_a_volume_and_lets_go_of_it() {
    let node = Node::new();
    let driver = node.driver();
    let wish = node.tiny();
    let server = wish.server;
    driver.start(wish).await.unwrap();
    until_console(&driver, server, "arcus-tiny: ready").await;
    for round in 0..2 {
        let disk = volume(&node, Some(round), "64M");
        let name = disk.volume.to_string();
        driver.volume_attach(server, disk.clone()).await.unwrap();
        // The guest has looked for partitions, so its driver has the disk.
        until("the guest reads the volume", || async {
            let stats = driver.command(server, "query-blockstats", json!({})).await.unwrap();
            let of = |s: &&Value| s["qdev"].as_str().is_some_and(|path| path.contains(&name));
            stats.as_array().unwrap().iter().find(of).unwrap()["stats"]["rd_operations"].as_u64().unwrap() > 0
        })
        .await;
        driver.volume_grow(server, disk.volume, 96 << 20).await.unwrap();
        for _ in 0..2 {
            driver.volume_detach(server, disk.volume).await.unwrap();
        }
        assert!(driver.volumes(server).await.is_empty());
        // The file is closed: a writer gets its lock.
        qemu_img(&["resize", "-q", disk.path.to_str().unwrap(), "128M"]);
    }
    driver.kill(server).await.unwrap();
}

#[tokio::test]
async fn a_machine_boots_from_a_volume() {
    let node = Node::new();
    let driver = node.driver();
    let tiny = node.tiny();
    let server = tiny.server;
    let mut wish = launch(server, DeviceModel::Virtio, Path::new("/nowhere").into());
    let root = wish.disks.remove(0);
    let mut boot = volume(&node, None, "256M");
    boot.path = tiny.disks[0].path.clone();
    boot.boot_index = Some(1);
    assert!(root.boot_index.is_some());
    wish.volumes = vec![boot.clone(), volume(&node, Some(0), "64M")];
    driver.start(wish).await.unwrap();
    until_console(&driver, server, "arcus-tiny: ready").await;
    let refused = driver.volume_attach(server, volume(&node, None, "64M")).await.unwrap_err();
    assert!(matches!(refused, HypervisorError::LaunchRefused { .. }), "{refused}");
    driver.kill(server).await.unwrap();
}

#[tokio::test]
async fn the_simulator_obeys_the_same_rules() {
    let node = Node::new();
    let sim = SimHypervisor::open(Default::default()).unwrap();
    let server = ServerId::new();
    let disk = volume(&node, Some(3), "64M");
    let stopped = sim.volume_attach(server, disk.clone()).await.unwrap_err();
    assert!(matches!(stopped, HypervisorError::NotRunning { .. }), "{stopped}");
    sim.start(launch(server, DeviceModel::Virtio, "/nowhere".into())).await.unwrap();
    for _ in 0..2 {
        sim.volume_attach(server, disk.clone()).await.unwrap();
    }
    assert_eq!(sim.volumes(server).await, [disk.volume]);
    let taken = sim.volume_attach(server, volume(&node, Some(3), "64M")).await.unwrap_err();
    assert!(matches!(taken, HypervisorError::LaunchRefused { .. }), "{taken}");
    sim.volume_grow(server, disk.volume, 1 << 30).await.unwrap();
    sim.volume_limit(server, disk.volume, DiskQos { total_iops_sec: 1, ..DiskQos::default() }).await.unwrap();
    sim.volume_snapshot_make(server, disk.volume, "then").await.unwrap();
    sim.volume_snapshot_remove(server, disk.volume, "then").await.unwrap();
    assert!(sim.volume_grow(server, VolumeId::new(), 1 << 30).await.is_err());
    for _ in 0..2 {
        sim.volume_detach(server, disk.volume).await.unwrap();
    }
    until("nothing is left", || async { sim.volumes(server).await.is_empty() }).await;
}
