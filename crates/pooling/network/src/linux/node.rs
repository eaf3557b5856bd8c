//! The whole node: one pass from the specification to the kernel.
//!
//! ```text
//! plan        pure, from the specification and the ports' numbers
//! clear       namespaces that nobody names
//! guard       kernel settings and packet filters everywhere, before anything can carry a packet
//! build       routers (they make the cables), then segments, then the agent's own namespace
//! serve       DHCP and metadata; end connections that the new rules forbid; announce addresses that came
//! ```
//! A part that fails is told as a fault, looked at afresh in the next pass, and does not hold up the others.

use super::filter::SegmentFilter;
use super::flows;
use super::luggage;
use super::names::Tag;
use super::namespace::{self, Namespace};
use super::observe::Wanted;
use super::packet;
use super::place::{self, Place};
use super::plan::{Plan, State};
use super::programs::{self, Program};
use super::router::{self, Router, Translations};
use super::segment::{self, Leg, Numbers, Segment};
use super::services::{Known, Services};
use super::{LinuxConfig, external, names};
use crate::{NetworkError, NetworkOutcome};
use arcus_types::agent::{FLOWS_MAX, FlowSpec, NetworkSpec, RouterSpec, SecurityGroupSpec};
use arcus_types::ids::{NetworkId, PortId, SecurityGroupId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::runtime::Handle;

/// What a pass works towards.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    /// Segments and external networks.
    pub networks: Vec<NetworkSpec>,
    /// Routers.
    pub routers: Vec<RouterSpec>,
    /// Rule sets.
    pub groups: Vec<SecurityGroupSpec>,
}

/// What is known of the node.
pub struct Node {
    own: Place,
    segments: BTreeMap<String, SegmentPlace>,
    routers: BTreeMap<String, RouterPlace>,
    /// Settings of the machine's own devices as they were before we changed them.
    borrowed: BTreeMap<String, String>,
}

struct SegmentPlace {
    place: Place,
    numbers: Numbers,
    filter: Option<SegmentFilter>,
    services: Option<Services>,
    /// Ports whose guests' connections have been made known.
    unpacked: BTreeSet<PortId>,
}

struct RouterPlace {
    place: Place,
    translations: Option<Translations>,
}

/// Where taps are: the namespace of each port.
pub type Taps = BTreeMap<PortId, Arc<Namespace>>;

type Faults = Vec<NetworkError>;

/// By router: devices and their new addresses.
type Announcements = Vec<(String, Vec<(String, IpAddr)>)>;

impl Node {
    /// A node of which nothing is known; `own` is the agent's namespace.
    pub fn new(own: Namespace, config: &LinuxConfig) -> Self {
        let own = Place::new(own, config.tag.device_prefix());
        Self { own, segments: BTreeMap::new(), routers: BTreeMap::new(), borrowed: BTreeMap::new() }
    }

    /// Brings the node to the wish.
    pub fn pass(&mut self, wish: &Wish, config: &LinuxConfig, runtime: &Handle) -> (NetworkOutcome, Taps) {
        let mut faults = Faults::new();
        self.clear(wish, config, runtime, &mut faults);
        self.look(wish, config, &mut faults);
        let node_path = self.own.namespace.path();
        let networks = self.networks_possible(wish, &mut faults);
        let groups: BTreeMap<SecurityGroupId, &SecurityGroupSpec> = wish.groups.iter().map(|g| (g.id, g)).collect();
        let mut routers: BTreeMap<String, Router> = BTreeMap::new();
        for spec in &wish.routers {
            routers.insert(config.tag.router(spec.id), router::plan(spec, &networks, &config.tag, &node_path));
        }
        let mut segments = self.segments_plan(wish, &groups, config, &mut faults);
        let own = external::plan(networks.values().copied(), &wish.routers, &config.tag, config.uplink.as_ref());
        for fault in routers.values_mut().flat_map(|r| r.faults.drain(..)) {
            faults.push(NetworkError::Specification(fault));
        }
        for fault in segments.values_mut().flat_map(|s| s.faults.drain(..)) {
            faults.push(NetworkError::Specification(fault));
        }
        self.borrow_settings(config, &own);

        self.guard(&own, &mut routers, &mut segments, &mut faults);
        let (mut up, announce) = self.build_routers(&routers, &mut faults);
        up.extend(self.build_segments(segments, config, runtime, &mut faults));
        if let Err(fault) = self.own_build(&own) {
            faults.push(fault);
        }
        for (router, addresses) in announce {
            self.announce(&router, &addresses, &mut faults);
        }
        let faults = faults.iter().map(NetworkError::chain).collect();
        (NetworkOutcome { ports_up: ports_up(wish, config, &up), faults }, self.taps(wish, config))
    }

    /// The tracked connections of these ports.
    pub fn flows(&self, ports: &[PortId]) -> Vec<FlowSpec> {
        let mut all = Vec::new();
        for port in ports {
            let places = self.segments.values();
            let Some((place, number)) = places.filter_map(|s| Some((&s.place, s.numbers.get(*port)?))).next() else {
                continue;
            };
            match place.namespace.inside(|| luggage::pack(*port, number)) {
                Ok(Ok(some)) => all.extend(some),
                Ok(Err(error)) => tracing::warn!(port.id = %port, %error, "a guest's connections could not be read"),
                Err(error) => tracing::warn!(port.id = %port, %error, "a guest's connections could not be read"),
            }
        }
        all.truncate(FLOWS_MAX);
        all
    }

    /// Removes everything of ours.
    pub fn teardown(&mut self, config: &LinuxConfig, runtime: &Handle) -> Result<(), NetworkError> {
        let mut faults = Faults::new();
        let nothing = Wish::default();
        self.clear(&nothing, config, runtime, &mut faults);
        self.own.distrust();
        let plan = external::plan(std::iter::empty(), &[], &config.tag, None);
        let done =
            self.own.look(Wanted::default()).and_then(|()| self.own.guard(&plan)).and_then(|_| self.own_build(&plan));
        let borrowed: Vec<(String, String)> = std::mem::take(&mut self.borrowed).into_iter().collect();
        let place = &self.own.namespace;
        let restored = place.inside(|| place::settings_write(place.name(), &borrowed)).and_then(|done| done);
        faults.into_iter().next().map_or(Ok(()), Err).and(done).and(restored)
    }

    /// Removes namespaces that the wish does not name, and forgets those that somebody else removed.
    fn clear(&mut self, wish: &Wish, config: &LinuxConfig, runtime: &Handle, faults: &mut Faults) {
        let tag = &config.tag;
        let segments = wish.networks.iter().filter(|n| n.external.is_none()).map(|n| tag.segment(n.id));
        let routers = wish.routers.iter().map(|r| tag.router(r.id));
        let named: BTreeSet<String> = segments.chain(routers).collect();
        let there = match namespace::list(&tag.namespace_prefix()) {
            Ok(there) => there,
            Err(fault) => return faults.push(fault),
        };
        let lost = |name: &String| !there.contains(name);
        let gone = |name: &String| !named.contains(name) || lost(name);
        let segments_gone: Vec<String> = self.segments.keys().filter(|name| gone(name)).cloned().collect();
        for name in segments_gone {
            if let Some(services) = self.segments.remove(&name).and_then(|mut segment| segment.services.take()) {
                services.leave(runtime);
            }
        }
        self.routers.retain(|name, _| !gone(name));
        for name in there.iter().filter(|name| !named.contains(*name)) {
            if let Err(fault) = namespace_remove(name, tag) {
                faults.push(fault);
            }
        }
    }

    /// Makes namespaces that are missing, and looks at what they hold where that is not known or not trusted any more.
    fn look(&mut self, wish: &Wish, config: &LinuxConfig, faults: &mut Faults) {
        if let Err(fault) = self.own.look(Wanted::default()) {
            faults.push(fault);
        }
        for spec in wish.networks.iter().filter(|n| n.external.is_none()) {
            let name = config.tag.segment(spec.id);
            if !self.segments.contains_key(&name) {
                match Namespace::ensure(&name) {
                    Ok((namespace, made)) => {
                        if made {
                            // Cables into the one before went with it.
                            self.routers.values_mut().for_each(|router| router.place.distrust());
                        }
                        let place = place(namespace, made);
                        let segment = SegmentPlace {
                            place,
                            numbers: Numbers::default(),
                            filter: None,
                            services: None,
                            unpacked: BTreeSet::new(),
                        };
                        self.segments.insert(name.clone(), segment);
                    }
                    Err(fault) => faults.push(fault),
                }
            }
            if let Some(segment) = self.segments.get_mut(&name)
                && let Err(fault) = segment.place.look(Wanted { forwards: !spec.peers.is_empty(), routes6: false })
            {
                faults.push(fault);
            }
        }
        for spec in &wish.routers {
            let name = config.tag.router(spec.id);
            if !self.routers.contains_key(&name) {
                match Namespace::ensure(&name) {
                    Ok((namespace, made)) => {
                        let place = place(namespace, made);
                        self.routers.insert(name.clone(), RouterPlace { place, translations: None });
                    }
                    Err(fault) => faults.push(fault),
                }
            }
            if let Some(router) = self.routers.get_mut(&name)
                && let Err(fault) = router.place.look(Wanted { forwards: false, routes6: true })
            {
                faults.push(fault);
            }
        }
    }

    /// The networks without those external ones whose range the machine uses for something else.
    fn networks_possible<'a>(&self, wish: &'a Wish, faults: &mut Faults) -> BTreeMap<NetworkId, &'a NetworkSpec> {
        let nothing = BTreeSet::new();
        let foreign = self.own.state().map_or(&nothing, |state| &state.foreign);
        let possible = wish.networks.iter().filter(|spec| {
            let taken = spec.external.as_ref().and_then(|e| external::taken(&e.gateway.trunc(), foreign));
            if let Some((device, address)) = taken {
                faults.push(NetworkError::Specification(format!(
                    "external network {}: this machine has {address} on {device} already; choose another range",
                    spec.id
                )));
            }
            taken.is_none()
        });
        possible.map(|spec| (spec.id, spec)).collect()
    }

    fn segments_plan(
        &mut self,
        wish: &Wish,
        groups: &BTreeMap<SecurityGroupId, &SecurityGroupSpec>,
        config: &LinuxConfig,
        faults: &mut Faults,
    ) -> BTreeMap<String, Segment> {
        let mut planned = BTreeMap::new();
        for spec in &wish.networks {
            if spec.external.is_some() {
                if let Some(port) = spec.ports.iter().find(|port| port.server_id.is_some()) {
                    faults.push(NetworkError::Specification(format!(
                        "port {} is on the external network {}: servers reach it by routers only",
                        port.id, spec.id
                    )));
                }
                continue;
            }
            let name = config.tag.segment(spec.id);
            let Some(segment) = self.segments.get_mut(&name) else { continue };
            // Without a look there is no telling which numbers connections carry.
            let Some(state) = segment.place.state() else { continue };
            let legs = legs(wish, spec.id);
            let ports: Vec<PortId> = segment::guest_ports(spec, &legs).iter().map(|port| port.id).collect();
            for port in segment.numbers.assign(&ports, state) {
                faults.push(NetworkError::Specification(format!(
                    "network {} has no number left for port {port}",
                    spec.id
                )));
            }
            planned.insert(name, segment::plan(spec, &legs, groups, &segment.numbers, config.underlay));
        }
        planned
    }

    /// Filters first. What has none is taken off the list: it is not built.
    fn guard(
        &mut self,
        own: &Plan,
        routers: &mut BTreeMap<String, Router>,
        segments: &mut BTreeMap<String, Segment>,
        faults: &mut Faults,
    ) {
        let guarded_own = self.own.guard(own);
        if let Err(fault) = guarded_own {
            // Without its guard the external bridge would lead to the machine: no router may reach it.
            routers.clear();
            faults.push(fault);
        }
        routers.retain(|name, router| {
            let guarded = self.routers.get_mut(name).map(|known| known.place.guard(&router.plan));
            keep(guarded, faults)
        });
        segments.retain(|name, segment| {
            let guarded = self.segments.get_mut(name).map(|known| known.place.guard(&segment.plan));
            keep(guarded, faults)
        });
    }

    /// Returns the names of the routers that stand, and the addresses to announce: device and addresses by router.
    fn build_routers(
        &mut self,
        routers: &BTreeMap<String, Router>,
        faults: &mut Faults,
    ) -> (BTreeSet<String>, Announcements) {
        let node_path = self.own.namespace.path();
        let (mut up, mut announce) = (BTreeSet::new(), Announcements::new());
        for (name, router) in routers {
            let Some(known) = self.routers.get_mut(name) else { continue };
            let before = match known.place.build(&router.plan, &self.own.namespace) {
                Ok(before) => before,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            faults.extend(queue(&mut known.place, &router.plan, &before).err());
            for (place, peer) in place::new_cables(&router.plan, &before) {
                if place == node_path {
                    self.own.forget_link(peer);
                } else if let Some(segment) = self.segments.get_mut(place) {
                    segment.place.forget_link(peer);
                }
            }
            let came = addresses_new(&router.plan, &before);
            if !came.is_empty() {
                announce.push((name.clone(), came));
            }
            if known.translations.as_ref() != Some(&router.translations) {
                // A router that is new has no connections.
                let ended = if known.translations.is_none() && before.links.is_empty() {
                    Ok(0)
                } else {
                    end_flows(&known.place, |flow| router.translations.allow(flow))
                };
                match ended {
                    Ok(_) => known.translations = Some(router.translations.clone()),
                    Err(fault) => faults.push(fault),
                }
            }
            up.insert(name.clone());
        }
        (up, announce)
    }

    /// Returns the names of the segments that stand.
    fn build_segments(
        &mut self,
        segments: BTreeMap<String, Segment>,
        config: &LinuxConfig,
        runtime: &Handle,
        faults: &mut Faults,
    ) -> BTreeSet<String> {
        let mut up = BTreeSet::new();
        for (name, segment) in segments {
            let Some(known) = self.segments.get_mut(&name) else { continue };
            match known.apply(segment, &self.own.namespace, config, runtime) {
                Ok(limited) => {
                    faults.extend(limited.err());
                    up.insert(name);
                }
                Err(fault) => faults.push(fault),
            }
        }
        up
    }

    fn own_build(&mut self, plan: &Plan) -> Result<(), NetworkError> {
        let namespace = Arc::clone(&self.own.namespace);
        self.own.build(plan, &namespace).map(drop)
    }

    /// Remembers the settings of the machine's own devices that the plan is about to change.
    fn borrow_settings(&mut self, config: &LinuxConfig, own: &Plan) {
        let Some(uplink) = &config.uplink else { return };
        let part = format!("/conf/{uplink}/");
        for (key, value) in own.device_settings.iter().filter(|(key, _)| key.contains(&part)) {
            let path = format!("/proc/sys/net/{key}");
            let was = self.own.namespace.inside(|| std::fs::read_to_string(&path));
            if let Ok(Ok(was)) = was
                && was.trim() != value
            {
                self.borrowed.entry(key.clone()).or_insert_with(|| was.trim().to_owned());
            }
        }
    }

    fn announce(&self, router: &str, addresses: &[(String, IpAddr)], faults: &mut Faults) {
        let Some(known) = self.routers.get(router) else { return };
        let Some(state) = known.place.state() else { return };
        let sent = known.place.namespace.inside(|| {
            for (device, address) in addresses {
                let mac = state.links.get(device).and_then(|link| link.mac);
                let Some(mac) = mac else { continue };
                let frame = match address {
                    IpAddr::V4(address) => Some(packet::arp_announcement(mac, *address)),
                    IpAddr::V6(address) => packet::neighbour_announcement(mac, *address),
                };
                if let Some(frame) = frame {
                    packet::open(device, packet::Wanted::Nothing)?.send(&frame)?;
                }
            }
            Ok(())
        });
        let service =
            |source| NetworkError::Service { place: router.to_owned(), service: "announcements of addresses", source };
        if let Err(fault) = sent.and_then(|done| done.map_err(service)) {
            faults.push(fault);
        }
    }

    fn taps(&self, wish: &Wish, config: &LinuxConfig) -> Taps {
        let mut taps = Taps::new();
        for spec in wish.networks.iter().filter(|n| n.external.is_none()) {
            if let Some(segment) = self.segments.get(&config.tag.segment(spec.id)) {
                let numbered = spec.ports.iter().filter(|port| segment.numbers.get(port.id).is_some());
                taps.extend(numbered.map(|port| (port.id, Arc::clone(&segment.place.namespace))));
            }
        }
        taps
    }
}

impl SegmentPlace {
    /// The inner error is that of bandwidth limits: without them the segment stands all the same.
    fn apply(
        &mut self,
        segment: Segment,
        node: &Namespace,
        config: &LinuxConfig,
        runtime: &Handle,
    ) -> Result<Result<(), NetworkError>, NetworkError> {
        let fresh = self.place.state().is_none_or(|state| !state.links.contains_key(names::BRIDGE));
        if fresh && let Some(services) = self.services.take() {
            // Their sockets were on a bridge that is no more.
            services.stop(runtime);
        }
        let before = self.place.build(&segment.plan, node)?;
        let limited = queue(&mut self.place, &segment.plan, &before);
        let shrunk = self.filter.as_ref().map_or(!fresh, |before| !before.is_within(&segment.filter));
        if shrunk {
            end_flows(&self.place, |flow| segment.filter.allows(flow))?;
        }
        self.filter = Some(segment.filter);
        for (port, flows) in &segment.luggage {
            let Some(number) = self.numbers.get(*port).filter(|_| !self.unpacked.contains(port)) else { continue };
            let name = self.place.namespace.name();
            let made = self.place.namespace.inside(|| luggage::unpack(flows, number))?;
            // Those that it took along are better than none.
            if let Err(error) = made {
                tracing::warn!(network.place = name, port.id = %port, %error, "a guest's connections are not known here");
            }
            self.unpacked.insert(*port);
        }
        self.unpacked.retain(|port| segment.luggage.iter().any(|(with, _)| with == port));
        let known = Known { guests: segment.guests, told: segment.told, names: segment.names };
        match &self.services {
            Some(services) if services.are_alive() => services.tell(known),
            Some(_) | None => {
                if let Some(ended) = self.services.take() {
                    ended.stop(runtime);
                }
                let directory = Arc::clone(&config.directory);
                self.services = Some(Services::start(&self.place.namespace, known, directory, runtime)?);
            }
        }
        Ok(limited)
    }
}

fn queue(place: &mut Place, plan: &Plan, before: &State) -> Result<(), NetworkError> {
    let name = place.namespace.name().to_owned();
    place.queue(plan, before).map_err(|source| NetworkError::Limits { place: name, source: Box::new(source) })
}

fn place(namespace: Namespace, made: bool) -> Place {
    if made { Place::fresh(namespace, String::new()) } else { Place::new(namespace, String::new()) }
}

fn keep(guarded: Option<Result<bool, NetworkError>>, faults: &mut Faults) -> bool {
    match guarded {
        Some(Ok(_)) => true,
        Some(Err(fault)) => {
            faults.push(fault);
            false
        }
        None => false,
    }
}

fn end_flows(place: &Place, keep: impl Fn(&flows::Flow) -> bool + Send) -> Result<usize, NetworkError> {
    let name = place.namespace.name();
    let ended = place.namespace.inside(|| flows::end_unless(keep))?.map_err(|source| NetworkError::Service {
        place: name.to_owned(),
        service: "connection tracking",
        source,
    })?;
    if ended > 0 {
        tracing::debug!(network.place = name, network.flows_ended = ended, "connections ended with their rules");
    }
    Ok(ended)
}

/// Removes a namespace, and a router's devices first: their other ends shall be gone at once and not some time later.
/// The kernel removes a segment's devices with their namespace; one by one, each would take it tens of milliseconds.
fn namespace_remove(name: &str, tag: &Tag) -> Result<(), NetworkError> {
    if tag.is_router(name)
        && let Some(namespace) = Namespace::open(name)?
    {
        let lines: Vec<String> = namespace.devices()?.iter().map(|device| format!("link del dev {device}")).collect();
        namespace.inside(|| programs::batch_removals(name, Program::Ip, &lines))??;
    }
    namespace::remove(name)
}

/// The routers' legs on a network, and whether their router forwards.
fn legs(wish: &Wish, network: NetworkId) -> Vec<Leg<'_>> {
    let all = wish.routers.iter().flat_map(|router| router.interfaces.iter().map(|leg| (leg, router.admin_up)));
    let mut legs: Vec<Leg<'_>> = all.filter(|(leg, _)| leg.network_id == network).collect();
    legs.sort_by_key(|(leg, _)| leg.port_id);
    legs
}

fn addresses_new(plan: &Plan, before: &State) -> Vec<(String, IpAddr)> {
    let mut came = Vec::new();
    for (name, link) in &plan.links {
        let had = before.links.get(name).map(|link| &link.addresses);
        for address in link.addresses.iter().filter(|address| had.is_none_or(|had| !had.contains(address))) {
            came.push((name.clone(), address.addr()));
        }
    }
    came
}

fn ports_up(wish: &Wish, config: &LinuxConfig, up: &BTreeSet<String>) -> Vec<PortId> {
    let standing = wish.networks.iter().filter(|n| n.external.is_none() && up.contains(&config.tag.segment(n.id)));
    let mut ports: Vec<PortId> =
        standing.flat_map(|n| n.ports.iter().filter(|port| port.admin_up).map(|port| port.id)).collect();
    for router in wish.routers.iter().filter(|router| up.contains(&config.tag.router(router.id))) {
        ports.extend(router.interfaces.iter().map(|leg| leg.port_id));
        ports.extend(router.gateway.iter().map(|leg| leg.port_id));
    }
    ports.sort();
    ports.dedup();
    ports
}
