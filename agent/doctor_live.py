"""The checks of `dynmem-agent doctor` that no recorded tree can answer: they ask the kernel that runs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
import uuid
from collections.abc import Callable

import psutil  # type: ignore[import-untyped] # ships no types

from agent.finding import Finding

_UEVENT_SECONDS = 2.0


def daemon(root: str) -> Finding:
    """The daemon runs, and is as small as it should be."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if "run" in words and any("dynmem-agent" in word or "agent/__main__" in word for word in words):
            try:
                size = process.memory_full_info().uss
            except psutil.Error:
                return Finding("daemon", "ok", f"pid {process.pid}")
            return Finding("daemon", "ok", f"pid {process.pid}, USS {size / (1 << 20):.1f} MiB")
    with_systemd = os.path.exists(os.path.join(root, "run/systemd/system"))
    remedy = "let this guest's init start `dynmem-agent run`, now and at boot"
    return Finding(
        "daemon", "problem", "not running", "systemctl start dynmem-agent" if with_systemd else remedy
    )


def uevents(_root: str) -> Finding:
    """A uevent that we make the kernel send arrives, as read by pyroute2 and not by the daemon's own code."""
    tag = str(uuid.uuid4())
    target = "/sys/devices/system/memory/memory0/uevent"
    if not os.access(target, os.W_OK):
        return Finding("uevents", "note", "not tried", "run as root to have it tried")
    if importlib.util.find_spec("pyroute2") is None:
        return Finding("uevents", "note", "not tried", "install python3-pyroute2 to have it tried")
    listening, arrived = threading.Event(), threading.Event()
    thread = threading.Thread(target=_await_uevent, args=(tag, listening, arrived), daemon=True)
    thread.start()
    if listening.wait(_UEVENT_SECONDS):
        try:
            with open(target, "w", encoding="ascii") as file:
                file.write(f"change {tag}")
        except OSError as error:  # a sandbox that lets us ask, and not write
            return Finding("uevents", "note", f"not tried: {error.strerror}", "run outside of the sandbox")
    if arrived.wait(_UEVENT_SECONDS):
        return Finding("uevents", "ok", "arrive")
    remedy = "run in the initial network namespace; until then memory blocks are read at each heartbeat"
    return Finding("uevents", "problem", "none arrived", remedy)


def _await_uevent(tag: str, listening: threading.Event, arrived: threading.Event) -> None:
    from pyroute2 import UeventSocket  # 240 ms and 30 MiB, for this check only

    # A container may forbid the socket: then none arrives, which is what is found.
    with contextlib.suppress(OSError), UeventSocket() as sock:
        sock.bind()
        listening.set()
        while not arrived.is_set():
            for message in sock.get():
                if message.get("SYNTH_UUID") == tag:
                    arrived.set()


LIVE: tuple[Callable[[str], Finding], ...] = (daemon, uevents)
