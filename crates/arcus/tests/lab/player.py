"""A player of a stream where a guest would be: player.py NAMESPACE TAP MAC ADDRESS/PREFIX MTU TARGET PORT PATH BITS_PER_S

From the place of a server that is shut off it asks an HTTP server for an endless stream, over one connection, and plays it at a
constant bit rate with a buffer of one second: it begins to play when the buffer is full, takes no more from the network than fits,
and when the buffer is empty it waits until it is full again, which is a rebuffer. What the kernel may hold of the stream counts as
a part of the second. Each byte is compared with what it must be: the stream is a row of pieces, each a number of eight digits, a
line's end, and the lines 1000000 to 1131071.

For each line that it reads (any text) it prints the rebuffers, how full the buffer was at the least since the line before (in
milliseconds of play), and what it has played. Ends at the end of its input; a connection that breaks or a wrong byte is an error.
"""

import json
import os
import select
import socket
import sys
import time

import place

BUFFER_S = 1.0
KERNEL_BYTES = 128 << 10

target, port, path, bits = sys.argv[6:10]
rate = int(bits) / 8
room = int(rate * BUFFER_S) - KERNEL_BYTES
place.join(*sys.argv[1:6])

piece = "".join(f"{line}\n" for line in range(1_000_000, 1_131_072)).encode()
pending, number, played = b"", 0, 0


def verify(data):
    """Compares what has come with what must come next."""
    global pending, number, played
    played += len(data)
    while data:
        if not pending:
            number += 1
            pending = b"%08d\n" % number + piece
        length = min(len(pending), len(data))
        if data[:length] != pending[:length]:
            sys.exit(f"piece {number} is wrong, {played} bytes from the start")
        pending, data = pending[length:], data[length:]


def connected():
    deadline = time.monotonic() + 60
    while True:
        stream = socket.socket()
        stream.settimeout(5)
        # The kernel doubles it, and holds no more.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES // 2)
        try:
            stream.connect((target, int(port)))
            stream.sendall(f"GET {path} HTTP/1.0\r\nHost: {target}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                more = stream.recv(1)
                if not more:
                    raise OSError("no answer")
                head += more
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise OSError(f"the server says {head}")
            return stream
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


stream = connected()
stream.setblocking(False)
print(json.dumps({"connected": True}), flush=True)

held, lowest, rebuffers, playing = 0.0, float("inf"), 0, False
at = time.monotonic()
while True:
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    if held < room:
        poll.register(stream, select.POLLIN)
    ready = poll.poll(5)
    now = time.monotonic()
    if playing:
        held -= (now - at) * rate
        if held <= 0:
            held, playing, rebuffers = 0.0, False, rebuffers + 1
        lowest = min(lowest, held)
    at = now
    for fd, _ in ready:
        if fd == stream.fileno():
            data = stream.recv(min(65536, max(1, int(room - held))))
            if not data:
                sys.exit("the stream has ended")
            verify(data)
            held += len(data)
            if held >= room - 65536:
                playing = True
        else:
            if not os.read(0, 4096):
                sys.exit(0)
            told = {"rebuffers": rebuffers, "lowest_ms": round(min(lowest, rate) / rate * 1000), "bytes": played}
            told["resets"] = place.counted("TcpExtTCPAbortOnData") + place.counted("TcpEstabResets")
            print(json.dumps(told), flush=True)
            lowest = float("inf")
