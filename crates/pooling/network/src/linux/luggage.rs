//! Tracked connections that go with a guest to another node.
//!
//! An established connection passes the filter without a look at the rules, so where the guest arrives it must be known as
//! what it is: no rule may let its next packet begin one. What the kernel tells of it is handed on as it is but for the
//! mark, which holds the numbers of ports on one node, and for sequence windows, which packets tell anew.

use super::netlink::{self, Connection, attribute, attribute_put, attributes};
use arcus_types::agent::{FLOWS_MAX, FlowSpec};
use arcus_types::ids::PortId;
use std::io;

// Attributes of a connection. Layout: linux/netfilter/nfnetlink_conntrack.h.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL: u16 = 4;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
/// Confirmed, assured, answered; nothing about translations, which segments do not have.
const STATUS_KEPT: u32 = 0x2 | 0x4 | 0x8;
/// Of TCP: the state, and how each side's windows are held.
const TCP: u16 = 1;
const TCP_STATE: u16 = 1;
const TCP_SCALE: [u16; 2] = [2, 3];
const TCP_FLAGS: [u16; 2] = [4, 5];
/// Window scaling is known; packets out of the window, which nobody knows here, pass.
const TCP_LIBERAL: [u8; 2] = [0x1 | 0x8, 0x1 | 0x8];

/// The connections of the calling thread's namespace that the port with this number takes part in.
pub fn pack(port: PortId, number: u16) -> io::Result<Vec<FlowSpec>> {
    let mut out = Vec::new();
    for connection in netlink::connections()? {
        let list = attributes(&connection.attributes);
        let mark = attribute(&list, MARK).and_then(|v| v.try_into().ok()).map_or(0, u32::from_be_bytes);
        let begun = mark >> 16 == u32::from(number);
        if (begun || mark & 0xffff == u32::from(number)) && out.len() < FLOWS_MAX {
            let attributes = hex(&connection.attributes);
            out.push(FlowSpec { port, begun, family: connection.family, attributes });
        }
    }
    Ok(out)
}

/// Makes these connections known in the calling thread's namespace, where the port has this number.
pub fn unpack(flows: &[FlowSpec], number: u16) -> io::Result<()> {
    let made: Vec<Connection> = flows.iter().filter_map(|flow| connection(flow, number)).collect();
    netlink::connections_make(&made)
}

/// A connection as it is to be made; `None` for one that cannot be read.
fn connection(flow: &FlowSpec, number: u16) -> Option<Connection> {
    let bytes = unhex(&flow.attributes)?;
    let list = attributes(&bytes);
    let mut out = Vec::with_capacity(bytes.len());
    for kind in [TUPLE_ORIGINAL, TUPLE_REPLY] {
        attribute_put(&mut out, kind, true, attribute(&list, kind)?).ok()?;
    }
    let status = attribute(&list, STATUS).and_then(|v| v.try_into().ok()).map_or(0, u32::from_be_bytes);
    attribute_put(&mut out, STATUS, false, &(status & STATUS_KEPT).to_be_bytes()).ok()?;
    attribute_put(&mut out, TIMEOUT, false, attribute(&list, TIMEOUT)?).ok()?;
    let number = u32::from(number);
    let mark = if flow.begun { number << 16 } else { number };
    attribute_put(&mut out, MARK, false, &mark.to_be_bytes()).ok()?;
    let protocol = attribute(&list, PROTOCOL).map(attributes).unwrap_or_default();
    if let Some(tcp) = attribute(&protocol, TCP).map(attributes) {
        let mut inner = Vec::new();
        attribute_put(&mut inner, TCP_STATE, false, attribute(&tcp, TCP_STATE)?).ok()?;
        for kind in TCP_SCALE {
            if let Some(scale) = attribute(&tcp, kind) {
                attribute_put(&mut inner, kind, false, scale).ok()?;
            }
        }
        for kind in TCP_FLAGS {
            attribute_put(&mut inner, kind, false, &TCP_LIBERAL).ok()?;
        }
        let mut wrapped = Vec::new();
        attribute_put(&mut wrapped, TCP, true, &inner).ok()?;
        attribute_put(&mut out, PROTOCOL, true, &wrapped).ok()?;
    }
    Some(Connection { family: flow.family, attributes: out })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = (0..text.len()).step_by(2).map(|at| text.get(at..at + 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_gets_the_mark_of_its_new_place() {
        let mut bytes = Vec::new();
        for kind in [TUPLE_ORIGINAL, TUPLE_REPLY] {
            attribute_put(&mut bytes, kind, true, &[kind as u8; 8]).unwrap();
        }
        attribute_put(&mut bytes, TIMEOUT, false, &60_u32.to_be_bytes()).unwrap();
        attribute_put(&mut bytes, MARK, false, &(7_u32 << 16 | 9).to_be_bytes()).unwrap();
        let flow = FlowSpec { port: PortId::new(), begun: true, family: 2, attributes: hex(&bytes) };
        let made = connection(&flow, 3).unwrap();
        let list = attributes(&made.attributes);
        assert_eq!(attribute(&list, MARK), Some(&(3_u32 << 16).to_be_bytes()[..]));
        assert_eq!(attribute(&list, TUPLE_REPLY), Some(&[2; 8][..]));
        let cut = FlowSpec { attributes: "0".to_owned(), ..flow };
        assert!(connection(&cut, 3).is_none());
    }
}
