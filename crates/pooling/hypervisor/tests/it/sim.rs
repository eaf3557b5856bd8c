//! The simulator obeys the contract.

use crate::fixture::launch;
use arcus_hypervisor::{
    EndReason, GuestChange, GuestState, Hypervisor, HypervisorError, SimConfig, SimHypervisor, SimOperation,
};
use arcus_types::agent::DeviceModel;
use arcus_types::ids::ServerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn ordinary(server: ServerId) -> arcus_hypervisor::Launch {
    launch(server, DeviceModel::Virtio, "/nowhere/root.qcow2".into())
}

#[tokio::test]
async fn a_simulated_guest_goes_through_every_state() {
    let folder = tempfile::tempdir().unwrap();
    let sim = SimHypervisor::open(SimConfig::default()).unwrap();
    let server = ServerId::new();
    let mut events = sim.events();
    assert_eq!(sim.state(server).await, GuestState::Absent);
    assert!(matches!(sim.pause(server).await, Err(HypervisorError::NotRunning { .. })));
    sim.start(ordinary(server)).await.unwrap();
    assert!(matches!(sim.start(ordinary(server)).await, Err(HypervisorError::AlreadyRuns { .. })));
    sim.pause(server).await.unwrap();
    assert_eq!(sim.state(server).await, GuestState::Paused);
    sim.resume(server).await.unwrap();
    let memory = folder.path().join("memory");
    sim.suspend(server, &memory).await.unwrap();
    assert_eq!(sim.state(server).await, GuestState::Ended(EndReason::Suspended));
    sim.start(arcus_hypervisor::Launch { resume_from: Some(memory), ..ordinary(server) }).await.unwrap();
    sim.shutdown(server).await.unwrap();
    assert_eq!(sim.state(server).await, GuestState::Ended(EndReason::PoweredOff));
    sim.start(ordinary(server)).await.unwrap();
    sim.guest_obeys(server, false);
    sim.shutdown(server).await.unwrap();
    assert_eq!(sim.state(server).await, GuestState::Running);
    sim.guest_crashes(server, "told to");
    sim.kill(server).await.unwrap();
    assert_eq!(sim.state(server).await, GuestState::Ended(EndReason::Crashed { details: "told to".into() }));
    sim.forget(server).await.unwrap();
    assert_eq!(sim.state(server).await, GuestState::Absent);
    assert_eq!(events.recv().await.unwrap().change, GuestChange::Resumed);
}

#[tokio::test]
async fn simulated_guests_outlive_the_agent_when_they_have_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let config = SimConfig { folder: Some(folder.path().join("guests")), ..SimConfig::default() };
    let server = ServerId::new();
    SimHypervisor::open(config.clone()).unwrap().start(ordinary(server)).await.unwrap();
    let sim = SimHypervisor::open(config).unwrap();
    let found = sim.adopt().await.unwrap();
    assert_eq!((found[0].server, found[0].epoch, &found[0].state), (server, 7, &GuestState::Running));
}

#[tokio::test]
async fn faults_hit_the_operation_the_server_and_the_number_of_times_they_were_planned_for() {
    let sim = SimHypervisor::open(SimConfig::default()).unwrap();
    let (hit, spared) = (ServerId::new(), ServerId::new());
    sim.fail(SimOperation::Start, Some(hit), 2, true);
    sim.start(ordinary(spared)).await.unwrap();
    for _ in 0..2 {
        assert!(sim.start(ordinary(hit)).await.unwrap_err().is_transient());
    }
    sim.start(ordinary(hit)).await.unwrap();
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let run = async |seed| {
        let config = SimConfig { seed, delay_ms: 0..=1, faults_per_mille: 300, folder: None };
        let sim = SimHypervisor::open(config).unwrap();
        let mut outcomes = Vec::new();
        for _ in 0..50 {
            outcomes.push(sim.start(ordinary(ServerId::new())).await.is_ok());
        }
        outcomes
    };
    assert_eq!(run(5).await, run(5).await);
    assert_ne!(run(5).await, run(6).await);
}

#[tokio::test]
async fn the_simulated_serial_console_has_one_client_at_a_time() {
    let sim = SimHypervisor::open(SimConfig::default()).unwrap();
    let server = ServerId::new();
    sim.start(ordinary(server)).await.unwrap();
    let mut serial = sim.serial(server).await.unwrap();
    assert!(matches!(sim.serial(server).await, Err(HypervisorError::Busy { .. })));
    serial.write_all(b"ping").await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("ping") {
        assert_ne!(serial.read_buf(&mut seen).await.unwrap(), 0);
    }
    drop(serial);
    crate::fixture::until("it is free", || async { sim.serial(server).await.is_ok() }).await;
    sim.guest_prints(server, "hello");
    assert!(sim.console_log(server, 7).await.unwrap() == b"hello\r\n");
}
