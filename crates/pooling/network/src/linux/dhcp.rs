//! Answers DHCP (RFC 2131) from the specification alone: no leases are kept, a port's address is a port's address.
//!
//! Guests are hostile: a request is answered only if its frame came from the Ethernet address of a guest of this node
//! and speaks for that address, at a bounded rate, and to that address only. Requests are read by [`Request::read`], of
//! which a test shows that no bytes make it panic: the decoder of the library that writes our answers does.

use super::filter::{SERVICE_ADDRESS, SERVICE_MAC};
use super::packet;
use super::rate::Rates;
use super::segment::{Guest, Guests, Lease};
use arcus_types::agent::DhcpOptionSpec;
use arcus_types::text::MacAddr;
use dhcproto::v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Encodable, Encoder};
use ipnet::Ipv4Net;
use socket2::Socket;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// How long an address is given for, in seconds; clients ask again after half of it.
pub const LEASE_S: u32 = 24 * 60 * 60;

/// The smallest message that clients must take (RFC 2131, section 2), without headers: shorter ones are filled up, as
/// some old clients drop them.
const MESSAGE_BYTES_MIN: usize = 300;

/// How much room the options that a port's owner added may take: an answer must fit into one packet.
const OWN_OPTIONS_BYTES_MAX: usize = 700;

/// Answers on a socket of [`packet::open`] until the task is ended.
pub async fn serve(socket: Socket, guests: Arc<RwLock<Arc<Guests>>>) -> io::Result<()> {
    // SAFETY: the socket owns its descriptor, and nobody replaces or closes it while the task holds it.
    let socket = unsafe { AsyncFd::register(socket) }?;
    let mut buffer = vec![0_u8; 2048];
    let mut rates = Rates::default();
    loop {
        let mut ready = socket.readable().await?;
        let length = match ready.try_io(|socket| packet::receive(socket.get_ref(), &mut buffer)) {
            Ok(Ok(length)) => length,
            // The device is down for a moment, or the queue ran over: the client asks again.
            Ok(Err(error)) => {
                tracing::debug!(%error, "a DHCP request could not be read");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            Err(_would_block) => continue,
        };
        let guests = Arc::clone(&guests.read().unwrap_or_else(PoisonError::into_inner));
        let Some((source, payload)) = packet::udp_payload(&buffer[..length]) else { continue };
        let known = |mac| guests.values().any(|guest| guest.mac == mac);
        rates.keep(guests.len(), known);
        if !known(source) || !rates.allow(source, Instant::now()) {
            continue;
        }
        let Some(frame) = answer(payload, source, &guests) else { continue };
        // A full queue is like a lost packet: the client asks again.
        if let Err(error) = socket.get_ref().send(&frame) {
            tracing::debug!(%error, "a DHCP answer could not be sent");
        }
    }
}

/// What matters of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    kind: MessageType,
    xid: u32,
    flags: Flags,
    /// The address that the client has already.
    ciaddr: Ipv4Addr,
    /// The address that the client asks for.
    wanted: Option<Ipv4Addr>,
    /// The server whose offer the client takes.
    server: Option<Ipv4Addr>,
    /// What the client calls itself; comes back as it was sent (RFC 6842).
    client: Option<Vec<u8>>,
}

impl Request {
    /// Reads a request of the Ethernet client `mac`; anything else is `None`. Layout: RFC 2131, section 2.
    fn read(bytes: &[u8], mac: MacAddr) -> Option<Self> {
        const REQUEST_ETHERNET: [u8; 3] = [1, 1, 6];
        const COOKIE: [u8; 4] = [99, 130, 83, 99];
        let (head, options) = bytes.split_at_checked(240)?;
        if !head.starts_with(&REQUEST_ETHERNET) || head[28..34] != mac.0 || head[236..] != COOKIE {
            return None;
        }
        let mut out = Self {
            kind: MessageType::Unknown(0),
            xid: u32::from_be_bytes(head[4..8].try_into().ok()?),
            flags: Flags::new(u16::from_be_bytes(head[10..12].try_into().ok()?)),
            ciaddr: Ipv4Addr::from(<[u8; 4]>::try_from(&head[12..16]).ok()?),
            wanted: None,
            server: None,
            client: None,
        };
        let address = |value: &[u8]| <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
        let mut rest = options;
        while let Some((code, after)) = rest.split_first() {
            match code {
                0 => rest = after,
                255 => break,
                code => {
                    let (length, after) = after.split_first()?;
                    let (value, after) = after.split_at_checked(usize::from(*length))?;
                    match (code, value) {
                        (50, value) => out.wanted = address(value),
                        (53, [kind]) => out.kind = MessageType::from(*kind),
                        (54, value) => out.server = address(value),
                        (61, value) => out.client = Some(value.to_vec()),
                        (_, _) => {}
                    }
                    rest = after;
                }
            }
        }
        Some(out)
    }
}

/// The frame that answers a request that came from `source`, if it deserves one.
pub fn answer(request: &[u8], source: MacAddr, guests: &Guests) -> Option<Vec<u8>> {
    let request = Request::read(request, source)?;
    let (guest, lease) = guests.values().find(|guest| guest.mac == source).and_then(with_lease)?;
    let reply = reply(&request, guest, lease)?;
    let mut bytes = Vec::with_capacity(MESSAGE_BYTES_MIN);
    reply.encode(&mut Encoder::new(&mut bytes)).ok()?;
    bytes.resize(bytes.len().max(MESSAGE_BYTES_MIN), 0);
    let everyone = request.flags.broadcast() || reply.opts().has_msg_type(MessageType::Nak);
    let to = match (request.ciaddr, everyone) {
        (Ipv4Addr::UNSPECIFIED, false) => lease.address,
        (_, true) => Ipv4Addr::BROADCAST,
        (known, false) => known,
    };
    packet::udp_frame((SERVICE_MAC, SERVICE_ADDRESS, 67), (source, to, 68), &bytes)
}

fn with_lease(guest: &Guest) -> Option<(&Guest, &Lease)> {
    guest.lease.as_ref().map(|lease| (guest, lease))
}

fn reply(request: &Request, guest: &Guest, lease: &Lease) -> Option<Message> {
    let wanted = request.wanted.unwrap_or(request.ciaddr);
    let (kind, address) = match request.kind {
        MessageType::Discover => (MessageType::Offer, lease.address),
        // The client took another server's offer.
        MessageType::Request if request.server.is_some_and(|server| server != SERVICE_ADDRESS) => return None,
        MessageType::Request if wanted == lease.address => (MessageType::Ack, lease.address),
        MessageType::Request => (MessageType::Nak, Ipv4Addr::UNSPECIFIED),
        MessageType::Inform => (MessageType::Ack, Ipv4Addr::UNSPECIFIED),
        _ => return None,
    };
    let nothing = Ipv4Addr::UNSPECIFIED;
    let ciaddr = if kind == MessageType::Nak { nothing } else { request.ciaddr };
    let mut reply = Message::new_with_id(request.xid, ciaddr, address, nothing, nothing, &guest.mac.0);
    reply.set_opcode(Opcode::BootReply).set_htype(HType::Eth).set_flags(request.flags);
    let out = reply.opts_mut();
    out.insert(DhcpOption::MessageType(kind));
    out.insert(DhcpOption::ServerIdentifier(SERVICE_ADDRESS));
    if let Some(client) = &request.client {
        out.insert(DhcpOption::ClientIdentifier(client.clone()));
    }
    if kind == MessageType::Nak {
        return Some(reply);
    }
    if address != nothing {
        out.insert(DhcpOption::AddressLeaseTime(LEASE_S));
        out.insert(DhcpOption::Renewal(LEASE_S / 2));
        out.insert(DhcpOption::Rebinding(LEASE_S / 8 * 7));
    }
    out.insert(DhcpOption::SubnetMask(lease.range.netmask()));
    out.insert(DhcpOption::BroadcastAddr(lease.range.broadcast()));
    out.insert(DhcpOption::InterfaceMtu(lease.mtu));
    out.insert(DhcpOption::ClasslessStaticRoute(routes(lease)));
    if let Some(gateway) = lease.gateway {
        out.insert(DhcpOption::Router(vec![gateway]));
    }
    if !lease.dns_servers.is_empty() {
        out.insert(DhcpOption::DomainNameServer(lease.dns_servers.clone()));
    }
    if !lease.hostname.is_empty() {
        out.insert(DhcpOption::Hostname(lease.hostname.clone()));
    }
    if !lease.domain.is_empty() {
        out.insert(DhcpOption::DomainName(lease.domain.clone()));
    }
    own_options(&mut reply, lease);
    Some(reply)
}

/// The options that the port's owner added: they take the place of ours.
fn own_options(reply: &mut Message, lease: &Lease) {
    let mut left = OWN_OPTIONS_BYTES_MAX;
    for (code, value) in &lease.options {
        if *code == DhcpOptionSpec::NEXT_SERVER {
            if let Ok(address) = <[u8; 4]>::try_from(&value[..]) {
                reply.set_siaddr(address);
            }
            continue;
        }
        let (Ok(code), Some(rest)) = (u8::try_from(*code), left.checked_sub(value.len() + 2)) else { continue };
        left = rest;
        // Boot loaders read the fields of the header, others the options.
        if let (67, Ok(file)) = (code, std::str::from_utf8(value))
            && file.len() < 128
        {
            reply.set_fname_str(file);
        }
        let options = reply.opts_mut();
        options.remove(OptionCode::from(code));
        options.insert(DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), value.clone())));
    }
}

/// Routes for option 121. Clients that take it ignore the router option, so the default route is in it too (RFC 3442).
fn routes(lease: &Lease) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let mut routes = vec![(Ipv4Net::from(SERVICE_ADDRESS), Ipv4Addr::UNSPECIFIED)];
    routes.extend(lease.routes.iter().copied());
    if let Some(gateway) = lease.gateway
        && !lease.routes.iter().any(|(destination, _)| destination.prefix_len() == 0)
    {
        routes.push((Ipv4Net::default(), gateway));
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_types::ids::PortId;
    use dhcproto::{Decodable, Decoder};
    use proptest::prelude::*;

    const MAC: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]);

    fn guests() -> Guests {
        let lease = Lease {
            address: Ipv4Addr::new(10, 0, 0, 5),
            range: "10.0.0.0/24".parse().unwrap(),
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
            dns_servers: vec![Ipv4Addr::new(9, 9, 9, 9)],
            routes: vec![("192.168.7.0/24".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 9))],
            mtu: 1450,
            hostname: "web-1".into(),
            domain: "example.org".into(),
            options: vec![(67, b"pxelinux.0".to_vec()), (255, vec![10, 0, 0, 9]), (26, vec![5, 0])],
        };
        [(1, Guest { port: PortId::new(), mac: MAC, lease: Some(lease), lease6: None })].into()
    }

    fn request(kind: MessageType, change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(77, none, none, none, none, &MAC.0);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        change(&mut message);
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).unwrap();
        bytes
    }

    fn ask(bytes: &[u8]) -> Option<Message> {
        let frame = answer(bytes, MAC, &guests())?;
        let (from, payload) = packet::udp_payload(&frame).unwrap();
        assert_eq!(from, SERVICE_MAC);
        Some(Message::decode(&mut Decoder::new(payload)).unwrap())
    }

    #[test]
    fn an_offer_tells_all_that_a_guest_needs() {
        let offer = ask(&request(MessageType::Discover, |_| {})).unwrap();
        assert_eq!((offer.xid(), offer.yiaddr()), (77, Ipv4Addr::new(10, 0, 0, 5)));
        let has =
            |option: DhcpOption| assert!(offer.opts().iter().any(|(_, o)| *o == option), "{option:?} in {offer:?}");
        has(DhcpOption::MessageType(MessageType::Offer));
        has(DhcpOption::ServerIdentifier(SERVICE_ADDRESS));
        has(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
        has(DhcpOption::Router(vec![Ipv4Addr::new(10, 0, 0, 1)]));
        has(DhcpOption::DomainNameServer(vec![Ipv4Addr::new(9, 9, 9, 9)]));
        has(DhcpOption::DomainName("example.org".into()));
        has(DhcpOption::BootfileName(b"pxelinux.0".to_vec()));
        assert_eq!(offer.siaddr(), Ipv4Addr::new(10, 0, 0, 9));
        // The owner's word goes before ours.
        has(DhcpOption::InterfaceMtu(1280));
        has(DhcpOption::Hostname("web-1".into()));
        has(DhcpOption::AddressLeaseTime(86_400));
        has(DhcpOption::ClasslessStaticRoute(vec![
            ("169.254.169.254/32".parse().unwrap(), Ipv4Addr::UNSPECIFIED),
            ("192.168.7.0/24".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 9)),
            ("0.0.0.0/0".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 1)),
        ]));
    }

    #[test]
    fn a_request_for_another_address_is_refused() {
        let ask_for = |last| {
            ask(&request(MessageType::Request, |m| {
                m.opts_mut().insert(DhcpOption::RequestedIpAddress(Ipv4Addr::new(10, 0, 0, last)));
            }))
            .unwrap()
        };
        assert!(ask_for(5).opts().has_msg_type(MessageType::Ack));
        let refused = ask_for(6);
        assert!(refused.opts().has_msg_type(MessageType::Nak));
        assert_eq!(refused.yiaddr(), Ipv4Addr::UNSPECIFIED);
    }

    #[test]
    fn a_client_that_calls_itself_something_is_called_so() {
        let named = request(MessageType::Discover, |m| {
            m.opts_mut().insert(DhcpOption::ClientIdentifier(vec![255, 1, 2]));
        });
        let offer = ask(&named).unwrap();
        assert!(offer.opts().iter().any(|(_, o)| *o == DhcpOption::ClientIdentifier(vec![255, 1, 2])));
    }

    #[test]
    fn a_request_to_another_server_is_left_to_it() {
        let other = request(MessageType::Request, |m| {
            m.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 0, 9)));
        });
        assert!(ask(&other).is_none());
    }

    #[test]
    fn only_guests_of_this_node_speaking_for_themselves_are_answered() {
        let bytes = request(MessageType::Discover, |_| {});
        assert!(answer(&bytes, MacAddr([2; 6]), &guests()).is_none());
        let forged = request(MessageType::Discover, |m| {
            m.set_chaddr(&[2; 6]);
        });
        assert!(answer(&forged, MAC, &guests()).is_none());
        let mut silent = guests();
        if let Some(guest) = silent.get_mut(&1) {
            guest.lease = None;
        }
        assert!(answer(&bytes, MAC, &silent).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = answer(&bytes, MAC, &guests());
        }

        #[test]
        fn no_options_make_it_panic(
            hlen in any::<u8>(),
            options in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
            cut in 0_usize..600,
        ) {
            let mut bytes = request(MessageType::Discover, |_| {});
            bytes.pop();
            bytes[2] = if hlen < 128 { 6 } else { hlen };
            for (code, value) in options {
                bytes.push(code);
                bytes.push(value.len() as u8);
                bytes.extend(value);
            }
            bytes.push(255);
            let length = bytes.len().min(cut.max(240));
            let _ = answer(&bytes[..length], MAC, &guests());
            let _ = answer(&bytes, MAC, &guests());
        }

        #[test]
        fn no_frame_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = packet::udp_payload(&bytes);
        }
    }
}
