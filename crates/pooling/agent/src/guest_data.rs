//! What a guest is told about itself, in the layout that cloud-init and others read: `openstack/` and `ec2/`, each dated
//! version the same. The metadata service and the config drive say the same.

use arcus_network::{GuestDirectory, Left};
use arcus_types::agent::{
    DeviceModel, GuestData, NetworkSpec, NodeSpec, PASSWORD_LEFT_BYTES_MAX, PasswordLeft, PortSpec, ServerSpec,
    SubnetSpec,
};
use arcus_types::{PortId, ServerId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// The versions of the `openstack/` tree that are offered.
const OPENSTACK_VERSIONS: &[&str] = &["2012-08-10", "2013-10-17", "2015-10-15", "2016-06-30", "2018-08-27", "latest"];
/// The versions of the EC2 tree that are offered.
const EC2_VERSIONS: &[&str] = &["1.0", "2009-04-04", "latest"];

/// Everything one guest is told, by path below the tree of a version.
struct Documents {
    meta_data: Vec<u8>,
    network_data: Vec<u8>,
    user_data: Option<Vec<u8>>,
    /// What is in the files for the guest, in the order in which the metadata names them.
    contents: Vec<Vec<u8>>,
    ec2: BTreeMap<String, String>,
    key_names: Vec<String>,
    /// The password that the server knows of.
    password: Option<String>,
}

/// Finds what to tell a guest by its port, and holds what guests leave until the server knows of it. What is told is made
/// when a guest asks: most never do, and then once.
pub struct Directory {
    known: RwLock<Known>,
    left: watch::Sender<BTreeMap<ServerId, PasswordLeft>>,
}

#[derive(Default)]
struct Known {
    spec: Arc<NodeSpec>,
    /// The places of the ports' servers in the spec.
    servers: HashMap<PortId, usize>,
}

impl Default for Directory {
    fn default() -> Self {
        Self { known: RwLock::default(), left: watch::channel(BTreeMap::new()).0 }
    }
}

impl Directory {
    /// Hears when a guest has left something.
    pub(crate) fn listen(&self) -> watch::Receiver<BTreeMap<ServerId, PasswordLeft>> {
        self.left.subscribe()
    }

    /// What guests have left and the server does not know of yet.
    pub(crate) fn passwords_left(&self) -> Vec<PasswordLeft> {
        self.left.borrow().values().cloned().collect()
    }

    /// Takes in a new spec.
    pub fn load(&self, spec: &Arc<NodeSpec>) {
        let servers = spec.servers.iter().enumerate();
        let servers = servers.flat_map(|(at, server)| server.ports.iter().map(move |port| (*port, at))).collect();
        // What the server knows, or its owner has thrown away, need not be told again.
        let awaited = |left: &PasswordLeft| {
            let server = spec.servers.iter().find(|server| server.id == left.server_id);
            server.is_some_and(|s| s.guest.password_left.is_none() && s.guest.password_turn == left.turn)
        };
        self.left.send_if_modified(|left| {
            let before = left.len();
            left.retain(|_, password| awaited(password));
            left.len() != before
        });
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { spec: Arc::clone(spec), servers };
    }

    /// The spec, and the place in it of the server with this port.
    fn server_of(&self, port: PortId) -> Option<(Arc<NodeSpec>, usize)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        Some((Arc::clone(&known.spec), *known.servers.get(&port)?))
    }
}

impl GuestDirectory for Directory {
    fn document(&self, port: PortId, path: &str) -> Option<Vec<u8>> {
        let (spec, at) = self.server_of(port)?;
        let server = spec.servers.get(at)?;
        documents(server, &interfaces(&spec, &server.ports)).find(path.trim_matches('/'))
    }

    fn leave(&self, port: PortId, path: &str, bytes: &[u8]) -> Left {
        let found = self.server_of(port).filter(|_| is_password(path));
        let Some(server) = found.as_ref().and_then(|(spec, at)| spec.servers.get(*at)) else { return Left::NotHere };
        if server.guest.password_left.is_some() {
            return Left::Stands;
        }
        let fits = (1..=PASSWORD_LEFT_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        let Some(text) = str::from_utf8(bytes).ok().filter(|_| fits) else { return Left::Refused };
        let password = PasswordLeft { server_id: server.id, turn: server.guest.password_turn, text: text.to_owned() };
        self.left.send_modify(|left| drop(left.insert(password.server_id, password)));
        Left::Taken
    }
}

/// Whether a path is that of the guest's password, in any version that has one.
fn is_password(path: &str) -> bool {
    let mut parts = path.trim_matches('/').split('/');
    let version = parts.next().filter(|tree| *tree == "openstack").and_then(|_| parts.next());
    version.is_some_and(|version| OPENSTACK_VERSIONS.contains(&version) && version != "2012-08-10")
        && parts.next() == Some("password")
        && parts.next().is_none()
}

/// The files of a config drive.
///
/// Only here is the password told: the metadata service would tell it to every program in the guest.
pub(crate) fn config_drive(spec: &NodeSpec, server: &ServerSpec) -> BTreeMap<String, Vec<u8>> {
    let mut documents = documents(server, &interfaces(spec, &server.ports));
    if let Some(password) = &server.guest.admin_password {
        let mut meta_data = meta_data(server);
        meta_data["admin_pass"] = json!(password);
        documents.meta_data = serde_json::to_vec(&meta_data).unwrap_or_default();
    }
    let mut files = BTreeMap::new();
    for version in ["2012-08-10", "2018-08-27", "latest"] {
        files.insert(format!("openstack/{version}/meta_data.json"), documents.meta_data.clone());
        files.insert(format!("openstack/{version}/network_data.json"), documents.network_data.clone());
        files.insert(format!("openstack/{version}/vendor_data.json"), b"{}".to_vec());
        if let Some(user_data) = &documents.user_data {
            files.insert(format!("openstack/{version}/user_data"), user_data.clone());
        }
    }
    for (at, content) in documents.contents.iter().enumerate() {
        files.insert(format!("openstack{}", content_path(at)), content.clone());
    }
    files.insert("ec2/latest/meta-data.json".into(), ec2_file(&documents.ec2));
    if let Some(user_data) = &documents.user_data {
        files.insert("ec2/latest/user-data".into(), user_data.clone());
    }
    files
}

/// The values of the EC2 tree that a config drive has: those at its top, and which disks there are.
fn ec2_file(tree: &BTreeMap<String, String>) -> Vec<u8> {
    let mut top: BTreeMap<&str, Value> =
        tree.iter().filter(|(k, _)| !k.contains('/')).map(|(k, v)| (k.as_str(), json!(v))).collect();
    let disks = tree.iter().filter_map(|(k, v)| Some((k.strip_prefix(EC2_DISKS)?, v)));
    let disks: BTreeMap<&str, &String> = disks.collect();
    top.insert(EC2_DISKS.trim_end_matches('/'), json!(disks));
    serde_json::to_vec(&top).unwrap_or_default()
}

/// The ports of a server with their networks, in the server's order.
fn interfaces<'a>(spec: &'a NodeSpec, ports: &[PortId]) -> Vec<(&'a NetworkSpec, &'a PortSpec)> {
    ports
        .iter()
        .filter_map(|id| {
            spec.networks.iter().find_map(|network| network.ports.iter().find(|p| p.id == *id).map(|p| (network, p)))
        })
        .collect()
}

fn documents(server: &ServerSpec, interfaces: &[(&NetworkSpec, &PortSpec)]) -> Documents {
    Documents {
        meta_data: serde_json::to_vec(&meta_data(server)).unwrap_or_default(),
        network_data: serde_json::to_vec(&network_data(interfaces)).unwrap_or_default(),
        user_data: server.guest.user_data_base64.as_ref().and_then(|text| STANDARD.decode(text).ok()),
        contents: server.guest.files.iter().map(|(_, text)| STANDARD.decode(text).unwrap_or_default()).collect(),
        ec2: ec2(server, interfaces),
        key_names: server.guest.public_keys.iter().map(|(name, _)| name.clone()).collect(),
        password: server.guest.password_left.clone(),
    }
}

fn meta_data(server: &ServerSpec) -> Value {
    let GuestData { name, hostname, project_id, availability_zone, metadata, public_keys, launch_index, .. } =
        &server.guest;
    let mut document = json!({
        "uuid": server.id,
        "name": name,
        "hostname": hostname,
        "local-hostname": hostname,
        "availability_zone": availability_zone,
        "launch_index": launch_index,
        "project_id": project_id,
        "devices": [],
    });
    if let Some(object) = document.as_object_mut() {
        if !metadata.is_empty() {
            object.insert("meta".into(), json!(metadata));
        }
        if !public_keys.is_empty() {
            let by_name: BTreeMap<&str, &str> = public_keys.iter().map(|(n, k)| (n.as_str(), k.as_str())).collect();
            let list: Vec<Value> =
                public_keys.iter().map(|(n, k)| json!({ "name": n, "type": "ssh", "data": k })).collect();
            object.insert("public_keys".into(), json!(by_name));
            object.insert("keys".into(), json!(list));
        }
        if let Some(seed) = &server.guest.random_seed_base64 {
            object.insert("random_seed".into(), json!(seed));
        }
        if !server.guest.files.is_empty() {
            let files = server.guest.files.iter().enumerate();
            let files = files.map(|(at, (path, _))| json!({ "path": path, "content_path": content_path(at) }));
            object.insert("files".into(), files.collect());
        }
    }
    document
}

/// Where the content of a guest's file is, below the tree.
fn content_path(at: usize) -> String {
    format!("/content/{at:04}")
}

fn network_data(interfaces: &[(&NetworkSpec, &PortSpec)]) -> Value {
    let (mut links, mut networks, mut services) = (Vec::new(), Vec::new(), Vec::<Value>::new());
    for (network, port) in interfaces {
        let link = format!("tap{}", &port.id.to_string()[..11]);
        links.push(json!({
            "id": link, "vif_id": port.id, "type": "bridge", "mtu": network.mtu, "ethernet_mac_address": port.mac,
        }));
        for address in &port.addresses {
            let Some(subnet) = network.subnets.iter().find(|s| s.id == address.subnet_id) else { continue };
            for service in dns_services(subnet) {
                if !services.contains(&service) {
                    services.push(service);
                }
            }
            let mut entry = network_entry(subnet, address.address);
            if let Some(object) = entry.as_object_mut() {
                object.insert("id".into(), json!(format!("network{}", networks.len())));
                object.insert("link".into(), json!(link));
                object.insert("network_id".into(), json!(network.id));
            }
            networks.push(entry);
        }
    }
    json!({ "links": links, "networks": networks, "services": services })
}

fn dns_services(subnet: &SubnetSpec) -> Vec<Value> {
    subnet.dns_servers.iter().map(|server| json!({ "type": "dns", "address": server })).collect()
}

/// How an interface comes by one address, as nova words it: by DHCP, by the range's IPv6 mode, or as written here.
fn network_entry(subnet: &SubnetSpec, address: IpAddr) -> Value {
    let kind = match (address, subnet.ipv6_address_mode) {
        (IpAddr::V4(_), _) if subnet.dhcp => return json!({ "type": "ipv4_dhcp" }),
        (IpAddr::V4(_), _) => "ipv4".to_owned(),
        (IpAddr::V6(_), Some(mode)) => format!("ipv6_{}", mode.as_str()),
        (IpAddr::V6(_), None) => "ipv6".to_owned(),
    };
    let mut routes: Vec<Value> = subnet.gateway.iter().map(default_route).collect();
    let further = subnet.host_routes.iter();
    routes.extend(further.map(|(to, via)| json!({ "network": to.network(), "netmask": to.netmask(), "gateway": via })));
    json!({
        "type": kind, "ip_address": address, "netmask": subnet.cidr.netmask(), "routes": routes,
        "services": dns_services(subnet),
    })
}

fn default_route(gateway: &IpAddr) -> Value {
    let zero = if gateway.is_ipv4() { "0.0.0.0" } else { "::" };
    json!({ "network": zero, "netmask": zero, "gateway": gateway })
}

/// Where the EC2 tree tells which disks there are.
const EC2_DISKS: &str = "block-device-mapping/";

fn ec2(server: &ServerSpec, interfaces: &[(&NetworkSpec, &PortSpec)]) -> BTreeMap<String, String> {
    let number = server.id.0.as_u128() as u32;
    let image = server.root_disk.as_ref().map_or(0, |disk| disk.image.id.0.as_u128() as u32);
    let address = interfaces
        .iter()
        .flat_map(|(_, port)| &port.addresses)
        .find(|a| a.address.is_ipv4())
        .map_or_else(String::new, |a| a.address.to_string());
    let mut tree = BTreeMap::from([
        ("ami-id".to_owned(), format!("ami-{image:08x}")),
        ("ami-launch-index".into(), server.guest.launch_index.to_string()),
        ("ami-manifest-path".into(), "FIXED".into()),
        ("hostname".into(), server.guest.hostname.clone()),
        ("instance-action".into(), "none".into()),
        ("instance-id".into(), format!("i-{number:08x}")),
        ("local-hostname".into(), server.guest.hostname.clone()),
        ("local-ipv4".into(), address),
        ("placement/availability-zone".into(), server.guest.availability_zone.clone()),
        ("public-hostname".into(), server.guest.hostname.clone()),
        ("public-ipv4".into(), String::new()),
        ("reservation-id".into(), format!("r-{number:08x}")),
    ]);
    // By these names guests' systems find the disk to mount and the one to swap to.
    let letter = if server.hardware.devices == DeviceModel::Emulated { "sd" } else { "vd" };
    tree.insert(format!("{EC2_DISKS}ami"), format!("{letter}a"));
    tree.insert(format!("{EC2_DISKS}root"), format!("/dev/{letter}a"));
    for ((name, _), last) in server.local_disks.named().zip('b'..='z') {
        tree.insert(format!("{EC2_DISKS}{name}"), format!("/dev/{letter}{last}"));
    }
    for (index, (_, key)) in server.guest.public_keys.iter().enumerate() {
        tree.insert(format!("public-keys/{index}/openssh-key"), key.clone());
    }
    tree
}

impl Documents {
    fn find(&self, path: &str) -> Option<Vec<u8>> {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        match (first, rest) {
            ("", _) => Some(EC2_VERSIONS.join("\n").into_bytes()),
            ("openstack", "") => Some(OPENSTACK_VERSIONS.join("\n").into_bytes()),
            ("openstack", rest) if rest.starts_with("content/") => {
                let named = |at: &usize| content_path(*at).trim_start_matches('/') == rest;
                let at = (0..self.contents.len()).find(named)?;
                self.contents.get(at).cloned()
            }
            ("openstack", rest) => {
                let (version, file) = rest.split_once('/').unwrap_or((rest, ""));
                OPENSTACK_VERSIONS.contains(&version).then(|| self.openstack(file)).flatten()
            }
            (version, rest) if EC2_VERSIONS.contains(&version) => self.ec2(rest),
            (_, _) => None,
        }
    }

    fn openstack(&self, file: &str) -> Option<Vec<u8>> {
        match file {
            "" => {
                let mut names = vec!["meta_data.json", "network_data.json", "password", "vendor_data.json"];
                names.extend(self.user_data.is_some().then_some("user_data"));
                Some(names.join("\n").into_bytes())
            }
            "meta_data.json" => Some(self.meta_data.clone()),
            "network_data.json" => Some(self.network_data.clone()),
            "vendor_data.json" | "vendor_data2.json" => Some(b"{}".to_vec()),
            "user_data" => self.user_data.clone(),
            "password" => Some(self.password.clone().unwrap_or_default().into_bytes()),
            _ => None,
        }
    }

    fn ec2(&self, path: &str) -> Option<Vec<u8>> {
        match path.trim_end_matches('/') {
            "" => Some(b"meta-data/\nuser-data".to_vec()),
            "user-data" => self.user_data.clone(),
            "meta-data" => Some(self.children("")),
            "meta-data/public-keys" if !self.key_names.is_empty() => {
                let lines: Vec<String> = self.key_names.iter().enumerate().map(|(i, n)| format!("{i}={n}")).collect();
                Some(lines.join("\n").into_bytes())
            }
            other => {
                let key = other.strip_prefix("meta-data/")?;
                if let Some(value) = self.ec2.get(key) {
                    return Some(value.clone().into_bytes());
                }
                let children = self.children(&format!("{key}/"));
                (!children.is_empty()).then_some(children)
            }
        }
    }

    /// The names below a folder of the EC2 tree, folders with a slash, a line each.
    fn children(&self, folder: &str) -> Vec<u8> {
        let mut names: Vec<String> = Vec::new();
        for key in self.ec2.keys().filter_map(|k| k.strip_prefix(folder)) {
            let name = match key.split_once('/') {
                Some((first, _)) => format!("{first}/"),
                None => key.to_owned(),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join("\n").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_types::agent::*;
    use arcus_types::{ImageId, MacAddr, NetworkId, ServerId, SubnetId};

    fn server() -> ServerSpec {
        ServerSpec {
            id: ServerId::new(),
            version: 1,
            epoch: 1,
            power: Power::Running,
            restarts: RestartSpec::default(),
            shutdown_grace_s: 60,
            hardware: HardwareSpec {
                vcpus: 1,
                memory_mib: 128,
                devices: DeviceModel::Virtio,
                cpu_weight: 100,
                cpu_limit_millicores: None,
            },
            root_disk: Some(RootDiskSpec {
                image: ImageSource {
                    id: ImageId::new(),
                    sha256: String::new(),
                    size_bytes: 0,
                    format: DiskFormat::Qcow2,
                },
                size_bytes: 1 << 30,
                incarnation: 1,
            }),
            volumes: Vec::new(),
            ports: vec![PortId::new()],
            guest: GuestData {
                name: "Web 1".into(),
                hostname: "web-1".into(),
                public_keys: vec![("me".into(), "ssh-ed25519 AAAA".into())],
                user_data_base64: Some(STANDARD.encode("#!/bin/sh\ntrue\n")),
                ..GuestData::default()
            },
            rescue: None,
            password: None,
            migration: None,
            local_disks: LocalDisksSpec::default(),
            disk_pool: None,
        }
    }

    #[test]
    fn each_address_says_how_a_guest_comes_by_it() {
        let subnet = |cidr: &str, gateway: &str, mode: Option<Ipv6Mode>| SubnetSpec {
            id: SubnetId::new(),
            cidr: cidr.parse().unwrap(),
            gateway: gateway.parse().ok(),
            dhcp: true,
            dns_servers: vec!["fd00::53".parse().unwrap()],
            host_routes: vec![],
            ipv6_address_mode: mode,
            ipv6_ra_mode: mode,
        };
        let subnets = vec![
            subnet("10.0.0.0/24", "10.0.0.1", None),
            subnet("fd00:a::/64", "fd00:a::1", Some(Ipv6Mode::Slaac)),
            subnet("fd00:b::/64", "fd00:b::1", Some(Ipv6Mode::DhcpStateful)),
            subnet("fd00:c::/64", "fd00:c::1", None),
        ];
        let addresses = ["10.0.0.5", "fd00:a::5", "fd00:b::5", "fd00:c::5"].iter().zip(&subnets);
        let port = PortSpec {
            id: PortId::new(),
            server_id: None,
            mac: MacAddr::for_port([0, 0, 1]),
            addresses: addresses.map(|(ip, s)| FixedIp { subnet_id: s.id, address: ip.parse().unwrap() }).collect(),
            security_groups: vec![],
            port_security: true,
            allowed_pairs: vec![],
            admin_up: true,
            hostname: String::new(),
            dns_domain: String::new(),
            dhcp_options: vec![],
            qos: QosSpec::default(),
            moving: None,
            flows: Vec::new(),
        };
        let network = NetworkSpec {
            id: NetworkId::new(),
            segment: 1,
            mtu: 1450,
            external: None,
            subnets,
            ports: vec![],
            peers: vec![],
        };
        let document = network_data(&[(&network, &port)]);
        let networks = document["networks"].as_array().unwrap();
        let of = |key: &str| networks.iter().map(|n| n[key].as_str().unwrap_or_default()).collect::<Vec<_>>();
        assert_eq!(of("type"), ["ipv4_dhcp", "ipv6_slaac", "ipv6_dhcpv6-stateful", "ipv6"]);
        assert_eq!(of("id"), ["network0", "network1", "network2", "network3"]);
        assert_eq!(of("ip_address"), ["", "fd00:a::5", "fd00:b::5", "fd00:c::5"]);
        assert_eq!(networks[3]["netmask"], "ffff:ffff:ffff:ffff::");
        assert_eq!(networks[3]["routes"][0]["gateway"], "fd00:c::1");
        assert_eq!(document["services"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_guest_leaves_one_password_for_each_turn() {
        let mut server = server();
        let directory = Directory::default();
        let load = |server: &ServerSpec| {
            directory.load(&Arc::new(NodeSpec { servers: vec![server.clone()], ..NodeSpec::default() }));
        };
        load(&server);
        let (port, path) = (server.ports[0], "/openstack/latest/password");
        assert_eq!(directory.leave(port, "/openstack/latest/user_data", b"x"), Left::NotHere);
        assert_eq!(directory.leave(PortId::new(), path, b"x"), Left::NotHere);
        for refused in [&b""[..], b"two words", &[b'x'; 1021]] {
            assert_eq!(directory.leave(port, path, refused), Left::Refused);
        }
        assert_eq!(directory.leave(port, path, b"sealed"), Left::Taken);
        assert_eq!(directory.document(port, path).unwrap(), b"", "it is not kept yet");
        assert_eq!(directory.passwords_left()[0].text, "sealed");
        server.guest.password_left = Some("sealed".into());
        load(&server);
        assert_eq!(directory.document(port, path).unwrap(), b"sealed");
        assert!(directory.passwords_left().is_empty());
        assert_eq!(directory.leave(port, path, b"again"), Left::Stands);
        (server.guest.password_left, server.guest.password_turn) = (None, 1);
        load(&server);
        assert_eq!(directory.leave(port, path, b"again"), Left::Taken);
        assert_eq!(directory.passwords_left()[0].turn, 1);
    }

    #[test]
    fn both_trees_tell_the_same_guest() {
        let server = server();
        let directory = Directory::default();
        directory.load(&Arc::new(NodeSpec { servers: vec![server.clone()], ..NodeSpec::default() }));
        let get = |path: &str| directory.document(server.ports[0], path).map(|b| String::from_utf8(b).unwrap());
        let meta: Value = serde_json::from_str(&get("/openstack/latest/meta_data.json").unwrap()).unwrap();
        assert_eq!(meta["hostname"], "web-1");
        assert_eq!(meta["public_keys"]["me"], "ssh-ed25519 AAAA");
        assert_eq!(get("/latest/meta-data/hostname").unwrap(), "web-1");
        assert_eq!(get("/latest/meta-data/public-keys/0/openssh-key").unwrap(), "ssh-ed25519 AAAA");
        assert!(get("/latest/meta-data/").unwrap().lines().any(|l| l == "public-keys/"));
        assert_eq!(get("/openstack/latest/user_data").unwrap(), "#!/bin/sh\ntrue\n");
        assert_eq!(get("/openstack/latest/password").unwrap(), "");
        assert_eq!(get("/openstack/2099-01-01/meta_data.json"), None);
        assert_eq!(directory.document(PortId::new(), "/latest/meta-data/hostname"), None);
    }
}
