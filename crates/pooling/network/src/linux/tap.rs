//! Opens a persistent tap for a guest.

use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

nix::ioctl_write_int!(tap_attach, b'T', 202);

/// The tap of this name in the calling thread's namespace. Frames carry a `virtio_net_hdr`, as QEMU wants it.
pub fn open(device: &str) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // The driver would make a device that is missing, and not a persistent one: ask first.
    nix::net::if_::if_nametoindex(device)?;
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, which lives until the call returns.
    unsafe { tap_attach(file.as_raw_fd(), (&raw mut request).expose_provenance() as libc::c_ulong) }?;
    let fd = OwnedFd::from(file);
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok(fd)
}
