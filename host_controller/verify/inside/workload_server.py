"""The workload server of a lab guest: does what the host says over a virtio-serial port.

Standard library only. One JSON object a line. Host: {"id": 1, "do": "start", ...parameters}.
Guest: {"id": 1, "ok": true, "result": ...} or {"id": 1, "ok": false, "error": "..."};
and without being asked {"event": "started|progress|done|ended", "name": ...}.
Everything from here carries the guest's clocks, "mono" (CLOCK_MONOTONIC) and "real" (CLOCK_REALTIME), in
seconds. Every workload is a process of its own, so that this server is never the one that runs out of memory;
what they do is in `workloads.py`, which lies beside this file in the guest, too.
"""

from __future__ import annotations  # Debian 11 has Python 3.9

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # what `python3 -I` leaves out

from workloads import KINDS, read, write

PORT = "/dev/virtio-ports/org.dynmem.lab.0"
OUTPUT_LIMIT = 64 * 1024
VMSTAT = ("pgmajfault", "pgfault", "pswpin", "pswpout", "oom_kill", "balloon_inflate", "balloon_deflate")
BLOCKS = "/sys/devices/system/memory"
BALLOON = 5  # virtio device type
BALLOON_DRIVER = "/sys/bus/virtio/drivers/virtio_balloon"


def clocks() -> dict[str, float]:
    return {"mono": time.monotonic(), "real": time.time()}


def block_of(path: str) -> tuple[str, str]:
    """State and zone of a memory block; no zone while it is offline.

    Asked for the zones of a block that is just being added, whose node is not set yet, Linux 6.1 follows a
    null pointer, and whoever asked dies [drivers/base/memory.c, valid_zones_show()].
    """
    state = read(f"{path}/state").strip()
    return state, read(f"{path}/valid_zones").strip() if state == "online" else ""


class Server:
    """One loop over the port, the workloads' pipes and the outputs of running commands."""

    def __init__(self) -> None:
        self.port = os.open(PORT, os.O_RDWR | os.O_NONBLOCK)
        self.inbox = b""
        self.outbox = b""
        self.workloads: dict[str, tuple[int, int]] = {}  # name -> (pid, descriptor of its pipe)
        self.running: list[Command] = []

    def send(self, **message: Any) -> None:
        self.outbox += json.dumps({**message, **clocks()}).encode() + b"\n"

    # One method per command.

    def do_ping(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "boot_id": read("/proc/sys/kernel/random/boot_id").strip()}

    def do_start(self, kind: str, name: str, **parameters: Any) -> dict[str, Any]:
        if name in self.workloads:
            raise ValueError(f"there is a workload {name!r} already")
        function = KINDS[kind]
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.become_workload(writer, name, function, parameters)
        os.close(writer)
        self.workloads[name] = (pid, reader)
        return {"pid": pid}

    def become_workload(
        self, writer: int, name: str, function: Callable[..., None], parameters: dict[str, Any]
    ) -> None:
        """The child: never returns."""
        try:
            os.close(self.port)
            write("/proc/self/oom_score_adj", "500")

            def say(event: str, **fields: int) -> None:
                message = {"event": event, "name": name, **fields, **clocks()}
                os.write(writer, json.dumps(message).encode() + b"\n")

            function(say, **parameters)
        except BaseException as error:  # noqa: BLE001  the last thing this process does
            os.write(2, f"lab: workload {name}: {error!r}\n".encode())
        os._exit(1)

    def do_hold(self, name: str) -> None:
        os.kill(self.workloads[name][0], signal.SIGUSR1)

    def do_free(self, name: str | None = None) -> dict[str, Any]:
        names = list(self.workloads) if name is None else [name]
        for each in names:
            os.kill(self.workloads[each][0], signal.SIGKILL)
        return {"freed": names}  # "ended" follows for each, when its memory is back

    def do_meminfo(self) -> dict[str, Any]:
        lines = (line.split() for line in read("/proc/meminfo").splitlines())
        counters = dict(line.split() for line in read("/proc/vmstat").splitlines())
        wanted = {
            key: int(value)
            for key, value in counters.items()
            if key in VMSTAT or key.startswith(("workingset_", "pgsteal_", "pgscan_"))
        }
        blocks = {
            entry.name: block_of(entry.path)
            for entry in os.scandir(BLOCKS)
            if entry.name.removeprefix("memory").isdigit()
        }
        return {
            "meminfo": {
                fields[0].rstrip(":"): int(fields[1]) * (1024 if "kB" in fields else 1) for fields in lines
            },
            "vmstat": wanted,
            "blocks": blocks,
            "block_size": int(read(f"{BLOCKS}/block_size_bytes") or "0", 16),
            "psi": read("/proc/pressure/memory"),
        }

    def do_exec(self, number: int, command: str, limit: float) -> None:
        """Answered when the command has ended, or was killed after `limit` seconds."""
        self.running.append(Command(number, command, limit))

    def agent_pid(self) -> int | None:
        text = read("/run/lab/agent.pid").strip()
        return int(text) if text else None

    def do_agent(self) -> dict[str, Any]:
        return {
            "pid": self.agent_pid(),
            "ends": [int(line) for line in read("/run/lab/agent.ends").split()],
            "log": read("/run/lab/agent.log")[-8192:],
        }

    def do_signal_agent(self, number: int, respawn: bool | None = None) -> dict[str, Any]:
        if respawn is not None:
            write("/run/lab/respawn", str(int(respawn)))
        pid = self.agent_pid()
        if pid is None:
            raise ValueError("no agent is running")
        os.kill(pid, number)
        return {"pid": pid}

    def do_start_agent(self, command: str | None = None, respawn: bool = False) -> None:
        if self.agent_pid() is not None:
            raise ValueError("an agent is running")
        write("/run/lab/respawn", str(int(respawn)))
        if command is not None:
            write("/run/lab/agent.command", command)
        subprocess.Popen(["/lab/guest/supervise"], start_new_session=True)

    def do_program(self, arguments: list[str]) -> dict[str, Any]:
        """Run a Python program that ends soon, where there is no shell."""
        command = [sys.executable, "-I", "-S", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        return {"status": done.returncode, "output": done.stderr.decode(errors="replace")[-1000:]}

    def do_balloon_driver(self, bound: bool) -> None:
        """Take the balloon's driver away, or give it back; nothing where it is so already."""
        for device in Path("/sys/bus/virtio/devices").iterdir():
            if int((device / "device").read_text(), 16) == BALLOON and (device / "driver").exists() != bound:
                write(f"{BALLOON_DRIVER}/{'bind' if bound else 'unbind'}", device.name)

    def do_sysrq(self, key: str) -> None:
        """`b` reboots at once, `c` crashes, `o` powers off. No answer comes back from those."""
        write("/proc/sys/kernel/sysrq", "1")
        write("/proc/sysrq-trigger", key)

    # The loop.

    def handle(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            number, command = request.pop("id"), request.pop("do")
        except (ValueError, KeyError, AttributeError):
            return  # the rest of a line whose beginning a former host has read
        try:
            if command == "exec":
                self.do_exec(number, **request)
                return
            result = getattr(self, f"do_{command}")(**request)
        except Exception as error:  # noqa: BLE001  whatever it was, the host is told
            self.send(id=number, ok=False, error=f"{type(error).__name__}: {error}")
        else:
            self.send(id=number, ok=True, result=result)

    def step(self) -> None:
        """Wait for something to do, and do it."""
        poller = select.poll()
        poller.register(self.port, select.POLLIN | (select.POLLOUT if self.outbox else 0))
        for _, reader in self.workloads.values():
            poller.register(reader, select.POLLIN)
        for running in self.running:
            poller.register(running.descriptor, select.POLLIN)
        ready = dict(poller.poll(200 if self.running else None))
        state = ready.pop(self.port, 0)
        if state & select.POLLIN:
            with contextlib.suppress(BlockingIOError):
                self.inbox += os.read(self.port, 65536)
            *lines, self.inbox = self.inbox.split(b"\n")
            for line in lines:
                if line:
                    self.handle(line)
        if state & select.POLLOUT and self.outbox:
            with contextlib.suppress(BlockingIOError):
                self.outbox = self.outbox[os.write(self.port, self.outbox) :]
        if state & select.POLLHUP and not ready:
            time.sleep(0.05)  # the host has not opened its end: poll() returns at once until it does
        for name, (pid, reader) in list(self.workloads.items()):
            if reader in ready:
                self.forward(name, pid, reader)
        for running in list(self.running):
            if running.progress(running.descriptor in ready):
                self.running.remove(running)
                self.send(id=running.number, ok=True, result=running.result())

    def forward(self, name: str, pid: int, reader: int) -> None:
        """Pass on what a workload says; when its pipe closes it has ended, and its memory is free."""
        data = os.read(reader, 65536)
        if data:
            self.outbox += data
            return
        os.close(reader)
        _, status = os.waitpid(pid, 0)
        if os.path.isdir(f"/sys/fs/cgroup/lab-{pid}"):
            os.rmdir(f"/sys/fs/cgroup/lab-{pid}")
        del self.workloads[name]
        self.send(event="ended", name=name, status=os.waitstatus_to_exitcode(status))


class Command:
    """A shell command that runs beside the server."""

    def __init__(self, number: int, command: str, limit: float) -> None:
        self.number = number
        self.output = b""
        self.deadline = time.monotonic() + limit
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.descriptor = self.process.stdout.fileno()

    def progress(self, readable: bool) -> bool:
        """Take its output. True when it has ended, or has been killed at its limit."""
        if readable:
            data = os.read(self.descriptor, 65536)
            self.output = (self.output + data)[-OUTPUT_LIMIT:]
            if not data:
                return True
        if time.monotonic() > self.deadline:
            os.killpg(self.process.pid, signal.SIGKILL)
            return True
        return False

    def result(self) -> dict[str, Any]:
        status = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return {"status": status, "output": self.output.decode(errors="replace")}


def main() -> None:
    """Serve for ever."""
    write("/proc/self/oom_score_adj", "-1000")
    server = Server()
    while True:
        server.step()


if __name__ == "__main__":
    main()
