"""Moves a guest to and fro between two namespaces over QMP, as one would by hand: move_by_hand.py FILE

FILE says in JSON what the two ends are: {"backing": …, "size": …, "ends": [{"words": […], "folder": …, "namespace": …, "address": …}, …]}.
The guest is started at the first end; "booted" is printed when it has come up. For each line that is read (any text) it goes to
the other end, and the time in milliseconds is printed: from before the disk there is made and QEMU is started until the guest runs
there. Nothing is encrypted, nothing is recorded, and nobody is asked.
"""

import json
import os
import socket
import subprocess
import sys
import time

spec = json.load(open(sys.argv[1]))
BOOT_S = 120


class Machine:
    """A QEMU process and its control connection."""

    def __init__(self, end, incoming):
        self.end = end
        disk = f"{end['folder']}/root.qcow2"
        for name in os.listdir(end["folder"]):
            if name.endswith(".sock") or name in ("root.qcow2", "console.log"):
                os.unlink(f"{end['folder']}/{name}")
        make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", spec["backing"], disk, str(spec["size"])]
        subprocess.run(make, check=True)
        words = ["nsenter", f"--net=/run/netns/{end['namespace']}", *end["words"]]
        words += ["-incoming", "defer"] if incoming else []
        log = open(f"{end['folder']}/qemu.log", "w")
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        path = f"{end['folder']}/{monitor(end['words'])}.sock"
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(open(f"{end['folder']}/qemu.log").read())
                time.sleep(0.002)
        self.lines = self.socket.makefile()
        json.loads(self.lines.readline())
        self.run("qmp_capabilities")
        self.node = disk_node(end["words"])

    def run(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            told = json.loads(self.lines.readline())
            if "error" in told:
                sys.exit(f"{command}: {told['error']}")
            if "return" in told:
                return told["return"]


def monitor(words):
    for word in words:
        if "mode=control" in word:
            return dict(part.split("=", 1) for part in word.split(",") if "=" in part)["chardev"]
    return "qmp"


def disk_node(words):
    for word in words:
        if word.startswith("{") and json.loads(word).get("driver") == "qcow2":
            return json.loads(word)["node-name"]
    sys.exit("the guest has no disk")


def until(done):
    while not done():
        time.sleep(0.001)


def move(source, end):
    began = time.monotonic()
    target = Machine(end, True)
    address, node = end["address"], source.node
    inet = {"host": address, "port": "10809"}
    target.run("nbd-server-start", addr={"type": "inet", "data": inet})
    target.run("block-export-add", type="nbd", id="disk", **{"node-name": node}, name=node, writable=True)
    target.run("migrate-incoming", uri=f"tcp:{address}:4444")
    source.run("blockdev-add", driver="nbd", **{"node-name": "target"}, server={"type": "inet", **inet}, export=node)
    mirror = {"job-id": "mirror", "device": node, "target": "target", "sync": "top", "copy-mode": "write-blocking"}
    source.run("blockdev-mirror", **mirror)
    until(lambda: all(job["ready"] for job in source.run("query-block-jobs")))
    source.run("migrate-set-capabilities", capabilities=[{"capability": "pause-before-switchover", "state": True}])
    source.run("migrate-set-parameters", **{"max-bandwidth": 16 << 30, "downtime-limit": 300})
    source.run("migrate", uri=f"tcp:{address}:4444")
    until(lambda: source.run("query-migrate")["status"] in ("pre-switchover", "failed"))
    source.run("block-job-cancel", device="mirror")
    until(lambda: not source.run("query-block-jobs"))
    source.run("migrate-continue", state="pre-switchover")
    until(lambda: source.run("query-migrate")["status"] in ("completed", "failed"))
    until(lambda: target.run("query-status")["status"] == "running")
    took = (time.monotonic() - began) * 1000
    target.run("nbd-server-stop")
    end_of(source)
    return target, took


def end_of(machine):
    machine.process.kill()
    machine.process.wait()


machine = Machine(spec["ends"][0], False)
try:
    deadline = time.monotonic() + BOOT_S
    while "login" not in open(f"{machine.end['folder']}/console.log", errors="replace").read():
        if time.monotonic() > deadline:
            sys.exit("the guest does not boot")
        time.sleep(0.1)
    print("booted", flush=True)
    at = 0
    while sys.stdin.readline():
        at = 1 - at
        machine, took = move(machine, spec["ends"][at])
        print(f"{took:.1f}", flush=True)
except KeyboardInterrupt:
    pass
finally:
    end_of(machine)
