//! Frames that we send ourselves: sockets that take and give whole Ethernet frames, ARP announcements, UDP datagrams,
//! ICMPv6 messages.

use arcus_types::text::MacAddr;
use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

/// The Ethernet address that reaches all.
pub const MAC_ALL: MacAddr = MacAddr([0xff; 6]);

/// Which frames a socket gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: it only sends.
    Nothing,
    /// Whole UDP datagrams over IPv4 for this port.
    UdpPort(u16),
    /// What IPv6 guests ask routers and DHCP servers; neither in fragments nor behind extension headers.
    Ipv6Questions,
}

/// A socket for whole frames on a device of the calling thread's namespace.
pub fn open(device: &str, wanted: Wanted) -> io::Result<Socket> {
    // Protocol 0 takes no frames until the filter is on and the socket bound.
    let socket = Socket::new(Domain::PACKET, Type::RAW.cloexec().nonblocking(), None::<Protocol>)?;
    let protocol = match wanted {
        Wanted::Nothing => 0,
        Wanted::UdpPort(port) => {
            socket.attach_filter(&udp_filter(port))?;
            ETHERTYPE_IPV4
        }
        Wanted::Ipv6Questions => {
            socket.attach_filter(&ipv6_filter())?;
            ETHERTYPE_IPV6
        }
    };
    let index = nix::net::if_::if_nametoindex(device)?;
    let index = i32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the storage is zeroed, large and aligned enough for any address, and `length` is that of what is written.
    let ((), address) = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as libc::sa_family_t;
            (*link).sll_protocol = protocol.to_be();
            (*link).sll_ifindex = index;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address)?;
    Ok(socket)
}

/// Reads one frame; what does not fit is cut off.
pub fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    let mut uninit = vec![MaybeUninit::uninit(); buffer.len()];
    let length = socket.recv(&mut uninit)?;
    for (to, from) in buffer.iter_mut().zip(&uninit[..length]) {
        // SAFETY: the kernel has written the first `length` bytes.
        *to = unsafe { from.assume_init() };
    }
    Ok(length)
}

/// A classic filter program: IPv4 without options or with, UDP, not a later fragment, to the port.
fn udp_filter(port: u16) -> [SockFilter; 11] {
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const LOAD_IP_HEADER: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
    const LOAD_HALF_X: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    [
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 0, 8, ETHERTYPE_IPV4.into()),
        SockFilter::new(LOAD_BYTE, 0, 0, 23),
        SockFilter::new(JUMP_EQUAL, 0, 6, 17),
        SockFilter::new(LOAD_HALF, 0, 0, 20),
        SockFilter::new(JUMP_SET, 4, 0, 0x3fff),
        SockFilter::new(LOAD_IP_HEADER, 0, 0, 14),
        SockFilter::new(LOAD_HALF_X, 0, 0, 16),
        SockFilter::new(JUMP_EQUAL, 0, 1, port.into()),
        SockFilter::new(RETURN, 0, 0, 0xffff),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// A classic filter program: IPv6 with UDP to the DHCP server's port, or a router solicitation, right after the header.
fn ipv6_filter() -> [SockFilter; 10] {
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    [
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 0, 7, ETHERTYPE_IPV6.into()),
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(JUMP_EQUAL, 2, 0, PROTOCOL_ICMPV6.into()),
        SockFilter::new(LOAD_HALF, 0, 0, 56),
        SockFilter::new(JUMP_EQUAL, 2, 3, 547),
        SockFilter::new(LOAD_BYTE, 0, 0, 54),
        SockFilter::new(JUMP_EQUAL, 0, 1, 133),
        SockFilter::new(RETURN, 0, 0, 0xffff),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// A question that [`Wanted::Ipv6Questions`] let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question6<'a> {
    /// Which routers are there?
    Routers,
    /// A message for a DHCP server.
    Dhcp(&'a [u8]),
}

/// The Ethernet and IPv6 source of a frame and what it asks.
pub fn question6(frame: &[u8]) -> Option<((MacAddr, Ipv6Addr), Question6<'_>)> {
    let source = MacAddr(frame.get(6..12)?.try_into().ok()?);
    let packet = frame.get(14..)?;
    let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?);
    let body = packet.get(40..)?;
    let body = &body[..length.min(body.len())];
    let question = match packet[6] {
        // One that came over a router would have a smaller hop limit (RFC 4861, 6.1.1).
        PROTOCOL_ICMPV6 if packet[7] == 255 && body.len() >= 8 && body[..2] == [133, 0] => Question6::Routers,
        PROTOCOL_UDP => {
            let length = usize::from(u16::from_be_bytes(body.get(4..6)?.try_into().ok()?));
            Question6::Dhcp(body.get(8..length.min(body.len()))?)
        }
        _ => return None,
    };
    Some(((source, address), question))
}

/// The link-local address that follows from an Ethernet address. Source: RFC 4291, appendix A.
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&mac.eui64());
    octets.into()
}

/// A domain name as DHCP and DNS write it: labels with their lengths. Nothing if it is empty or not one.
pub fn domain_name(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('.');
    let mut out = Vec::with_capacity(text.len() + 2);
    for label in text.split('.') {
        out.push(u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?);
        out.extend(label.bytes());
    }
    out.push(0);
    (out.len() <= 255).then_some(out)
}

/// The Ethernet source and the payload of a frame that [`Wanted::UdpPort`] let through.
pub fn udp_payload(frame: &[u8]) -> Option<(MacAddr, &[u8])> {
    let source = MacAddr(frame.get(6..12)?.try_into().ok()?);
    let packet = frame.get(14..)?;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    let datagram = packet.get(header..total.min(packet.len()))?;
    let length = usize::from(u16::from_be_bytes(datagram.get(4..6)?.try_into().ok()?));
    Some((source, datagram.get(8..length.min(datagram.len()))?))
}

/// A frame with a UDP datagram, checksums filled in: clients that read raw frames check them.
pub fn udp_frame(from: (MacAddr, Ipv4Addr, u16), to: (MacAddr, Ipv4Addr, u16), payload: &[u8]) -> Option<Vec<u8>> {
    let udp_length = u16::try_from(8 + payload.len()).ok()?;
    let ip_length = udp_length.checked_add(20)?;
    let mut frame = Vec::with_capacity(14 + usize::from(ip_length));
    frame.extend_from_slice(&to.0.0);
    frame.extend_from_slice(&from.0.0);
    frame.extend_from_slice(&ETHERTYPE_IPV4.to_be_bytes());

    let mut ip = [0_u8; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&ip_length.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&from.1.octets());
    ip[16..20].copy_from_slice(&to.1.octets());
    let sum = checksum(sum_of(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&ip);

    let mut udp = Vec::with_capacity(usize::from(udp_length));
    for field in [from.2, to.2, udp_length, 0] {
        udp.extend_from_slice(&field.to_be_bytes());
    }
    udp.extend_from_slice(payload);
    let pseudo = sum_of(&ip[12..20]) + 17 + u32::from(udp_length);
    // Zero means "no checksum"; its other spelling stands for a sum of zero.
    let sum = match checksum(pseudo + sum_of(&udp)) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&udp);
    Some(frame)
}

/// A frame with a UDP datagram over IPv6, checksum filled in.
pub fn udp6_frame(from: (MacAddr, Ipv6Addr, u16), to: (MacAddr, Ipv6Addr, u16), payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(8 + payload.len()).ok()?;
    let mut body = Vec::with_capacity(usize::from(length));
    for field in [from.2, to.2, length, 0] {
        body.extend_from_slice(&field.to_be_bytes());
    }
    body.extend_from_slice(payload);
    ip6_frame((from.0, from.1), (to.0, to.1), PROTOCOL_UDP, body)
}

/// A frame with an ICMPv6 message, whose checksum is filled in.
pub fn icmp6_frame(from: (MacAddr, Ipv6Addr), to: (MacAddr, Ipv6Addr), message: &[u8]) -> Option<Vec<u8>> {
    ip6_frame(from, to, PROTOCOL_ICMPV6, message.to_vec())
}

fn ip6_frame(from: (MacAddr, Ipv6Addr), to: (MacAddr, Ipv6Addr), protocol: u8, mut body: Vec<u8>) -> Option<Vec<u8>> {
    let length = u16::try_from(body.len()).ok()?;
    let sum = sum_of(&from.1.octets()) + sum_of(&to.1.octets()) + u32::from(length) + u32::from(protocol);
    // Zero means "no checksum" to UDP; its other spelling stands for a sum of zero.
    let sum = match checksum(sum + sum_of(&body)) {
        0 => 0xffff,
        sum => sum,
    };
    let at = if protocol == PROTOCOL_UDP { 6 } else { 2 };
    body.get_mut(at..at + 2)?.copy_from_slice(&sum.to_be_bytes());
    let mut frame = Vec::with_capacity(54 + body.len());
    frame.extend_from_slice(&to.0.0);
    frame.extend_from_slice(&from.0.0);
    frame.extend_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    // 255: it has not come over a router.
    frame.extend_from_slice(&[protocol, 255]);
    frame.extend_from_slice(&from.1.octets());
    frame.extend_from_slice(&to.1.octets());
    frame.extend_from_slice(&body);
    Some(frame)
}

/// Unsolicited: all who hear it learn where the address is now. Layout: RFC 4861, 4.4.
pub fn neighbour_announcement(mac: MacAddr, address: Ipv6Addr) -> Option<Vec<u8>> {
    const ROUTER_AND_OVERRIDE: u8 = 0xa0;
    let mut message = vec![136, 0, 0, 0, ROUTER_AND_OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac.0);
    let all = (MacAddr([0x33, 0x33, 0, 0, 0, 1]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    icmp6_frame((mac, address), all, &message)
}

fn sum_of(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn checksum(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A gratuitous ARP request: all who hear it learn where the address is now. Source: RFC 5227, section 3.
pub fn arp_announcement(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend_from_slice(&MAC_ALL.0);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&address.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&address.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_comes_back_out_of_its_frame() {
        let (a, b) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let frame =
            udp_frame((a, Ipv4Addr::new(10, 0, 0, 1), 67), (b, Ipv4Addr::new(10, 0, 0, 2), 68), b"hello").unwrap();
        assert_eq!(udp_payload(&frame), Some((a, &b"hello"[..])));
        assert_eq!(checksum(sum_of(&frame[14..34])), 0);
        for cut in 0..frame.len() {
            let _ = udp_payload(&frame[..cut]);
        }
    }

    #[test]
    fn a_question_comes_back_out_of_its_frame() {
        let (a, b) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let (from, to) = ((a, link_local(a), 546), (b, link_local(b), 547));
        let frame = udp6_frame(from, to, b"hello").unwrap();
        assert_eq!(question6(&frame), Some(((a, link_local(a)), Question6::Dhcp(b"hello"))));
        let solicit = icmp6_frame((a, link_local(a)), (b, link_local(b)), &[133, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(question6(&solicit).unwrap().1, Question6::Routers);
        for frame in [frame, solicit] {
            for cut in 0..frame.len() {
                let _ = question6(&frame[..cut]);
            }
        }
    }

    #[test]
    fn names_are_written_with_their_lengths() {
        assert_eq!(domain_name("a.bc."), Some(b"\x01a\x02bc\0".to_vec()));
        assert_eq!(domain_name(""), None);
        assert_eq!(domain_name("a..b"), None);
    }
}
