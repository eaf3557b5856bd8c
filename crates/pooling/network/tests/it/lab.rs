//! A node in a namespace of its own, and guests that are namespaces behind real taps.

use arcus_network::{GuestDirectory, Linux, LinuxConfig, Network, NetworkOutcome, Tag};
use arcus_types::agent::*;
use arcus_types::ids::*;
use arcus_types::text::MacAddr;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long something that shall come about may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited for something that shall not come about.
pub const DOUBT: Duration = Duration::from_millis(700);

/// A namespace without a name.
#[derive(Clone)]
pub struct Ns(Arc<File>);

impl Ns {
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Self::current()
        });
        let ns = made.join().unwrap();
        ns.run("ip link set lo up");
        ns
    }

    pub fn current() -> Self {
        Self(Arc::new(File::open("/proc/thread-self/ns/net").unwrap()))
    }

    pub fn named(name: &str) -> Self {
        Self(Arc::new(File::open(format!("/run/netns/{name}")).unwrap()))
    }

    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&*self.0, CloneFlags::CLONE_NEWNET).unwrap();
                    work()
                })
                .join()
                .unwrap()
        })
    }

    pub fn try_run(&self, command: &str) -> Output {
        let words: Vec<&str> = command.split_whitespace().collect();
        self.inside(|| Command::new(words[0]).args(&words[1..]).output().unwrap())
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn run(&self, command: &str) -> String {
        let output = self.try_run(command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A cable: `name` here, `eth0` there, each with an address.
    pub fn cable(&self, name: &str, here: &str, there: &Ns, address: &str) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), there.0.as_raw_fd());
        self.run(&format!("ip link add name {name} type veth peer name eth0 netns {path}"));
        for (ns, device, address) in [(self, name, here), (there, "eth0", address)] {
            if !address.is_empty() {
                ns.run(&format!("ip addr add {address} dev {device}"));
            }
            ns.run(&format!("ip link set dev {device} up"));
        }
    }

    fn ping_once(&self, address: IpAddr, wait: Duration) -> bool {
        self.try_run(&format!("ping -n -c 1 -W {} {address}", wait.as_secs_f64())).status.success()
    }

    /// Whether the address answers before patience ends.
    pub fn reaches(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        eventually(|| self.ping_once(address, Duration::from_millis(300)))
    }

    /// Whether the address stays silent.
    pub fn misses(&self, address: impl Into<IpAddr>) -> bool {
        !self.ping_once(address.into(), DOUBT)
    }

    pub fn connect(&self, address: SocketAddr, wait: Duration) -> std::io::Result<TcpStream> {
        self.inside(|| TcpStream::connect_timeout(&address, wait))
    }

    /// A server that answers each line with the address that it came from.
    pub fn serve(&self, port: u16) {
        self.serve_at((Ipv4Addr::UNSPECIFIED, port).into());
    }

    /// The same over IPv6.
    pub fn serve6(&self, port: u16) {
        self.serve_at((Ipv6Addr::UNSPECIFIED, port).into());
    }

    fn serve_at(&self, address: SocketAddr) {
        let listener = self.inside(|| TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer_lines(stream));
            }
        });
    }
}

fn answer_lines(mut stream: TcpStream) {
    let peer = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
    let mut buffer = [0; 64];
    while matches!(stream.read(&mut buffer), Ok(n) if n > 0) {
        if stream.write_all(peer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Sends a line and reads the answer.
pub fn exchange(stream: &mut TcpStream, wait: Duration) -> std::io::Result<String> {
    stream.set_read_timeout(Some(wait))?;
    stream.write_all(b"hello")?;
    let mut buffer = [0; 64];
    let n = stream.read(&mut buffer)?;
    if n == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

pub fn eventually(mut check: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    loop {
        if check() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Tells each guest its port and the path that it asked for.
pub struct Directory;

impl GuestDirectory for Directory {
    fn document(&self, port: PortId, path: &str) -> Option<Vec<u8>> {
        (path != "/none").then(|| format!("{port} {path}").into_bytes())
    }
}

/// A node with a driver.
pub struct Lab {
    pub own: Ns,
    pub tag: Tag,
    pub driver: Linux,
    pub networks: Vec<NetworkSpec>,
    pub routers: Vec<RouterSpec>,
    pub groups: Vec<SecurityGroupSpec>,
}

/// Runs a test on a node in a namespace of its own; afterwards nothing may be left.
pub fn lab(test: impl AsyncFnOnce(&mut Lab) + Send + 'static) {
    lab_with(|_| {}, test);
}

pub fn lab_with(
    change: impl FnOnce(&mut LinuxConfig) + Send + 'static,
    test: impl AsyncFnOnce(&mut Lab) + Send + 'static,
) {
    let run = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let own = Ns::current();
        own.run("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let tag: Tag = uuid::Uuid::new_v4().simple().to_string()[..4].parse().unwrap();
            let mut config =
                LinuxConfig { tag: tag.clone(), uplink: None, underlay: None, directory: Arc::new(Directory) };
            change(&mut config);
            let driver = Linux::new(config).unwrap();
            let mut lab = Lab { own, tag, driver, networks: vec![], routers: vec![], groups: vec![] };
            test(&mut lab).await;
            lab.driver.teardown().await.unwrap();
            lab.nothing_is_left();
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
    if let Err(panic) = run.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Drop for Lab {
    /// Also after a failed test the machine is as it was.
    fn drop(&mut self) {
        let prefix = self.tag.namespace_prefix();
        let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        for name in entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(&prefix)) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

impl Lab {
    pub async fn reconcile(&self) -> NetworkOutcome {
        self.driver.reconcile(&self.networks, &self.routers, &self.groups).await
    }

    /// Reconciles; nothing may fail.
    pub async fn settle(&self) -> Vec<PortId> {
        let outcome = self.reconcile().await;
        assert_eq!(outcome.faults, Vec::<String>::new());
        outcome.ports_up
    }

    pub fn nothing_is_left(&self) {
        let names = self.own.run("ip netns");
        assert!(!names.contains(self.tag.as_str()), "{names}");
        let links = self.own.run("ip -o link");
        assert!(!links.contains(&self.tag.device_prefix()), "{links}");
        assert_eq!(self.own.run("nft list tables"), "");
    }

    /// A network with one subnet, and its place in the list.
    pub fn network(&mut self, cidr: &str) -> usize {
        let cidr: ipnet::IpNet = cidr.parse().unwrap();
        let subnet = SubnetSpec {
            id: SubnetId::new(),
            cidr,
            // The first address of an IPv6 range stands for all its routers.
            gateway: cidr.hosts().nth(usize::from(cidr.addr().is_ipv6())),
            dhcp: true,
            dns_servers: vec!["9.9.9.9".parse().unwrap()],
            host_routes: vec![],
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
        };
        self.networks.push(NetworkSpec {
            id: NetworkId::new(),
            segment: 5000 + self.networks.len() as u32,
            mtu: 1450,
            external: None,
            subnets: vec![subnet],
            ports: vec![],
            peers: vec![],
        });
        self.networks.len() - 1
    }

    /// The network's first subnet gets this IPv6 mode.
    pub fn mode(&mut self, network: usize, mode: Ipv6Mode) {
        let subnet = &mut self.networks[network].subnets[0];
        (subnet.ipv6_address_mode, subnet.ipv6_ra_mode) = (Some(mode), Some(mode));
        subnet.dns_servers = vec!["fd00::53".parse().unwrap()];
    }

    /// A port with the address that a guest makes of its Ethernet address in the network's first subnet, and that.
    pub fn port_eui64(&mut self, network: usize, groups: &[SecurityGroupId]) -> (PortId, IpAddr) {
        let prefix = self.networks[network].subnets[0].cidr.network();
        let id = self.port(network, &prefix.to_string(), groups);
        let port = self.port_mut(id);
        let IpAddr::V6(prefix) = prefix else { panic!("{prefix} is not IPv6") };
        let mut octets = prefix.octets();
        octets[8..].copy_from_slice(&port.mac.eui64());
        port.addresses[0].address = IpAddr::from(octets);
        (id, port.addresses[0].address)
    }

    /// A router with a leg, of the subnet's gateway address, on each of the networks; no way out.
    pub fn inner_router(&mut self, networks: &[usize]) -> usize {
        let number = self.routers.len() as u8;
        let legs = networks.iter().map(|net| {
            let network = &self.networks[*net];
            let with_prefix = |s: &SubnetSpec| Some(ipnet::IpNet::new(s.gateway?, s.cidr.prefix_len()).unwrap());
            RouterInterfaceSpec {
                port_id: PortId::new(),
                network_id: network.id,
                mac: MacAddr::for_port([0xed, number, *net as u8]),
                addresses: network.subnets.iter().filter_map(with_prefix).collect(),
            }
        });
        let interfaces = legs.collect();
        self.routers.push(RouterSpec {
            id: RouterId::new(),
            admin_up: true,
            interfaces,
            gateway: None,
            floating_ips: vec![],
            routes: vec![],
            port_forwardings: vec![],
        });
        self.routers.len() - 1
    }

    /// A port with this address in the network's first subnet.
    pub fn port(&mut self, network: usize, address: &str, groups: &[SecurityGroupId]) -> PortId {
        let address: IpAddr = address.parse().unwrap();
        let id = PortId::new();
        let seed = id.0.as_bytes();
        let network = &mut self.networks[network];
        network.ports.push(PortSpec {
            id,
            server_id: Some(ServerId::new()),
            mac: MacAddr::for_port([seed[13], seed[14], seed[15]]),
            addresses: vec![FixedIp { subnet_id: network.subnets[0].id, address }],
            security_groups: groups.to_vec(),
            port_security: true,
            allowed_pairs: vec![],
            admin_up: true,
            hostname: format!("guest-{}", network.ports.len()),
            dns_domain: String::new(),
            dhcp_options: vec![],
            qos: QosSpec::default(),
            moving: None,
            flows: Vec::new(),
        });
        id
    }

    pub fn port_mut(&mut self, id: PortId) -> &mut PortSpec {
        self.networks.iter_mut().flat_map(|n| &mut n.ports).find(|p| p.id == id).unwrap()
    }

    pub fn group(&mut self, rules: Vec<FilterRule>) -> SecurityGroupId {
        let id = SecurityGroupId::new();
        self.groups.push(SecurityGroupSpec { id, rules, members: vec![], address_groups: vec![] });
        id
    }

    /// A group that lets everything out and in.
    pub fn open_group(&mut self) -> SecurityGroupId {
        let directions = [Direction::Ingress, Direction::Egress];
        let types = [EtherType::V4, EtherType::V6];
        self.group(directions.iter().flat_map(|d| types.iter().map(|t| rule(*d, *t, None, None))).collect())
    }

    pub fn group_mut(&mut self, id: SecurityGroupId) -> &mut SecurityGroupSpec {
        self.groups.iter_mut().find(|g| g.id == id).unwrap()
    }

    /// A guest at the port's tap, without addresses.
    pub async fn plug(&self, port: PortId) -> Ns {
        let network = self.networks.iter().find(|n| n.ports.iter().any(|p| p.id == port)).unwrap();
        let spec = network.ports.iter().find(|p| p.id == port).unwrap();
        let near = self.driver.tap(port).await.unwrap();
        let ns = Ns::new();
        let far = ns.inside(|| tap_make("eth0"));
        pump(near, far);
        ns.run(&format!("ip link set eth0 address {} mtu {} up", spec.mac, network.mtu));
        ns
    }

    /// A guest at the port's tap with the port's addresses and its subnet's default route, as if DHCP had told it.
    pub async fn guest(&self, port: PortId) -> Ns {
        let ns = self.plug(port).await;
        let network = self.networks.iter().find(|n| n.ports.iter().any(|p| p.id == port)).unwrap();
        let spec = network.ports.iter().find(|p| p.id == port).unwrap();
        for fixed in &spec.addresses {
            let subnet = network.subnets.iter().find(|s| s.id == fixed.subnet_id).unwrap();
            let probing = if fixed.address.is_ipv6() { "nodad" } else { "" };
            ns.run(&format!("ip addr add {}/{} dev eth0 {probing}", fixed.address, subnet.cidr.prefix_len()));
            if let Some(gateway) = subnet.gateway {
                ns.run(&format!("ip route add default via {gateway} dev eth0"));
            }
        }
        ns
    }
}

pub fn rule(direction: Direction, ethertype: EtherType, protocol: Option<u8>, port: Option<u16>) -> FilterRule {
    FilterRule {
        direction,
        ethertype,
        protocol,
        port_min: port,
        port_max: port,
        remote_cidr: None,
        remote_group: None,
        remote_address_group: None,
    }
}

/// Asks the metadata service; returns status line and body.
pub fn metadata(guest: &Ns, request: &str) -> Option<(String, String)> {
    metadata_at(guest, SocketAddr::from(([169, 254, 169, 254], 80)), request)
}

/// The same at an address of the service.
pub fn metadata_at(guest: &Ns, service: SocketAddr, request: &str) -> Option<(String, String)> {
    let mut stream = guest.connect(service, Duration::from_secs(3)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), body.to_owned()))
}

nix::ioctl_write_int!(tap_attach, b'T', 202);

/// A tap in the calling thread's namespace, with the same header before each frame as the driver's.
fn tap_make(name: &str) -> OwnedFd {
    use nix::libc;
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, which lives until the call returns.
    unsafe { tap_attach(file.as_raw_fd(), &raw mut request as libc::c_ulong) }.unwrap();
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    file.into()
}

/// Carries frames both ways, as QEMU does between a tap and its guest, until the runtime ends.
fn pump(near: OwnedFd, far: OwnedFd) {
    use tokio::io::unix::AsyncFd;
    // SAFETY: both own their descriptors, and nobody replaces or closes them.
    let (near, far) = unsafe { (AsyncFd::register(near).unwrap(), AsyncFd::register(far).unwrap()) };
    let (near, far) = (Arc::new(near), Arc::new(far));
    for (from, to) in [(Arc::clone(&near), Arc::clone(&far)), (far, near)] {
        tokio::spawn(async move {
            let mut buffer = vec![0; 70_000];
            loop {
                let Ok(mut ready) = from.readable().await else { return };
                match ready.try_io(|fd| nix::unistd::read(fd, &mut buffer).map_err(Into::into)) {
                    // A full or downed device drops, as a cable would.
                    Ok(Ok(n)) => drop(nix::unistd::write(&*to, &buffer[..n])),
                    Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(_would_block) => {}
                }
            }
        });
    }
}
