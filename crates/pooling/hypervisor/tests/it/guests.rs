//! A guest that boots: what needs a system inside.

use crate::fixture::{Node, PATIENCE, qemu_img, until, until_console, until_ended, until_event};
use crate::processes::nic;
use arcus_hypervisor::{EndReason, GuestChange, GuestState, Hypervisor, HypervisorError, Launch};
use arcus_types::agent::DeviceModel;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const READY: &str = "arcus-tiny: ready";

#[tokio::test]
async fn a_booted_guest_offers_serial_screen_copies_hot_plug_and_an_agent_and_powers_off() {
    let node = Node::new();
    let driver = node.driver();
    let launch = node.tiny();
    let server = launch.server;
    driver.start(launch).await.unwrap();
    until_console(&driver, server, READY).await;

    // The serial console: one client at a time, the next when it has left.
    let mut serial = driver.serial(server).await.unwrap();
    assert!(matches!(driver.serial(server).await, Err(HypervisorError::Busy { .. })));
    serial.write_all(b"\r\n").await.unwrap();
    let mut seen = Vec::new();
    let login = async {
        while !String::from_utf8_lossy(&seen).contains("login:") {
            assert_ne!(serial.read_buf(&mut seen).await.unwrap(), 0);
        }
    };
    tokio::time::timeout(PATIENCE, login).await.unwrap();
    drop(serial);
    until("the console is free again", || async { driver.serial(server).await.is_ok() }).await;

    // The screen: shared.
    for _ in 0..2 {
        let mut greeting = [0_u8; 4];
        let mut screen = driver.vnc(server).await.unwrap();
        tokio::time::timeout(PATIENCE, screen.read_exact(&mut greeting)).await.unwrap().unwrap();
        assert_eq!(&greeting, b"RFB ");
    }

    // A copy of the running disk stands by itself, in a folder that QEMU's user may not enter.
    let exports = node.root.path().join("exports");
    std::fs::create_dir(&exports).unwrap();
    std::fs::set_permissions(&exports, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let copy = exports.join("copy.qcow2");
    driver.disk_copy(server, &copy).await.unwrap();
    let info: serde_json::Value =
        serde_json::from_str(&qemu_img(&["info", "--output=json", copy.to_str().unwrap()])).unwrap();
    assert_eq!(info["virtual-size"], 256 << 20);
    assert!(info.get("backing-filename").is_none(), "{info}");
    qemu_img(&["check", "-q", copy.to_str().unwrap()]);
    assert!(driver.disk_copy(server, &copy).await.is_err(), "a copy never overwrites");
    assert!(copy.exists());
    let sets = driver.command(server, "query-fdsets", json!({})).await.unwrap();
    assert_eq!(sets.as_array().unwrap().len(), 1, "the copy's descriptor is still in QEMU: {sets}");
    assert_eq!(driver.state(server).await, GuestState::Running);

    // Hot plug.
    let nic = nic();
    let port = nic.port;
    driver.nic_attach(server, nic).await.unwrap();
    let found = node.driver().adopt().await.unwrap();
    assert_eq!(found[0].ports, vec![port]);
    for _ in 0..2 {
        driver.nic_detach(server, port).await.unwrap();
    }

    // The guest's agent, then its power button.
    let refused = driver.set_password(server, "nobody-of-this-name", "x").await.unwrap_err();
    assert!(matches!(refused, HypervisorError::NoGuestAgent { .. }), "{refused}");
    driver.shutdown(server).await.unwrap();
    assert_eq!(until_ended(&driver, server).await, EndReason::PoweredOff);
    let log = driver.console_log(server, 1 << 20).await.unwrap();
    assert!(String::from_utf8_lossy(&log).contains(READY), "the console log stays");
    assert_eq!(node.processes(), Vec::<u32>::new());
    assert!(node.groups().is_empty());
}

#[tokio::test]
async fn a_guest_is_suspended_and_goes_on_and_a_power_off_without_an_agent_is_remembered() {
    let node = Node::new();
    let driver = node.driver();
    let mut launch = node.tiny();
    launch.nics.push(nic());
    let (server, image) = (launch.server, node.root.path().join("memory"));
    let mut again = crate::fixture::launch(server, DeviceModel::Virtio, launch.disks[0].path.clone());
    again.nics.push(arcus_hypervisor::Nic { tap: nic().tap, ..launch.nics.remove(0) });
    launch.nics.push(arcus_hypervisor::Nic {
        tap: nic().tap,
        port: again.nics[0].port,
        mac: again.nics[0].mac,
        mtu: 1450,
    });
    driver.start(launch).await.unwrap();
    until_console(&driver, server, READY).await;

    driver.suspend(server, &image).await.unwrap();
    assert_eq!(driver.state(server).await, GuestState::Ended(EndReason::Suspended));
    let boots = |log: Vec<u8>| String::from_utf8_lossy(&log).matches(READY).count();
    let mut events = driver.events();
    driver.start(Launch { resume_from: Some(image), ..again }).await.unwrap();
    until_event(&mut events, |event| event.change == GuestChange::Resumed).await;
    assert_eq!(driver.state(server).await, GuestState::Running);

    // It is the same system, which listens to its power button; nobody is there when it goes off.
    driver.shutdown(server).await.unwrap();
    drop(driver);
    let driver = node.driver();
    driver.adopt().await.unwrap();
    assert_eq!(until_ended(&driver, server).await, EndReason::PoweredOff);
    assert_eq!(boots(driver.console_log(server, 1 << 20).await.unwrap()), 1);
}
