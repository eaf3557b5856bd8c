//! The little of netlink that no program gives us cheaply: to list and end tracked connections, and to ask whether the
//! packet filter has changed since we wrote it. For the calling thread's namespace.
//!
//! Layouts: linux/netlink.h, linux/netfilter/{nfnetlink,nfnetlink_conntrack,nf_tables}.h.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;

const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;

const CONNECTION_NEW: u16 = 0x100;
const CONNECTION_GET: u16 = 0x101;
const CONNECTION_DELETE: u16 = 0x102;
const FILTER_GENERATION_NEW: u16 = (10 << 8) | 15;
const FILTER_GENERATION_GET: u16 = (10 << 8) | 16;

/// Room for one datagram of a dump; the kernel fills at most 32 KiB.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long the kernel may take to answer, in seconds: it answers at once or never.
const ANSWER_S_MAX: i64 = 5;

/// A tracked connection: its attributes as the kernel sent them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The address family.
    pub family: u8,
    /// The attributes after the header.
    pub attributes: Vec<u8>,
}

/// One attribute: kind without flags, and value.
pub type Attribute<'a> = (u16, &'a [u8]);

/// Splits a run of attributes; stops at the first that does not fit.
pub fn attributes(mut bytes: &[u8]) -> Vec<Attribute<'_>> {
    let mut out = Vec::new();
    while let Some((length, kind)) = short(bytes, 0).zip(short(bytes, 2)) {
        let length = usize::from(length);
        let Some(value) = bytes.get(4..length) else { break };
        out.push((kind & 0x3fff, value));
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    out
}

/// The value of the first attribute of a kind.
pub fn attribute<'a>(list: &[Attribute<'a>], kind: u16) -> Option<&'a [u8]> {
    list.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value)
}

/// All tracked connections of the namespace.
pub fn connections() -> io::Result<Vec<Connection>> {
    let socket = open()?;
    send(&socket, CONNECTION_GET, REQUEST | DUMP, 0, &[])?;
    let mut found = Vec::new();
    receive(&socket, |kind, body| {
        if kind == CONNECTION_NEW
            && let (Some(family), Some(attributes)) = (body.first(), body.get(4..))
        {
            found.push(Connection { family: *family, attributes: attributes.to_vec() });
        }
    })?;
    Ok(found)
}

/// Ends tracked connections; one that has ended by itself meanwhile is no error.
pub fn connections_end(list: &[Connection]) -> io::Result<()> {
    const TUPLE: u16 = 1;
    const ID: u16 = 12;
    if list.is_empty() {
        return Ok(());
    }
    let socket = open()?;
    for connection in list {
        let mut key = Vec::new();
        for (kind, value) in attributes(&connection.attributes) {
            if kind == TUPLE || kind == ID {
                attribute_put(&mut key, kind, kind == TUPLE, value)?;
            }
        }
        send(&socket, CONNECTION_DELETE, REQUEST | ACK, connection.family, &key)?;
        match receive(&socket, |_, _| {}) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Makes tracked connections; one that is there already stays as it is.
pub fn connections_make(list: &[Connection]) -> io::Result<()> {
    const CREATE_EXCLUSIVE: u16 = 0x400 | 0x200;
    if list.is_empty() {
        return Ok(());
    }
    let socket = open()?;
    for connection in list {
        send(&socket, CONNECTION_NEW, REQUEST | ACK | CREATE_EXCLUSIVE, connection.family, &connection.attributes)?;
        match receive(&socket, |_, _| {}) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EEXIST) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Appends an attribute; what is nested is marked so.
pub fn attribute_put(out: &mut Vec<u8>, kind: u16, nested: bool, value: &[u8]) -> io::Result<()> {
    let length = u16::try_from(value.len() + 4).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let flag = if nested { 0x8000 } else { 0 };
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&(kind | flag).to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(aligned(out.len()), 0);
    Ok(())
}

/// Tells how often the namespace's packet filter has changed.
///
/// To close it right after a change takes some ten milliseconds: the kernel then waits until every CPU has let go of the
/// old rules.
pub struct FilterWatch(OwnedFd);

impl FilterWatch {
    /// A watch over the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        open().map(Self)
    }

    /// A number that changes with every change.
    pub fn generation(&self) -> io::Result<u32> {
        send(&self.0, FILTER_GENERATION_GET, REQUEST | ACK, 0, &[])?;
        let mut generation = None;
        receive(&self.0, |kind, body| {
            if kind == FILTER_GENERATION_NEW {
                let list = attributes(body.get(4..).unwrap_or_default());
                generation = attribute(&list, 1).and_then(|value| value.try_into().ok()).map(u32::from_be_bytes);
            }
        })?;
        generation.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

fn open() -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_S_MAX, 0))?;
    Ok(fd)
}

fn send(socket: &OwnedFd, kind: u16, flags: u16, family: u8, attributes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(20 + attributes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut message = Vec::with_capacity(20 + attributes.len());
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&[0; 8]); // sequence number, port: one question at a time on this socket
    message.extend_from_slice(&[family, 0, 0, 0]);
    message.extend_from_slice(attributes);
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    Ok(())
}

/// Reads messages up to the one that ends the answer: an acknowledgement, an error or the end of a dump.
fn receive(socket: &OwnedFd, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while rest.len() >= 16 {
            let size = word(rest, 0).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
            let (Some(kind), Some(body)) = (short(rest, 4), rest.get(16..size)) else {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            };
            match kind {
                MESSAGE_DONE => return Ok(()),
                MESSAGE_ERROR => {
                    let code = word(body, 0).map_or(0, u32::cast_signed);
                    return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                other => each(other, body),
            }
            rest = rest.get(aligned(size)..).unwrap_or_default();
        }
    }
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_attributes_are_no_attributes() {
        assert!(attributes(&[]).is_empty());
        assert!(attributes(&[3, 0, 1, 0]).is_empty());
        assert!(attributes(&[8, 0, 1, 0, 5]).is_empty());
        assert_eq!(attributes(&[5, 0, 1, 0x80, 9, 0, 0, 0, 4, 0, 2, 0]), [(1, &[9][..]), (2, &[][..])]);
    }
}
