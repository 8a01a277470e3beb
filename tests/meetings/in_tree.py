"""What the tests here have a tree's own code do, whatever release it is of.

    in_tree serve DIRECTORY     a controller over simulated VMs: state, history, recording and socket lie
                                in DIRECTORY; a line on standard input lets so many seconds pass
    in_tree replay RECORDING    what its reader makes of a recording
    in_tree agent ROOT SOCKET   the agent of a guest whose files lie in ROOT, with the host at SOCKET
    in_tree wire                for each line on standard input, what its decoder makes of it
    in_tree written             one of each of its messages, as its encoder writes it

The tree is the working directory. Modules move from release to release, and names stay: see `names.py`.
"""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog
from names import the

DAY: Final = 86400.0
VMS: Final = ("db", "web")
WELCOMED: Final = 30.0
"""Seconds after which guests have booted and are managed."""


def serve(directory: Path) -> None:
    """As `dynmem run` puts it together, over simulated VMs in virtual time."""
    log = (directory / "log").open("a", encoding="utf-8")
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(log))
    with asyncio.Runner(loop_factory=the("VirtualLoop", "tests/support", "tests/unit")) as runner:
        runner.run(_serve(directory))


async def _serve(directory: Path) -> None:
    loop: Any = asyncio.get_running_loop()
    host = the("Host", "tests/support", "tests/unit")()
    for name in VMS:
        host.vm(name)
    state_dir = the("StateDir")(directory / "run")
    before = state_dir.open()
    started = time.time()
    journal = the("Journal")(loop.time)
    history = the("History")(
        directory / "history.sqlite",
        keep_seconds=DAY,
        largest_bytes=1 << 26,
        wall=lambda at: started + at,
        failed=lambda problem: print(problem, file=sys.stderr),
    )
    journal.add_sink(history)
    recorder = the("Recorder")(directory / "recording.jsonl", host.settings, loop.time())
    async with host.controller(
        state_dir=state_dir, before=before, recorder=recorder, journal=journal
    ) as controller:
        api = the("Api")(controller, lambda: None, history=history.path)
        await api.start(directory / "control.sock")
        seconds = WELCOMED
        while True:
            await asyncio.sleep(seconds)
            print("ready", flush=True)
            loop.frozen = True
            line = await asyncio.to_thread(sys.stdin.readline)
            loop.frozen = False
            if not line:
                break
            seconds = float(line)
        await api.stop()
    state_dir.close()


def replay(recording: Path) -> None:
    """How many of its lines are understood, and what is damaged."""
    with recording.open("rb") as stream:
        read = the("Recording")(stream, str(recording))
        lines = sum(1 for _ in read)
    json.dump({"lines": lines, "damaged": getattr(read, "damaged", 0)}, sys.stdout)


def run_agent(root: Path, host: Path) -> None:
    """The guest's daemon, until the host has gone."""
    from agent.daemon import Daemon

    port = socket.socket(socket.AF_UNIX)
    port.connect(str(host))
    port.setblocking(False)
    daemon = Daemon(str(root), opener=port.detach, events=False)
    while not host.with_name("gone").exists():
        daemon.turn(0.2)


def hear() -> None:
    """The name of what each line is, with its fields; or of the error."""
    from_guest, from_host = the("decode_from_guest", "agent"), the("decode_from_host", "agent")
    refused = the("WireError", "agent")
    told = []
    for line in sys.stdin:
        sender, _, message = line.partition(" ")
        decode = from_guest if sender == "guest" else from_host
        try:
            heard: Any = decode(message.encode())
        except refused as error:
            told.append([type(error).__name__, str(error)])
        else:
            told.append([type(heard).__name__, heard._asdict()])
    json.dump(told, sys.stdout)


def written() -> None:
    """Of each message one with every field set to something that is not its default."""
    from agent import wire

    boot = "01234567-89ab-cdef-0123-456789abcdef"
    special = {"boot_id_prefix": boot[:8], "uptime_seconds": 5.0, "page_bytes": 16384, "reason": "moved"}
    report: dict[str, Any] = {}
    for name in wire.Report._fields:
        report[name] = special.get(name, 1 << 20 if name.endswith("_bytes") else 7)
    messages = {
        "guest": [
            wire.Hello(boot, "0.0.9", "6.1.0", 128 << 20, True, "offline", "agent", True),
            wire.Report(**report),
            wire.Ack(1, False, "why not", 4096),
            wire.Error("bad-message", "so"),
        ],
        "host": [
            wire.Welcome(*("0.0.9", 0.4, 4.0, 0.2, 1 << 30)[: len(wire.Welcome._fields)]),
            wire.OnlineZone(1, "movable"),
            wire.Offline(2, 1 << 32, 1 << 27),
            wire.Online(3, 1 << 32, 1 << 27, "kernel"),
            wire.Ping(4),
            wire.Error("bad-message", "so"),
        ],
    }
    encode = the("encode", "agent")
    json.dump({side: [encode(one).decode() for one in ones] for side, ones in messages.items()}, sys.stdout)


def main() -> None:
    """See above."""
    does, *arguments = sys.argv[1:]
    deeds: dict[str, Callable[..., None]] = {
        "serve": serve,
        "replay": replay,
        "agent": run_agent,
        "wire": hear,
        "written": written,
    }
    deeds[does](*map(Path, arguments))


if __name__ == "__main__":
    main()
