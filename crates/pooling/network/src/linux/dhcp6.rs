//! Answers DHCPv6 (RFC 8415) from the specification alone, as `dhcp` does for IPv4.
//!
//! Requests are read here byte by byte: guests are hostile, so what is read and what is remembered is bounded, and tests
//! show that no bytes make it panic. Nothing is remembered: the same request gets the same answer.

use super::filter::{SERVICE_ADDRESS6, SERVICE_MAC};
use super::packet;
use super::segment::{Guests, Lease6};
use arcus_types::text::MacAddr;
use std::net::Ipv6Addr;

/// How long an address is given for, in seconds; clients ask again after half of it.
const LEASE_S: u32 = 24 * 60 * 60;

/// How long a client's identifier may be, in bytes. Source: RFC 8415, section 11.1.
const IDENTIFIER_BYTES_MAX: usize = 130;

/// How many associations of one request are answered.
const ASSOCIATIONS_MAX: usize = 4;

/// How many options of one request are looked at.
const OPTIONS_MAX: usize = 64;

/// How long an answer may get, in bytes: it must not be fragmented.
const MESSAGE_BYTES_MAX: usize = 1200;

mod option {
    pub const CLIENT: u16 = 1;
    pub const SERVER: u16 = 2;
    pub const ASSOCIATION: u16 = 3;
    pub const ADDRESS: u16 = 5;
    pub const STATUS: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    pub const DNS_SERVERS: u16 = 23;
    pub const DOMAINS: u16 = 24;
}

mod status {
    pub const SUCCESS: u16 = 0;
    pub const NO_ADDRESSES: u16 = 2;
    pub const NOT_ON_LINK: u16 = 4;
}

/// What a message wants. Numbers: RFC 8415, section 7.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Solicit,
    Request,
    Confirm,
    Renew,
    Rebind,
    Release,
    Decline,
    Information,
}

impl Kind {
    fn read(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Solicit),
            3 => Some(Self::Request),
            4 => Some(Self::Confirm),
            5 => Some(Self::Renew),
            6 => Some(Self::Rebind),
            8 => Some(Self::Release),
            9 => Some(Self::Decline),
            11 => Some(Self::Information),
            _ => None,
        }
    }

    /// Whether the message may or must name a server: `None` is as it likes. Source: RFC 8415, section 16.
    fn names_server(self) -> Option<bool> {
        match self {
            Self::Solicit | Self::Confirm | Self::Rebind => Some(false),
            Self::Request | Self::Renew | Self::Release | Self::Decline => Some(true),
            Self::Information => None,
        }
    }
}

/// What matters of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request<'a> {
    kind: Kind,
    transaction: [u8; 3],
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    rapid: bool,
    associations: Vec<Association>,
}

/// A set of addresses that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Association {
    id: [u8; 4],
    addresses: Vec<Ipv6Addr>,
}

impl<'a> Request<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(4)?;
        let mut out = Self {
            kind: Kind::read(head[0])?,
            transaction: head[1..4].try_into().ok()?,
            client: None,
            server: None,
            rapid: false,
            associations: Vec::new(),
        };
        for (code, value) in options(rest)? {
            match code {
                option::CLIENT if value.len() <= IDENTIFIER_BYTES_MAX => out.client = Some(value),
                option::SERVER => out.server = Some(value),
                option::RAPID_COMMIT => out.rapid = true,
                option::ASSOCIATION if out.associations.len() < ASSOCIATIONS_MAX => {
                    out.associations.push(Association::read(value)?);
                }
                _ => {}
            }
        }
        Some(out)
    }

    /// Whether it is for this server, and complete.
    fn is_for_us(&self) -> bool {
        let named = match (self.kind.names_server(), self.server) {
            (Some(true), server) => server == Some(&identifier()[..]),
            (Some(false), server) => server.is_none(),
            (None, server) => server.is_none_or(|server| server == identifier()),
        };
        named && (self.client.is_some() || self.kind == Kind::Information)
    }
}

impl Association {
    fn read(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_at_checked(12)?;
        let addresses = options(rest)?
            .into_iter()
            .filter(|(code, _)| *code == option::ADDRESS)
            .filter_map(|(_, value)| Some(Ipv6Addr::from(<[u8; 16]>::try_from(value.get(..16)?).ok()?)));
        Some(Self { id: head[..4].try_into().ok()?, addresses: addresses.collect() })
    }
}

/// Splits a run of options; a run that does not add up is none. At most [`OPTIONS_MAX`] are looked at.
fn options(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut out = Vec::new();
    while !bytes.is_empty() && out.len() < OPTIONS_MAX {
        let (head, rest) = bytes.split_at_checked(4)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (value, rest) = rest.split_at_checked(length)?;
        out.push((u16::from_be_bytes([head[0], head[1]]), value));
        bytes = rest;
    }
    Some(out)
}

/// What this server calls itself: by its Ethernet address (RFC 8415, section 11.4), the same on each node.
fn identifier() -> [u8; 10] {
    let mac = SERVICE_MAC.0;
    [0, 3, 0, 1, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]]
}

/// The frame that answers a request that came from `source`, if it deserves one.
pub fn answer(request: &[u8], source: (MacAddr, Ipv6Addr), guests: &Guests) -> Option<Vec<u8>> {
    if !source.1.is_unicast_link_local() {
        return None;
    }
    let request = Request::read(request).filter(Request::is_for_us)?;
    let lease = guests.values().find(|guest| guest.mac == source.0)?.lease6.as_ref()?;
    let message = reply(&request, lease)?;
    packet::udp6_frame((SERVICE_MAC, SERVICE_ADDRESS6, 547), (source.0, source.1, 546), &message)
}

fn reply(request: &Request<'_>, lease: &Lease6) -> Option<Vec<u8>> {
    const ADVERTISE: u8 = 2;
    const REPLY: u8 = 7;
    let kind = if request.kind == Kind::Solicit && !request.rapid { ADVERTISE } else { REPLY };
    let mut out = vec![kind];
    out.extend(request.transaction);
    put(&mut out, option::SERVER, &identifier());
    if let Some(client) = request.client {
        put(&mut out, option::CLIENT, client);
    }
    match request.kind {
        Kind::Solicit | Kind::Request | Kind::Renew | Kind::Rebind => {
            // A client that wants addresses where none are given goes on with those that it makes itself.
            if !request.associations.is_empty() && lease.addresses.is_empty() {
                put_status(&mut out, status::NO_ADDRESSES, "this network gives no addresses by DHCPv6");
            } else {
                associations(&mut out, request, lease);
            }
            if request.kind == Kind::Solicit && request.rapid {
                put(&mut out, option::RAPID_COMMIT, &[]);
            }
        }
        Kind::Confirm => {
            let mut claimed = request.associations.iter().flat_map(|one| &one.addresses).peekable();
            claimed.peek()?;
            if claimed.all(|address| lease.addresses.contains(address)) {
                put_status(&mut out, status::SUCCESS, "these are your addresses");
            } else {
                put_status(&mut out, status::NOT_ON_LINK, "these are not your addresses");
            }
            return Some(out);
        }
        Kind::Release | Kind::Decline => {
            put_status(&mut out, status::SUCCESS, "a port keeps its addresses");
            return Some(out);
        }
        Kind::Information => {}
    }
    configuration(&mut out, lease);
    Some(out)
}

/// The port's addresses go to the first association; what a client has besides them ends at once.
fn associations(out: &mut Vec<u8>, request: &Request<'_>, lease: &Lease6) {
    for (index, asked) in request.associations.iter().enumerate() {
        let mut value = asked.id.to_vec();
        value.extend((LEASE_S / 2).to_be_bytes());
        value.extend((LEASE_S / 5 * 4).to_be_bytes());
        let given: &[Ipv6Addr] = if index == 0 { &lease.addresses } else { &[] };
        let renewed = matches!(request.kind, Kind::Renew | Kind::Rebind);
        let ended = asked.addresses.iter().filter(|address| renewed && !given.contains(address)).take(8);
        let all = given.iter().map(|address| (address, LEASE_S)).chain(ended.map(|address| (address, 0)));
        for (address, seconds) in all {
            let mut entry = address.octets().to_vec();
            entry.extend(seconds.to_be_bytes());
            entry.extend(seconds.to_be_bytes());
            put(&mut value, option::ADDRESS, &entry);
        }
        if given.is_empty() {
            put_status(&mut value, status::NO_ADDRESSES, "another association has the addresses");
        }
        put(out, option::ASSOCIATION, &value);
    }
}

/// What is told besides addresses; an option of the port's own takes the place of ours.
fn configuration(out: &mut Vec<u8>, lease: &Lease6) {
    let own = |code: u16| lease.options.iter().any(|(other, _)| *other == code);
    if !lease.dns_servers.is_empty() && !own(option::DNS_SERVERS) {
        let servers: Vec<u8> = lease.dns_servers.iter().take(8).flat_map(Ipv6Addr::octets).collect();
        put(out, option::DNS_SERVERS, &servers);
    }
    if let Some(name) = packet::domain_name(&lease.domain)
        && !own(option::DOMAINS)
    {
        put(out, option::DOMAINS, &name);
    }
    for (code, value) in &lease.options {
        if out.len() + 4 + value.len() <= MESSAGE_BYTES_MAX {
            put(out, *code, value);
        }
    }
}

fn put(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    if let Ok(length) = u16::try_from(value.len()) {
        out.extend(code.to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(value);
    }
}

fn put_status(out: &mut Vec<u8>, code: u16, text: &str) {
    let mut value = code.to_be_bytes().to_vec();
    value.extend(text.bytes());
    put(out, option::STATUS, &value);
}

#[cfg(test)]
mod tests {
    use super::super::segment::Guest;
    use super::*;
    use arcus_types::ids::PortId;
    use proptest::prelude::*;

    const MAC: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]);

    fn guests(stateful: bool) -> Guests {
        let lease6 = Lease6 {
            addresses: if stateful { vec!["fd00:a::5".parse().unwrap()] } else { vec![] },
            dns_servers: vec!["fd00::53".parse().unwrap()],
            domain: "example.org".into(),
            options: vec![(59, b"http://boot".to_vec())],
        };
        [(1, Guest { port: PortId::new(), mac: MAC, lease: None, lease6: Some(lease6) })].into()
    }

    fn message(kind: u8, options: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut out = vec![kind, 1, 2, 3];
        put(&mut out, option::CLIENT, &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9]);
        for (code, value) in options {
            put(&mut out, *code, value);
        }
        out
    }

    fn association(address: Option<&str>) -> (u16, Vec<u8>) {
        let mut value = vec![7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0];
        if let Some(address) = address {
            let mut entry = address.parse::<Ipv6Addr>().unwrap().octets().to_vec();
            entry.extend([0; 8]);
            put(&mut value, option::ADDRESS, &entry);
        }
        (option::ASSOCIATION, value)
    }

    fn us() -> (u16, Vec<u8>) {
        (option::SERVER, identifier().to_vec())
    }

    type Options = Vec<(u16, Vec<u8>)>;

    /// The kind of the answer and its options.
    fn ask(bytes: &[u8], stateful: bool) -> Option<(u8, Options)> {
        let from = (MAC, packet::link_local(MAC));
        let frame = answer(bytes, from, &guests(stateful))?;
        let payload = &frame[14 + 40 + 8..];
        assert_eq!(payload[1..4], [1, 2, 3]);
        let all = options(&payload[4..]).unwrap();
        Some((payload[0], all.into_iter().map(|(code, value)| (code, value.to_vec())).collect()))
    }

    fn given(options: &[(u16, Vec<u8>)]) -> Vec<(Ipv6Addr, u32)> {
        let value = &options.iter().find(|(code, _)| *code == option::ASSOCIATION).unwrap().1;
        assert_eq!(value[..4], [7; 4]);
        let inner = super::options(&value[12..]).unwrap();
        let addresses = inner.iter().filter(|(code, _)| *code == option::ADDRESS);
        addresses
            .map(|(_, v)| {
                let address = <[u8; 16]>::try_from(&v[..16]).unwrap();
                (Ipv6Addr::from(address), u32::from_be_bytes(v[20..24].try_into().unwrap()))
            })
            .collect()
    }

    #[test]
    fn an_address_is_offered_and_given() {
        let own = ("fd00:a::5".parse().unwrap(), LEASE_S);
        let (kind, options) = ask(&message(1, &[association(None)]), true).unwrap();
        assert_eq!((kind, given(&options)), (2, vec![own]));
        assert!(options.contains(&(option::DOMAINS, b"\x07example\x03org\0".to_vec())));
        assert!(options.contains(&(59, b"http://boot".to_vec())));
        let (kind, options) = ask(&message(1, &[association(None), (14, vec![])]), true).unwrap();
        assert_eq!((kind, given(&options)), (7, vec![own]));
        let (kind, options) = ask(&message(3, &[us(), association(Some("fd00:a::5"))]), true).unwrap();
        assert_eq!((kind, given(&options)), (7, vec![own]));
        let (_, options) = ask(&message(5, &[us(), association(Some("fd00:a::6"))]), true).unwrap();
        assert_eq!(given(&options), [own, ("fd00:a::6".parse().unwrap(), 0)]);
    }

    #[test]
    fn without_addresses_the_rest_is_told() {
        let (kind, options) = ask(&message(11, &[]), false).unwrap();
        assert_eq!(kind, 7);
        let dns = "fd00::53".parse::<Ipv6Addr>().unwrap().octets().to_vec();
        assert!(options.contains(&(option::DNS_SERVERS, dns)));
        let (_, options) = ask(&message(1, &[association(None)]), false).unwrap();
        assert!(options.iter().any(|(code, value)| *code == option::STATUS && value[..2] == [0, 2]));
    }

    #[test]
    fn what_is_not_for_us_is_left_alone() {
        let other = (option::SERVER, vec![0, 3, 0, 1, 1, 1, 1, 1, 1, 1]);
        assert!(ask(&message(3, &[association(None)]), true).is_none(), "a request names its server");
        assert!(ask(&message(3, &[other, association(None)]), true).is_none());
        assert!(ask(&message(1, &[us()]), true).is_none(), "a solicitation names none");
        assert!(ask(&message(12, &[]), true).is_none(), "relayed messages are none of ours");
        assert!(ask(&message(4, &[association(None)]), true).is_none(), "nothing to confirm");
        let stranger = (MacAddr([2; 6]), packet::link_local(MacAddr([2; 6])));
        assert!(answer(&message(1, &[]), stranger, &guests(true)).is_none());
        assert!(answer(&message(1, &[]), (MAC, "fd00::1".parse().unwrap()), &guests(true)).is_none());
    }

    #[test]
    fn a_client_learns_whether_it_is_still_in_place() {
        let code = |address| {
            let (_, options) = ask(&message(4, &[association(Some(address))]), true).unwrap();
            options.into_iter().find(|(code, _)| *code == option::STATUS).unwrap().1[1]
        };
        assert_eq!((code("fd00:a::5"), code("fd00:b::5")), (0, 4));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let _ = answer(&bytes, (MAC, packet::link_local(MAC)), &guests(true));
        }

        #[test]
        fn no_options_make_it_panic_or_talk_long(
            kind in 0_u8..14,
            list in proptest::collection::vec((0_u16..30, proptest::collection::vec(any::<u8>(), 0..60)), 0..80),
            cut in 0_usize..4000,
        ) {
            let bytes = message(kind, &list);
            let from = (MAC, packet::link_local(MAC));
            let _ = answer(&bytes[..bytes.len().min(cut)], from, &guests(true));
            if let Some(frame) = answer(&bytes, from, &guests(true)) {
                prop_assert!(frame.len() <= 14 + 40 + 8 + MESSAGE_BYTES_MAX);
            }
        }
    }
}
