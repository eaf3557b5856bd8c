//! What has been observed on this node, in one place; the reporter waits here for changes.

use arcus_types::agent::{NodeFacts, NodeReport, PortMove, ServerReport, SnapshotReport, VolumeReport, VolumeState};
use arcus_types::{ImageId, PortId, ServerId, VolumeId};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What has been observed on this node.
pub(crate) struct Board {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    spec_generation: u64,
    facts: NodeFacts,
    servers: BTreeMap<ServerId, ServerReport>,
    volumes: BTreeMap<VolumeId, VolumeReport>,
    snapshots: BTreeMap<ImageId, SnapshotReport>,
    ports_up: Vec<PortId>,
    network_faults: Vec<String>,
    /// How the network carries ports whose guests move.
    moves: BTreeMap<PortId, PortMove>,
    disks_removed: Vec<ServerId>,
}

impl Board {
    pub fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::channel(0).0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        if change(&mut self.lock()) {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Has all of it told again, though nothing changed.
    pub fn tell_again(&self) {
        self.change(|_| true);
    }

    pub fn listen(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn spec_read(&self, generation: u64) {
        self.change(|s| std::mem::replace(&mut s.spec_generation, generation) != generation);
    }

    /// The shared disks of a server are gone.
    pub fn disks_removed(&self, id: ServerId) {
        self.change(|s| {
            s.disks_removed.push(id);
            true
        });
    }

    /// Forgets which shared disks are gone, but for these servers'.
    pub fn disks_removed_keep(&self, wanted: &[ServerId]) {
        self.lock().disks_removed.retain(|id| wanted.contains(id));
    }

    pub fn facts(&self, facts: NodeFacts) {
        self.change(|s| {
            let changed = s.facts != facts;
            s.facts = facts;
            changed
        });
    }

    pub fn server(&self, report: ServerReport) {
        self.change(|s| s.servers.insert(report.id, report.clone()).as_ref() != Some(&report));
    }

    /// Changes figures that are not worth a report of their own.
    pub fn server_usage(&self, id: ServerId, cpu_ms: u64, memory_kib: u64) {
        if let Some(report) = self.lock().servers.get_mut(&id) {
            report.cpu_ms = cpu_ms;
            report.memory_kib = memory_kib;
        }
    }

    pub fn server_gone(&self, id: ServerId) {
        self.change(|s| s.servers.remove(&id).is_some());
    }

    /// Changes what is told of a volume; begins with nothing known if it is new.
    pub fn volume_change(&self, id: VolumeId, change: impl FnOnce(&mut VolumeReport)) {
        let state = VolumeState::Preparing { step: "waiting".to_owned(), progress_percent: 0 };
        let blank = VolumeReport { id, version: 0, state, size_bytes: 0, snapshots: Vec::new() };
        self.change(|s| {
            let before = s.volumes.get(&id);
            let mut after = before.cloned().unwrap_or(blank);
            change(&mut after);
            let changed = before != Some(&after);
            s.volumes.insert(id, after);
            changed
        });
    }

    pub fn volume_removing(&self, id: VolumeId) {
        self.change(|s| {
            let found = s.volumes.get_mut(&id).filter(|report| report.state != VolumeState::Removing);
            found.is_some_and(|report| {
                report.state = VolumeState::Removing;
                true
            })
        });
    }

    pub fn volume_gone(&self, id: VolumeId) {
        self.change(|s| s.volumes.remove(&id).is_some());
    }

    /// How far a volume is; `None` if the node knows nothing of it.
    pub fn volume_state(&self, id: VolumeId) -> Option<VolumeState> {
        self.lock().volumes.get(&id).map(|report| report.state.clone())
    }

    pub fn snapshot(&self, report: SnapshotReport) {
        self.change(|s| s.snapshots.insert(report.image_id, report.clone()).as_ref() != Some(&report));
    }

    pub fn snapshot_gone(&self, id: ImageId) {
        self.change(|s| s.snapshots.remove(&id).is_some());
    }

    pub fn network(&self, ports_up: Vec<PortId>, faults: Vec<String>, mut moves: BTreeMap<PortId, PortMove>) {
        moves.retain(|port, _| ports_up.contains(port));
        self.change(|s| {
            let changed = s.ports_up != ports_up || s.network_faults != faults || s.moves != moves;
            s.moves = moves;
            s.ports_up = ports_up;
            s.network_faults = faults;
            changed
        });
    }

    pub fn port_is_up(&self, port: PortId) -> bool {
        self.lock().ports_up.contains(&port)
    }

    /// How the network carries a port whose guest moves.
    pub fn port_moves(&self, port: PortId) -> Option<PortMove> {
        self.lock().moves.get(&port).copied()
    }

    pub fn network_faults(&self) -> Vec<String> {
        self.lock().network_faults.clone()
    }

    pub fn report(&self) -> NodeReport {
        let state = self.lock();
        NodeReport {
            spec_generation: state.spec_generation,
            facts: state.facts.clone(),
            servers: state.servers.values().cloned().collect(),
            volumes: state.volumes.values().cloned().collect(),
            snapshots: state.snapshots.values().cloned().collect(),
            ports_up: state.ports_up.clone(),
            network_faults: state.network_faults.clone(),
            passwords_left: Vec::new(),
            disks_removed: state.disks_removed.clone(),
        }
    }
}
