"""The observer's process: samples QEMU over QMP and /proc, and writes JSON lines of what it saw.

A process of its own, so that a busy test delays no sample. One loop, which no guest can hold up: a stopped
QEMU does not answer, and is then reported with its last known figures and their age.

Input, one JSON object a line: {"add": {"name", "pid", "socket"}}, {"remove": name}. End of input ends it.
Output: {"sample": {"at", "window", "guests": {name: GuestSample}}}, {"event": {"guest", "name", "data",
"at"}}, {"gone": name, "at"}. Times are CLOCK_MONOTONIC seconds.
"""

import json
import os
import select
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from host_controller.verify.charge import BalloonWatch, GuestSample, charge_of, dimm_bytes, virtio_mem_bytes
from host_controller.verify.errors import QmpError
from host_controller.verify.processes import start_time
from host_controller.verify.qmp import Qmp
from host_controller.verify.smaps import MemoryReader, ProcessMemory

QUESTIONS = ("query-status", "query-balloon", "query-memory-devices", "query-memory-size-summary")
PERIOD = 0.2  # seconds between samples
ANSWER_LIMIT = 0.05  # seconds that a sample waits for answers; a healthy QEMU takes 1 ms
EVENTS = (
    "BALLOON_CHANGE",
    "RESET",
    "SHUTDOWN",
    "POWERDOWN",
    "STOP",
    "RESUME",
    "SUSPEND",
    "WAKEUP",
    "GUEST_PANICKED",
)
EVENT_PREFIXES = ("MEMORY_", "DEVICE_", "MEM_", "ACPI_DEVICE", "MIGRATION")


class Watched:
    """One guest under observation."""

    def __init__(self, name: str, pid: int, socket: Path) -> None:
        self.name = name
        self.pid = pid
        self.started = start_time(pid)
        self.qmp: Qmp | None = Qmp(socket)
        self.balloon = BalloonWatch()
        self.ram = self.dimms = self.virtio_mem = self.actual = 0
        self.lowest_actual = self.lowest_virtio_mem = 0
        self.running = self.ran = True
        self.answered_at = 0.0
        self.memory = ProcessMemory(0, 0)
        self.pending: dict[int, str] = {}

    def close(self) -> None:
        """Let go of its monitor."""
        if self.qmp is not None:
            self.qmp.close()

    def living(self) -> bool:
        """Whether its process is the one that we were told of."""
        return self.started is not None and start_time(self.pid) == self.started

    def ask(self) -> None:
        """Send questions, unless QEMU still owes the answers to the last ones."""
        if self.qmp is not None and not self.pending:
            try:
                self.pending = {self.qmp.submit(command): command for command in QUESTIONS}
            except QmpError:
                self.qmp = None

    def take(self) -> list[dict[str, Any]]:
        """Read answers and events that have come; the events are returned."""
        if self.qmp is None:
            return []
        try:
            self.qmp.pump()
        except QmpError:
            self.qmp.close()
            self.qmp = None
            self.pending = {}
            return []
        events = []
        while self.qmp.events:
            event = self.qmp.events.popleft()
            if event.name == "RESET":
                self.balloon.reset()
            if event.name in EVENTS or event.name.startswith(EVENT_PREFIXES):
                events.append(
                    {"guest": self.name, "name": event.name, "data": event.data, "at": event.received}
                )
        if self.pending and all(number in self.qmp.answers for number in self.pending):
            self._take_answers(
                {command: self.qmp.answers[number] for number, command in self.pending.items()}
            )
            self.pending = {}
            self.qmp.answers.clear()
        return events

    def _take_answers(self, answers: dict[str, dict[str, Any]]) -> None:
        devices = answers["query-memory-devices"]["return"]
        self.dimms, self.virtio_mem = dimm_bytes(devices), virtio_mem_bytes(devices)
        self.ram = int(answers["query-memory-size-summary"]["return"]["base-memory"]) + self.dimms
        # No balloon device, or one without a driver: the guest has all its RAM.
        actual = int(answers["query-balloon"].get("return", {}).get("actual", self.ram))
        self.balloon.saw(actual, self.ram)
        self.actual = actual
        self.running = bool(answers["query-status"]["return"]["running"])
        self.ran = self.ran and self.running
        self.lowest_actual = min(self.lowest_actual, actual)
        self.lowest_virtio_mem = min(self.lowest_virtio_mem, self.virtio_mem)
        self.answered_at = time.monotonic()

    def sample(self, now: float) -> GuestSample:
        """What it costs at `now`, CLOCK_MONOTONIC seconds."""
        age = 0.0 if not self.pending else now - self.answered_at
        charge = charge_of(
            self.ram,
            self.lowest_virtio_mem,
            self.lowest_actual,
            self.memory.resident_bytes,
            self.memory.overhead_bytes,
            self.balloon.alive,
            self.ran,
        )
        return GuestSample(
            self.ram,
            self.dimms,
            self.virtio_mem,
            self.actual,
            self.memory.resident_bytes,
            self.memory.overhead_bytes,
            self.balloon.alive,
            self.ran,
            age,
            charge,
        )


class Worker:
    """The loop over all guests."""

    def __init__(self) -> None:
        self.guests: dict[str, Watched] = {}
        self.memory = MemoryReader()
        self.inbox = b""
        self.ended = False

    def say(self, **message: Any) -> None:
        """Write one line to whoever started us."""
        sys.stdout.write(json.dumps(message) + "\n")

    def round(self) -> None:
        """Ask all guests at once, and wait for those that answer in time."""
        for watched in self.guests.values():
            watched.ask()
        deadline = time.monotonic() + ANSWER_LIMIT
        while True:
            waiting = [watched.qmp for watched in self.guests.values() if watched.pending and watched.qmp]
            remaining = deadline - time.monotonic()
            if not waiting or remaining <= 0 or not select.select(waiting, [], [], remaining)[0]:
                return
            self.take_all()

    def take_all(self) -> None:
        """Take in what all monitors have said."""
        for watched in self.guests.values():
            for event in watched.take():
                self.say(event=event)

    def take_sample(self) -> None:
        """One sample of all guests.

        Guests are read one after the other, while memory may move from one to the next. So `actual` is asked
        before and after, and the lower figure is charged: a grant is then never counted together with what
        paid for it, and an overdraft that lasts through the sample (its `window`, some 10 ms) is still seen.
        """
        for name, watched in list(self.guests.items()):
            if not watched.living():
                self.lose(name)
        begun = time.monotonic()
        self.take_all()
        self.round()
        for name, watched in list(self.guests.items()):
            watched.lowest_actual, watched.lowest_virtio_mem = watched.actual, watched.virtio_mem
            watched.ran = watched.running
            try:
                watched.memory = self.memory.now(watched.pid)
            except OSError:
                self.lose(name)
        self.round()
        now = time.monotonic()
        guests = {name: asdict(watched.sample(now)) for name, watched in self.guests.items() if watched.ram}
        self.say(sample={"at": begun, "window": now - begun, "guests": guests})

    def take_orders(self, wait: float) -> None:
        """Wait `wait` seconds for orders, and carry them out."""
        if not select.select([0], [], [], max(0.0, wait))[0]:
            return
        data = os.read(0, 65536)
        if not data:
            self.ended = True
            return
        *lines, self.inbox = (self.inbox + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if added := order.get("add"):
                self.add(added["name"], added["pid"], Path(added["socket"]))
            else:
                self.forget(order["remove"])

    def add(self, name: str, pid: int, socket: Path) -> None:
        """Sample it from now on."""
        try:
            watched = Watched(name, pid, socket)
            self.memory.add(pid)
        except (QmpError, OSError):
            self.say(gone=name, at=time.monotonic())
        else:
            self.guests[name] = watched

    def lose(self, name: str) -> None:
        """Its QEMU has ended."""
        self.say(gone=name, at=time.monotonic())
        self.forget(name)

    def forget(self, name: str) -> None:
        """Sample it no more."""
        watched = self.guests.pop(name, None)
        if watched is not None:
            self.memory.remove(watched.pid)
            watched.close()

    def run(self) -> None:
        """Sample every `PERIOD` seconds until the input ends."""
        due = time.monotonic()
        while not self.ended:
            self.take_sample()
            sys.stdout.flush()
            due = max(due + PERIOD, time.monotonic() + 0.01)
            while not self.ended and (wait := due - time.monotonic()) > 0:
                self.take_orders(wait)


if __name__ == "__main__":
    Worker().run()
