"""Run by the interpreter under test beside `agent/` or `dynmem-agent.pyz`, and `guest/` (recorded files).

It prints what it did.

The standard library alone: a guest has nothing else.
"""

import json
import os
import socket
import sys

if os.path.exists("dynmem-agent.pyz"):
    sys.path[0] = "dynmem-agent.pyz"  # in place of this directory, which has no `agent/` then

from agent.codec import decode_from_guest, encode
from agent.daemon import Daemon
from agent.wire import Offline, Online, OnlineZone, Ping, Welcome, WhoHolds

here, there = socket.socketpair()
here.setblocking(False)
there.setblocking(False)
daemon = Daemon("guest", opener=here.detach, events=False)


def heard(*wanted):
    """The messages up to the first one of these kinds, by their kinds."""
    kinds = []
    lines = b""
    for _ in range(600):
        daemon.turn(0.05)
        try:
            lines += there.recv(65536)
        except BlockingIOError:
            continue
        *whole, lines = lines.split(b"\n")
        kinds += [type(decode_from_guest(line)).__name__ for line in whole if line]
        if any(kind in wanted for kind in kinds):
            break
    return kinds


messages = heard("Report")
# Whatever a host may say has its answer, and the daemon outlives it.
answers = {}
for message, answer in (
    (Welcome("test", maximum_bytes=1 << 30), "Hello"),
    (OnlineZone(1, "movable"), "Ack"),
    (Online(2, 0, 1 << 27, "movable"), "Ack"),
    (Offline(3, 0, 1 << 27), "Ack"),
    (Ping(4), "Ack"),
    (WhoHolds(5), "Held"),
    (None, "Error"),
):
    there.send(b"nonsense\n" if message is None else encode(message))
    answers[type(message).__name__] = answer in heard(answer)
foreign = sorted(
    name
    for name, module in sys.modules.items()
    if "packages" in str(getattr(module, "__file__", ""))
    or name in ("click", "psutil", "structlog", "pyroute2")
)
said = {"version": list(sys.version_info[:2]), "messages": messages, "answers": answers}
said["foreign"] = foreign
said["from"] = os.path.dirname(sys.modules["agent"].__file__)
json.dump(said, sys.stdout)
