"""A TCP client where a guest would be: wire.py NAMESPACE TAP MAC ADDRESS/PREFIX MTU TARGET PORT [listen]

From the place of a server that is shut off it sends one byte every 5 ms to an echo service over one connection and prints, for each
line that it reads (any text), the longest time in milliseconds without an answer since the line before, and how many times the
connection's retransmission timer has fired. Ends at the end of its input; a connection that breaks is an error.

With "listen" it says that it listens, takes one connection on PORT, and sends as before to somebody who only listens: what comes
back are acknowledgements.
"""

import fcntl
import json
import os
import select
import socket
import struct
import sys
import time

import place

SIOCOUTQ = 0x5411

target, port = sys.argv[6:8]
listens = sys.argv[8:] == ["listen"]
place.join(*sys.argv[1:6])

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
            print(json.dumps({"stall_ms": round(worst), "timeouts": place.counted("TcpExtTCPTimeouts"), "bytes": received}), flush=True)
            worst = 0.0
