//! The node as a whole: listens for specs, hands each server its wish, keeps the network as wished, and reports.

use crate::board::Board;
use crate::lease::{self, Lease};
use crate::ledger::Ledger;
use crate::worker::{NicWish, Wish, Worker};
use crate::{Directory, Link, LinkError, chain, guest_data, measure, relays, snapshots, volumes};
use arcus_hypervisor::{Hypervisor, LeaseFile};
use arcus_network::Network;
use arcus_storage::{ImageFetch, Storage};
use arcus_types::agent::{NodeFacts, NodeSpec, ServerSpec, SnapshotSpec, VolumeSpec, VolumeState};
use arcus_types::clusters::CpuFacts;
use arcus_types::{DiskPoolId, ImageId, PortId, RelayId, ServerId, VolumeId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// A report is sent at least this often: it is also the node's sign of life.
const REPORT_EVERY: Duration = Duration::from_secs(15);
/// Changes that come together are told together.
const REPORT_DEBOUNCE: Duration = Duration::from_millis(15);
/// The network is checked against the wish this often even if nothing changed.
const NETWORK_EVERY: Duration = Duration::from_secs(30);
/// Figures such as free storage are read this often.
const FACTS_EVERY: Duration = Duration::from_secs(60);
/// Pauses between calls while the server cannot be reached.
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
const RECONNECT_LONGEST: Duration = Duration::from_secs(5);
/// Memory that guests do not get, for the node itself, in MiB.
const RESERVED_MIB: u64 = 512;

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The most bytes that cached images may take.
    pub image_cache_bytes_max: u64,
    /// Figures that simulated nodes pretend to have; `None` reads the machine's.
    pub pretend: Option<NodeFacts>,
    /// This machine's address on the network that joins the nodes: tunnels between them end there.
    pub underlay: Option<std::net::IpAddr>,
    /// What tells one boot of the machine from the next; `None` asks the kernel.
    pub boot_id: Option<String>,
    /// Where what the machine was measured to do is kept, on the disk that is measured; `None`: it is not measured.
    pub measured_in: Option<PathBuf>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self { image_cache_bytes_max: 100 << 30, pretend: None, underlay: None, boot_id: None, measured_in: None }
    }
}

/// The drivers of a node.
#[derive(Clone)]
pub struct Drivers {
    /// Runs guests.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Keeps disks.
    pub storage: Arc<dyn Storage>,
    /// Connects guests.
    pub network: Arc<dyn Network>,
    /// Where servers' disks are kept that other nodes can reach.
    pub shared: Option<SharedDisks>,
}

/// A folder for servers' disks that other nodes see, too.
#[derive(Clone)]
pub struct SharedDisks {
    /// What the folder says of itself.
    pub id: DiskPoolId,
    /// The disks in it. What is there of servers that this node does not know is other nodes'.
    pub storage: Arc<dyn Storage>,
    /// The [`LeaseFile`] that guests on these disks live by.
    pub lease: PathBuf,
}

/// What every part of the agent reaches.
pub(crate) struct Shared {
    pub drivers: Drivers,
    pub ledger: Ledger,
    pub volumes: volumes::Volumes,
    pub board: Board,
    pub lease: Lease,
    pub link: Arc<Link>,
    pub fetch: Arc<dyn ImageFetch>,
    pub boot_id: String,
    /// Servers whose shared disks go with them.
    pub disk_removals: Mutex<BTreeSet<ServerId>>,
    config: AgentConfig,
}

/// The agent of one node.
pub struct Agent {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
}

/// A spec, and the turn of the lease in which it was asked for.
type TurnSpec = (u64, Arc<NodeSpec>);

struct VolumeHandle {
    wish: watch::Sender<Option<Arc<VolumeSpec>>>,
    task: JoinHandle<()>,
}

struct Handle {
    wish: watch::Sender<Option<Arc<Wish>>>,
    look: Arc<Notify>,
    busy: Arc<tokio::sync::Mutex<()>>,
    task: JoinHandle<()>,
}

impl Agent {
    /// An agent over its drivers. `directory` is what the network driver's metadata service asks.
    ///
    /// # Errors
    /// If the file cannot be opened that guests on shared disks live by.
    pub fn new(
        config: AgentConfig,
        drivers: Drivers,
        ledger: Ledger,
        link: Arc<Link>,
        directory: Arc<Directory>,
    ) -> std::io::Result<Self> {
        let kernels = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot_id = config.boot_id.clone().unwrap_or_else(|| kernels().trim().to_owned());
        let fetch: Arc<dyn ImageFetch> = Arc::clone(&link) as Arc<dyn ImageFetch>;
        let volumes = volumes::Volumes::new(ledger.volumes().into_iter());
        let file = drivers.shared.as_ref().map(|shared| LeaseFile::open(&shared.lease)).transpose()?;
        let shared = Shared {
            drivers,
            ledger,
            volumes,
            board: Board::new(),
            lease: Lease::new(file),
            link,
            fetch,
            boot_id,
            disk_removals: Mutex::default(),
            config,
        };
        Ok(Self { shared: Arc::new(shared), directory })
    }

    /// Works until `stop` is cancelled. Guests go on running then.
    pub async fn run(self, stop: CancellationToken) {
        let mut known: BTreeSet<ServerId> = self.shared.ledger.servers().into_iter().collect();
        match self.shared.drivers.hypervisor.adopt().await {
            Ok(guests) => known.extend(guests.iter().map(|g| g.server)),
            Err(error) => tracing::error!(error = chain(&error), "guests of an earlier run could not be looked for"),
        }
        known.extend(self.shared.drivers.storage.servers().await.unwrap_or_default());
        let volumes_known = self.shared.drivers.storage.volumes().await.unwrap_or_default();
        read_facts(&self.shared).await;
        let (spec_in, spec_out) = watch::channel((0, Arc::new(NodeSpec::default())));
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(Arc::clone(&self.shared), spec_in));
        tasks.spawn(report(Arc::clone(&self.shared), Arc::clone(&self.directory)));
        tasks.spawn(renew(Arc::clone(&self.shared)));
        tasks.spawn(facts(Arc::clone(&self.shared)));
        tasks.spawn(lease::keep(Arc::clone(&self.shared)));
        if let Some(folder) = self.shared.config.measured_in.clone() {
            tasks.spawn(measure::once(Arc::clone(&self.shared), folder));
        }
        tasks.spawn(keep_network(Arc::clone(&self.shared), spec_out.clone()));
        tokio::select! {
            () = self.dispatch(spec_out, known, volumes_known) => {}
            () = stop.cancelled() => {}
        }
        tasks.shutdown().await;
    }

    /// Hands every server its wish as specs come in, and events of guests to their workers.
    async fn dispatch(
        self,
        mut spec: watch::Receiver<TurnSpec>,
        known: BTreeSet<ServerId>,
        volumes_known: Vec<VolumeId>,
    ) {
        let mut volumes: HashMap<VolumeId, VolumeHandle> = HashMap::new();
        let mut volumes_leftover = Some(volumes_known);
        let mut workers: HashMap<ServerId, Handle> = HashMap::new();
        let mut making: HashMap<ImageId, JoinHandle<()>> = HashMap::new();
        let mut fetching: HashMap<String, JoinHandle<()>> = HashMap::new();
        let mut events = self.shared.drivers.hypervisor.events();
        let mut leftovers = Some(known);
        loop {
            tokio::select! {
                changed = spec.changed() => {
                    if changed.is_err() { return }
                    let (turn, spec) = spec.borrow_and_update().clone();
                    self.directory.load(&spec);
                    self.volumes(&spec, &mut volumes, volumes_leftover.take().unwrap_or_default());
                    self.servers(&spec, &mut workers, leftovers.take().unwrap_or_default());
                    self.snapshots(&spec, &mut making, &workers);
                    self.prefetch(&spec, &mut fetching);
                    self.shared.board.spec_read(spec.generation);
                    self.shared.lease.spec_current(turn);
                }
                event = events.recv() => match event {
                    Ok(event) => if let Some(handle) = workers.get(&event.server) { handle.look.notify_one() },
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                        workers.values().for_each(|handle| handle.look.notify_one());
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        }
    }

    fn volumes(&self, spec: &NodeSpec, workers: &mut HashMap<VolumeId, VolumeHandle>, leftovers: Vec<VolumeId>) {
        workers.retain(|_, handle| !handle.task.is_finished());
        let mut wishes: HashMap<VolumeId, Option<Arc<VolumeSpec>>> =
            workers.keys().copied().chain(leftovers).map(|id| (id, None)).collect();
        wishes.extend(spec.volumes.iter().map(|volume| (volume.id, Some(Arc::new(volume.clone())))));
        for (id, wish) in wishes {
            // Told at once: whoever reads that this spec was read must find every volume that is still here.
            match &wish {
                // Its worker may just have told that it is gone.
                None if workers.contains_key(&id) => self.shared.board.volume_removing(id),
                None => self.shared.board.volume_change(id, |report| report.state = VolumeState::Removing),
                Some(_) => self.shared.board.volume_change(id, |_| {}),
            }
            match workers.get(&id) {
                Some(handle) => {
                    handle.wish.send_if_modified(|now| {
                        let changed = *now != wish;
                        *now = wish;
                        changed
                    });
                }
                None => {
                    let (wish, receiver) = watch::channel(wish);
                    let (shared, failed) = (Arc::clone(&self.shared), BTreeMap::new());
                    let worker = volumes::Worker { id, shared, wish: receiver, failed, told_ready: false };
                    workers.insert(id, VolumeHandle { wish, task: tokio::spawn(worker.run()) });
                }
            }
        }
    }

    fn servers(&self, spec: &NodeSpec, workers: &mut HashMap<ServerId, Handle>, leftovers: BTreeSet<ServerId>) {
        workers.retain(|_, handle| !handle.task.is_finished());
        let mut wishes: HashMap<ServerId, Option<Arc<Wish>>> =
            workers.keys().copied().chain(leftovers).map(|id| (id, None)).collect();
        let nics: HashMap<PortId, NicWish> =
            spec.networks.iter().flat_map(|n| n.ports.iter().map(|p| (p.id, (p.id, p.mac, n.mtu)))).collect();
        wishes.extend(spec.servers.iter().map(|server| (server.id, Some(Arc::new(wish(spec, &nics, server))))));
        let done = self.shared.board.report().disks_removed;
        self.shared.board.disks_removed_keep(&spec.disk_removals);
        let removals = spec.disk_removals.iter().copied().filter(|id| !done.contains(id)).collect::<BTreeSet<_>>();
        for id in &removals {
            wishes.entry(*id).or_default();
        }
        *self.shared.disk_removals.lock().unwrap_or_else(PoisonError::into_inner) = removals;
        for (id, wish) in wishes {
            match workers.get(&id) {
                Some(handle) => {
                    handle.wish.send_if_modified(|now| {
                        let changed = *now != wish;
                        *now = wish;
                        changed
                    });
                }
                None => {
                    workers.insert(id, self.worker(id, wish));
                }
            }
        }
    }

    fn worker(&self, id: ServerId, wish: Option<Arc<Wish>>) -> Handle {
        let (wish, receiver) = watch::channel(wish);
        let (look, busy) = (Arc::new(Notify::new()), Arc::new(tokio::sync::Mutex::new(())));
        let worker = Worker {
            id,
            shared: Arc::clone(&self.shared),
            wish: receiver,
            look: Arc::clone(&look),
            busy: Arc::clone(&busy),
            volume_faults: Vec::new(),
            migration: None,
        };
        Handle { wish, look, busy, task: tokio::spawn(worker.run()) }
    }

    /// Fetches images before servers need them. One that could not be fetched is tried again with the next spec.
    fn prefetch(&self, spec: &NodeSpec, fetching: &mut HashMap<String, JoinHandle<()>>) {
        fetching.retain(|sha256, task| {
            let wanted = spec.prefetch.iter().any(|source| source.sha256 == *sha256);
            if !wanted {
                task.abort();
            }
            wanted && !task.is_finished()
        });
        for source in &spec.prefetch {
            let (shared, source) = (Arc::clone(&self.shared), source.clone());
            fetching.entry(source.sha256.clone()).or_insert_with(|| {
                tokio::spawn(async move {
                    let fetched = shared.drivers.storage.image_ensure(&source, shared.fetch.as_ref(), &|_| ()).await;
                    match fetched {
                        Ok(()) => read_facts(&shared).await,
                        Err(error) => {
                            tracing::warn!(image.id = %source.id, error = chain(&error), "an image was not fetched");
                        }
                    }
                })
            });
        }
    }

    fn snapshots(
        &self,
        spec: &NodeSpec,
        making: &mut HashMap<ImageId, JoinHandle<()>>,
        workers: &HashMap<ServerId, Handle>,
    ) {
        making.retain(|id, task| {
            let wanted = spec.snapshots.iter().any(|s| s.image_id == *id);
            if !wanted {
                task.abort();
                self.shared.board.snapshot_gone(*id);
            }
            wanted
        });
        for snapshot in &spec.snapshots {
            let SnapshotSpec { image_id, server_id, volume_id, format } = snapshot;
            let of_server = || {
                let server = (*server_id)?;
                Some(snapshots::Source::Server(server, Arc::clone(&workers.get(&server)?.busy)))
            };
            let of_volume = volume_id.map(|volume| snapshots::Source::Volume(volume, *format));
            let Some(source) = of_volume.or_else(of_server) else { continue };
            making
                .entry(*image_id)
                .or_insert_with(|| tokio::spawn(snapshots::make(Arc::clone(&self.shared), *image_id, source)));
        }
    }
}

/// What one server shall be, with what it needs of the rest of the spec.
fn wish(spec: &NodeSpec, nics: &HashMap<PortId, NicWish>, server: &ServerSpec) -> Wish {
    Wish {
        nics: server.ports.iter().filter_map(|id| nics.get(id)).copied().collect(),
        config_drive: server.guest.config_drive.then(|| guest_data::config_drive(spec, server)),
        spec: server.clone(),
    }
}

/// Waits for specs and relays, for ever.
async fn listen(shared: Arc<Shared>, spec_in: watch::Sender<TurnSpec>) {
    let (mut after, mut pause) = (0, RECONNECT_FIRST);
    let mut relays_known: HashSet<RelayId> = HashSet::new();
    let (mut turns, mut asked_in) = (shared.lease.turns(), 0);
    loop {
        let known: Vec<RelayId> = relays_known.iter().copied().collect();
        let turn = *turns.borrow_and_update();
        if turn != asked_in {
            // Whatever was said before may be over: all of it is asked for again.
            after = 0;
        }
        let answer = tokio::select! {
            answer = shared.link.spec(after, &known) => answer,
            _ = turns.changed() => continue,
        };
        if answer.is_ok() {
            asked_in = turn;
        }
        match answer {
            Ok(Some(spec)) => {
                pause = RECONNECT_FIRST;
                let current: HashSet<RelayId> = spec.relays.iter().map(|r| r.id).collect();
                for relay in spec.relays.iter().filter(|r| !relays_known.contains(&r.id)) {
                    tokio::spawn(relays::carry(Arc::clone(&shared), *relay));
                }
                relays_known = current;
                if spec.generation != after {
                    after = spec.generation;
                    spec_in.send_replace((turn, Arc::new(spec)));
                }
            }
            Ok(None) => {
                pause = RECONNECT_FIRST;
                relays_known.clear();
            }
            Err(error) => {
                log_link(&error, "the server does not give this node its spec");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RECONNECT_LONGEST);
            }
        }
    }
}

/// Tells the server what is on the board whenever it changes, and now and then anyway.
async fn report(shared: Arc<Shared>, directory: Arc<Directory>) {
    let mut changed = shared.board.listen();
    let mut left = directory.listen();
    let mut pause = RECONNECT_FIRST;
    loop {
        changed.mark_unchanged();
        left.mark_unchanged();
        for report in shared.board.report().servers {
            if let Some(usage) = shared.drivers.hypervisor.usage(report.id).await {
                shared.board.server_usage(report.id, usage.cpu_ms, usage.memory_kib);
            }
        }
        let mut said = shared.board.report();
        said.passwords_left = directory.passwords_left();
        match shared.link.report(&said).await {
            Ok(()) => {
                pause = RECONNECT_FIRST;
                tokio::select! {
                    _ = changed.changed() => tokio::time::sleep(REPORT_DEBOUNCE).await,
                    _ = left.changed() => {}
                    () = tokio::time::sleep(REPORT_EVERY) => {}
                }
            }
            Err(error) => {
                log_link(&error, "the server does not take this node's report");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RECONNECT_LONGEST);
            }
        }
    }
}

/// Renews the node's certificate: at the start, and at half of each one's life.
async fn renew(shared: Arc<Shared>) {
    loop {
        let wait = match shared.link.renew().await {
            Ok(wait) => wait,
            Err(error) => {
                log_link(&error, "this node's certificate could not be renewed");
                Duration::from_secs(30)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Keeps the network as the latest spec wishes.
async fn keep_network(shared: Arc<Shared>, mut spec: watch::Receiver<TurnSpec>) {
    if spec.changed().await.is_err() {
        return;
    }
    loop {
        let (_, wished) = spec.borrow_and_update().clone();
        let network = &shared.drivers.network;
        let outcome = network.reconcile(&wished.networks, &wished.routers, &wished.security_groups).await;
        for fault in &outcome.faults {
            tracing::warn!(fault, "part of the network is not as wished");
        }
        let again = if outcome.faults.is_empty() { NETWORK_EVERY } else { Duration::from_secs(2) };
        let moves = wished.networks.iter().flat_map(|network| &network.ports);
        let moves = moves.filter_map(|port| Some((port.id, port.moving?))).collect();
        shared.board.network(outcome.ports_up, outcome.faults, moves);
        if let Ok(Err(_)) = tokio::time::timeout(again, spec.changed()).await {
            return;
        }
    }
}

/// Reads the node's figures now and then, and keeps the image cache within its limit.
async fn facts(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(FACTS_EVERY).await;
        read_facts(&shared).await;
        let max = shared.config.image_cache_bytes_max;
        let stores = [Some(&shared.drivers.storage), shared.drivers.shared.as_ref().map(|s| &s.storage)];
        for storage in stores.into_iter().flatten() {
            if let Err(error) = storage.image_evict(&BTreeSet::new(), max).await {
                tracing::warn!(error = chain(&error), "old images could not be removed from the cache");
            }
        }
    }
}

pub(crate) async fn read_facts(shared: &Shared) {
    let mut facts = shared.config.pretend.clone().unwrap_or_else(machine);
    facts.agent_version = env!("CARGO_PKG_VERSION").to_owned();
    facts.boot_id.clone_from(&shared.boot_id);
    facts.underlay = shared.config.underlay.or(facts.underlay);
    facts.booted_at_s = booted_at_s();
    match shared.drivers.hypervisor.facts().await {
        Ok(hypervisor) => {
            facts.hypervisor_version = hypervisor.version;
            facts.accel = hypervisor.accel;
            facts.cpu.machine = hypervisor.machine;
        }
        Err(error) => tracing::error!(error = chain(&error), "this node cannot run guests"),
    }
    if shared.config.pretend.is_none()
        && let Ok(capacity) =
            shared.drivers.shared.as_ref().map_or(&shared.drivers.storage, |s| &s.storage).capacity().await
    {
        facts.disk_gib = capacity.total_bytes >> 30;
        facts.disk_free_gib = capacity.free_bytes >> 30;
    }
    facts.measured = shared.config.measured_in.as_deref().and_then(measure::kept);
    facts.disk_pool = shared.drivers.shared.as_ref().map(|shared| shared.id);
    facts.cached_images = shared.drivers.storage.images().await.unwrap_or_default();
    shared.board.facts(facts);
}

/// When the kernel says that the machine was booted, in seconds since 1970.
fn booted_at_s() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

/// The machine's own figures.
fn machine() -> NodeFacts {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory_kib: u64 = read("/proc/meminfo")
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    let cpuinfo = read("/proc/cpuinfo");
    let cpu_model = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()))
        .unwrap_or_default();
    NodeFacts {
        cpu_model,
        cpu: CpuFacts::of_cpuinfo(&cpuinfo),
        vcpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_mib: (memory_kib >> 10).saturating_sub(RESERVED_MIB),
        ..NodeFacts::default()
    }
}

fn log_link(error: &LinkError, what: &str) {
    if error.is_transient() {
        tracing::debug!(error = chain(error), "{what}");
    } else {
        tracing::error!(error = chain(error), "{what}");
    }
}
