//! A guest's network card without a guest: frames as they are, for tests that forge them or look at them.

use crate::lab::Lab;
use arcus_network::Network;
use arcus_types::ids::PortId;
use arcus_types::text::MacAddr;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The header before each frame on a tap.
const HEADER: usize = 10;

pub struct Wire(OwnedFd);

impl Wire {
    /// At the tap of a port that is up.
    pub async fn at(lab: &Lab, port: PortId) -> Self {
        Self(lab.driver.tap(port).await.unwrap())
    }

    pub fn send(&self, frame: &[u8]) {
        let mut bytes = vec![0; HEADER];
        bytes.extend_from_slice(frame);
        nix::unistd::write(&self.0, &bytes).unwrap();
    }

    /// The first frame that `find` makes something of.
    pub fn hear<T>(&self, wait: Duration, mut find: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + wait;
        let mut buffer = vec![0; 70_000];
        while Instant::now() < end {
            match nix::unistd::read(&self.0, &mut buffer) {
                Ok(n) if n > HEADER => {
                    if let Some(found) = find(&buffer[HEADER..n]) {
                        return Some(found);
                    }
                }
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        None
    }

    /// Throws away what has come until now.
    pub fn drain(&self) {
        let mut buffer = vec![0; 70_000];
        while nix::unistd::read(&self.0, &mut buffer).is_ok() {}
    }
}

pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&mac.eui64());
    octets.into()
}

/// An Ethernet frame with IPv6 and this payload, whose checksum at `sum_at` is filled in.
pub fn ip6(
    macs: (MacAddr, MacAddr),
    addresses: (Ipv6Addr, Ipv6Addr),
    protocol: u8,
    payload: &[u8],
    sum_at: usize,
) -> Vec<u8> {
    let mut body = payload.to_vec();
    let length = body.len() as u32;
    let mut words: Vec<u8> = [addresses.0.octets(), addresses.1.octets()].concat();
    words.extend(length.to_be_bytes());
    words.extend(u32::from(protocol).to_be_bytes());
    words.extend(&body);
    let mut sum: u32 = words.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(*p.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    body[sum_at..sum_at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut frame = [macs.1.0, macs.0.0].concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((length as u16).to_be_bytes());
    frame.extend([protocol, 255]);
    frame.extend(addresses.0.octets());
    frame.extend(addresses.1.octets());
    frame.extend(&body);
    frame
}

pub fn udp6(macs: (MacAddr, MacAddr), addresses: (Ipv6Addr, Ipv6Addr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [ports.0, ports.1, payload.len() as u16 + 8, 0] {
        body.extend(field.to_be_bytes());
    }
    body.extend(payload);
    ip6(macs, addresses, 17, &body, 6)
}

/// The ICMPv6 message of a frame.
pub fn icmp6(frame: &[u8]) -> Option<&[u8]> {
    (frame.get(12..14)? == [0x86, 0xdd] && frame.get(20)? == &58).then(|| &frame[54..])
}
