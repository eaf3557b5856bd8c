"""Opens a serial console by its URL, presses return until a login is asked for, prints what was seen."""

import os
import ssl
import sys
import time

import websocket

context = {"ca_certs": os.environ["ARCUS_CA"], "cert_reqs": ssl.CERT_REQUIRED}
socket = websocket.create_connection(sys.argv[1], subprotocols=["binary"], sslopt=context, timeout=5)
seen, deadline = b"", time.monotonic() + 60
while b"login:" not in seen and time.monotonic() < deadline:
    socket.send_binary(b"\r")
    try:
        data = socket.recv()
    except websocket.WebSocketTimeoutException:
        continue
    seen += data if isinstance(data, bytes) else data.encode()
socket.close()
sys.stdout.write(seen.decode(errors="replace"))
