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

from agent.daemon import Daemon
from agent.wire import decode_from_guest

here, there = socket.socketpair()
here.setblocking(False)
there.settimeout(10)
daemon = Daemon("guest", opener=here.detach, events=False)
lines = b""
while lines.count(b"\n") < 3:  # an empty one, Hello, Report
    daemon.turn(0.1)
    there.setblocking(False)
    try:
        lines += there.recv(65536)
    except BlockingIOError:
        continue
messages = [type(decode_from_guest(line)).__name__ for line in lines.split(b"\n") if line]
foreign = sorted(
    name
    for name, module in sys.modules.items()
    if "packages" in str(getattr(module, "__file__", ""))
    or name in ("click", "psutil", "structlog", "pyroute2")
)
said = {"version": list(sys.version_info[:2]), "messages": messages, "foreign": foreign}
said["from"] = os.path.dirname(sys.modules["agent"].__file__)
json.dump(said, sys.stdout)
