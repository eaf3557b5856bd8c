"""A TCP client where a guest would be: wire.py NAMESPACE TAP MAC ADDRESS/PREFIX MTU TARGET PORT [listen]

Opens the tap of a server that is shut off, as its machine would, and joins it to a device with the same Ethernet address in a
network namespace of its own. There it sends one byte every 5 ms to an echo service over one connection and prints, for each
line that it reads (any text), the longest time in milliseconds without an answer since the line before, and how many times the
connection's retransmission timer has fired. Ends at the end of its input; a connection that breaks is an error.

With "listen" it says that it listens, takes one connection on PORT, and sends as before to somebody who only listens: what comes
back are acknowledgements.
"""

import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

libc = ctypes.CDLL("libc.so.6", use_errno=True)
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUNSETVNETHDRSZ, TUNSETOFFLOAD = 0x400454D8, 0x400454D0
SIOCOUTQ = 0x5411

segment, tap, mac, address, mtu, target, port = sys.argv[1:8]
listens = sys.argv[8:] == ["listen"]


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


enter(f"/run/netns/{segment}")
outer = open_tap(tap)
if libc.unshare(CLONE_NEWNET) != 0:
    raise OSError(ctypes.get_errno(), "unshare")
inner = open_tap("eth0")
# Whole frames only: neither end may leave checksums or segments to the other.
fcntl.ioctl(inner, TUNSETOFFLOAD, 0)
run("ip", "link", "set", "eth0", "address", mac, "mtu", mtu, "up")
run("ip", "addr", "add", address, "dev", "eth0")


def pump():
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


threading.Thread(target=pump, daemon=True).start()

deadline = time.monotonic() + 60
if listens:
    listener = socket.create_server(("", int(port)))
    listener.settimeout(60)
    print(json.dumps({"listening": True}), flush=True)
    stream, _ = listener.accept()
while not listens:
    try:
        stream = socket.create_connection((target, int(port)), timeout=2)
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.2)
stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
stream.setblocking(False)
print(json.dumps({"connected": True}), flush=True)

worst, answered_at = 0.0, time.monotonic()
sent = received = 0
poll = select.poll()
poll.register(stream, select.POLLIN)
poll.register(sys.stdin, select.POLLIN)
next_at = time.monotonic()


def timeouts():
    text = subprocess.run(["nstat", "-asz", "TcpExtTCPTimeouts"], capture_output=True, text=True).stdout
    return int(text.split("TcpExtTCPTimeouts")[1].split()[0]) if "TcpExtTCPTimeouts" in text else -1


while True:
    now = time.monotonic()
    if now >= next_at:
        try:
            sent += stream.send(b"%d" % (sent % 10))
        except BlockingIOError:
            pass
        next_at = now + 0.005
    events = poll.poll(max(0, (next_at - time.monotonic()) * 1000))
    now = time.monotonic()
    if listens:
        acknowledged = sent - struct.unpack("i", fcntl.ioctl(stream, SIOCOUTQ, b"\0" * 4))[0]
        if acknowledged > received:
            received, answered_at = acknowledged, now
    worst = max(worst, (now - answered_at) * 1000)
    for fd, _ in events:
        if fd == stream.fileno():
            data = stream.recv(65536)
            if not data:
                sys.exit("the connection was closed")
            for byte in data:
                if byte != 48 + received % 10:
                    sys.exit(f"byte {received} is wrong")
                received += 1
            answered_at = now
        else:
            line = os.read(0, 4096)
            if not line:
                sys.exit(0)
            print(json.dumps({"stall_ms": round(worst), "timeouts": timeouts(), "bytes": received}), flush=True)
            worst = 0.0
