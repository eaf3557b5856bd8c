"""Where a guest would be: opens the tap of a server that is shut off, as its machine would, and joins it to a device with the
same Ethernet address in a network namespace of its own, in which the process is afterwards.
"""

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import threading

libc = ctypes.CDLL("libc.so.6", use_errno=True)
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUNSETVNETHDRSZ, TUNSETOFFLOAD = 0x400454D8, 0x400454D0


def enter(namespace):
    with open(namespace) as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def open_tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    # A machine that had it before may have left another length.
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", 10))
    return fd


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def pump(outer, inner):
    os.set_blocking(inner, False)
    os.set_blocking(outer, False)
    poll = select.poll()
    poll.register(inner, select.POLLIN)
    poll.register(outer, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            try:
                os.write(outer if fd == inner else inner, os.read(fd, 65536))
            except BlockingIOError:
                pass


def join(segment, tap, mac, address, mtu):
    """Goes there; nothing must run in other threads yet."""
    enter(f"/run/netns/{segment}")
    outer = open_tap(tap)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    inner = open_tap("eth0")
    # Whole frames only: neither end may leave checksums or segments to the other.
    fcntl.ioctl(inner, TUNSETOFFLOAD, 0)
    run("ip", "link", "set", "eth0", "address", mac, "mtu", mtu, "up")
    run("ip", "addr", "add", address, "dev", "eth0")
    threading.Thread(target=pump, args=(outer, inner), daemon=True).start()


def counted(name):
    """One of the kernel's counters of this namespace; -1 if it is not known."""
    text = subprocess.run(["nstat", "-asz", name], capture_output=True, text=True).stdout
    return int(text.split(name)[1].split()[0]) if name in text else -1
