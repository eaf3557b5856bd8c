//! Answers DNS (RFC 1035) for the names of a segment's ports, and nothing else: it forwards no question to anybody.
//!
//! Guests are told of it by DHCP where their subnet names no name servers. What is asked is read here byte by byte, in
//! bounds, and tests show that no bytes make it panic.

use arcus_types::agent::NetworkSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock};

/// How long guests may keep an answer, in seconds.
const TTL_S: u32 = 30;

/// How many addresses one answer tells: it must stay below 512 bytes.
const ANSWERS_MAX: usize = 7;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;
const TYPE_ANY: u16 = 255;

const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

/// The names of a segment, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    names: BTreeMap<IpAddr, String>,
    domains: BTreeSet<String>,
}

impl Names {
    /// The names of a network's ports, on all nodes.
    pub fn of(spec: &NetworkSpec) -> Self {
        let mut out = Self::default();
        for port in &spec.ports {
            let addresses = port.addresses.iter().map(|fixed| fixed.address);
            out.add(&port.hostname, &port.dns_domain, addresses);
        }
        for port in spec.peers.iter().flat_map(|peer| &peer.ports) {
            out.add(&port.hostname, &port.dns_domain, port.addresses.iter().copied());
        }
        out
    }

    fn add(&mut self, hostname: &str, domain: &str, addresses: impl Iterator<Item = IpAddr>) {
        let (hostname, domain) = (hostname.to_ascii_lowercase(), domain.trim_end_matches('.').to_ascii_lowercase());
        if hostname.is_empty() {
            return;
        }
        let full = if domain.is_empty() { hostname.clone() } else { format!("{hostname}.{domain}") };
        for address in addresses {
            for name in [&hostname, &full] {
                self.addresses.entry(name.clone()).or_default().insert(address);
            }
            self.names.entry(address).or_insert_with(|| full.clone());
        }
        if !domain.is_empty() {
            self.domains.insert(domain);
        }
    }

    /// Whether we alone know what there is under a name.
    fn is_ours(&self, name: &str) -> bool {
        let in_domain = |domain: &String| name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'));
        !name.contains('.') || self.domains.iter().any(in_domain)
    }
}

/// The sockets, in the calling thread's namespace. The bridge that holds the addresses may be made later.
pub fn listen() -> io::Result<[UdpSocket; 2]> {
    use socket2::{Domain, Socket, Type};
    let v4 = Socket::new(Domain::IPV4, Type::DGRAM.cloexec().nonblocking(), None)?;
    v4.set_freebind_v4(true)?;
    v4.bind(&SocketAddr::from((super::filter::SERVICE_ADDRESS, 53)).into())?;
    let v6 = Socket::new(Domain::IPV6, Type::DGRAM.cloexec().nonblocking(), None)?;
    v6.set_only_v6(true)?;
    v6.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 53)).into())?;
    Ok([v4.into(), v6.into()])
}

/// Answers on the sockets of [`listen`] until the task is ended. The filter bounds how much a guest may ask.
pub async fn serve(sockets: [UdpSocket; 2], names: Arc<RwLock<Arc<Names>>>) -> io::Result<()> {
    let [v4, v6] = sockets;
    let (v4, v6) = (tokio::net::UdpSocket::from_std(v4)?, tokio::net::UdpSocket::from_std(v6)?);
    let (mut buffer4, mut buffer6) = ([0; 512], [0; 512]);
    loop {
        let (socket, received, buffer) = tokio::select! {
            received = v4.recv_from(&mut buffer4) => (&v4, received, &buffer4),
            received = v6.recv_from(&mut buffer6) => (&v6, received, &buffer6),
        };
        // What could not be delivered earlier is told here: it does not concern the next one.
        let Ok((length, from)) = received else { continue };
        let names = Arc::clone(&names.read().unwrap_or_else(PoisonError::into_inner));
        if let Some(answer) = answer(&buffer[..length], &names)
            && let Err(error) = socket.try_send_to(&answer, from)
        {
            tracing::debug!(%error, "a DNS answer could not be sent");
        }
    }
}

/// A question.
struct Question<'a> {
    /// As it was sent, with type and class.
    bytes: &'a [u8],
    name: String,
    kind: u16,
}

impl<'a> Question<'a> {
    /// Reads the only question of a message, after its header.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut labels: Vec<String> = Vec::new();
        let mut at = 0;
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1;
            match length {
                0 => break,
                // Neither a reference to elsewhere nor longer than names may be (RFC 1035, 2.3.4).
                1..=63 if at + length <= 254 => {
                    let label = bytes.get(at..at + length)?;
                    labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                    at += length;
                }
                _ => return None,
            }
        }
        let kind = u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
        let bytes = bytes.get(..at + 4)?;
        Some(Self { bytes, name: labels.join("."), kind })
    }
}

/// The answer to a message, if it deserves one.
fn answer(message: &[u8], names: &Names) -> Option<Vec<u8>> {
    let (head, rest) = message.split_at_checked(12)?;
    let is_answer = head[2] & 0x80 != 0;
    let questions = u16::from_be_bytes([head[4], head[5]]);
    if is_answer || questions != 1 {
        return None;
    }
    let question = Question::read(rest)?;
    let (code, records) = if head[2] & 0x78 == 0 { find(&question, names) } else { (NOT_IMPLEMENTED, Vec::new()) };
    let authoritative = if code == REFUSED || code == NOT_IMPLEMENTED { 0 } else { 0x04 };
    let mut out = head[..2].to_vec();
    out.extend([0x80 | authoritative | (head[2] & 0x79), code, 0, 1, 0, u8::try_from(records.len()).ok()?, 0, 0, 0, 0]);
    out.extend(question.bytes);
    for (kind, value) in records {
        out.extend([0xc0, 12]); // the name of the question
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(TTL_S.to_be_bytes());
        out.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
        out.extend(value);
    }
    Some(out)
}

/// The code of the answer and its records.
fn find(question: &Question<'_>, names: &Names) -> (u8, Vec<(u16, Vec<u8>)>) {
    if let Some(address) = reverse(&question.name) {
        let name = names.names.get(&address).and_then(|name| super::packet::domain_name(name));
        return match name {
            Some(name) if matches!(question.kind, TYPE_PTR | TYPE_ANY) => (0, vec![(TYPE_PTR, name)]),
            Some(_) => (0, Vec::new()),
            None => (REFUSED, Vec::new()),
        };
    }
    let Some(addresses) = names.addresses.get(&question.name) else {
        return (if names.is_ours(&question.name) { NO_SUCH_NAME } else { REFUSED }, Vec::new());
    };
    let record = |address: &IpAddr| match (address, question.kind) {
        (IpAddr::V4(address), TYPE_A | TYPE_ANY) => Some((TYPE_A, address.octets().to_vec())),
        (IpAddr::V6(address), TYPE_AAAA | TYPE_ANY) => Some((TYPE_AAAA, address.octets().to_vec())),
        (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
    };
    (0, addresses.iter().filter_map(record).take(ANSWERS_MAX).collect())
}

/// The address that a name of the reverse tree stands for.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = digits.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut number = 0_u128;
    let mut count = 0;
    for digit in digits.split('.') {
        let nibble = u128::from_str_radix(digit, 16).ok().filter(|n| *n < 16 && count < 32)?;
        number |= nibble << (4 * count);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(number).into())
}

#[cfg(test)]
mod tests {
    use super::super::packet::domain_name;
    use super::*;
    use proptest::prelude::*;

    fn names() -> Names {
        let mut names = Names::default();
        let addresses = ["10.0.0.5", "fd00:a::5"].map(|a| a.parse().unwrap());
        names.add("Web-1", "example.org.", addresses.into_iter());
        names.add("alone", "", ["10.0.0.6".parse().unwrap()].into_iter());
        names
    }

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        out.extend(domain_name(name).unwrap());
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out
    }

    /// The code, and the count and bytes of the records.
    fn ask(name: &str, kind: u16) -> (u8, u8, Vec<u8>) {
        let asked = question(name, kind);
        let answer = answer(&asked, &names()).unwrap();
        assert_eq!((&answer[..2], answer[2] & 0x81, &answer[12..asked.len()]), (&[7, 8][..], 0x81, &asked[12..]));
        (answer[3], answer[7], answer[asked.len()..].to_vec())
    }

    #[test]
    fn names_of_ports_are_known_with_and_without_their_domain() {
        for name in ["web-1.example.org", "WEB-1.Example.org", "web-1"] {
            let (code, count, records) = ask(name, TYPE_A);
            assert_eq!((code, count, &records[records.len() - 4..]), (0, 1, &[10, 0, 0, 5][..]), "{name}");
        }
        let (_, count, records) = ask("web-1", TYPE_AAAA);
        assert_eq!((count, records[10..12].to_vec()), (1, vec![0, 16]));
        assert_eq!(ask("web-1", TYPE_ANY).1, 2);
        assert_eq!(ask("alone", TYPE_AAAA), (0, 0, vec![]));
        let (_, count, records) = ask("5.0.0.10.in-addr.arpa", TYPE_PTR);
        assert_eq!((count, records[12..].to_vec()), (1, domain_name("web-1.example.org").unwrap()));
        let six = format!("5.{}a.0.0.0.0.0.d.f.ip6.arpa", "0.".repeat(23));
        assert_eq!(ask(&six, TYPE_PTR).1, 1);
    }

    #[test]
    fn what_others_know_is_refused_and_what_nobody_can_know_is_denied() {
        assert_eq!(ask("www.example.com", TYPE_A).0, REFUSED);
        assert_eq!(ask("other.example.org", TYPE_A).0, NO_SUCH_NAME);
        assert_eq!(ask("other", TYPE_A).0, NO_SUCH_NAME);
        assert_eq!(ask("9.0.0.10.in-addr.arpa", TYPE_PTR).0, REFUSED);
        let mut reply = question("alone", TYPE_A);
        reply[2] |= 0x80;
        assert!(answer(&reply, &names()).is_none(), "an answer is not answered");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_talk_long(
            head in any::<[u8; 2]>(),
            rest in proptest::collection::vec(any::<u8>(), 0..500),
        ) {
            let mut bytes = vec![1, 2, head[0], head[1], 0, 1, 0, 0, 0, 0, 0, 0];
            bytes.extend(rest);
            if let Some(answer) = answer(&bytes, &names()) {
                prop_assert!(answer.len() <= 512);
            }
        }
    }
}
