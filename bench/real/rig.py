"""A host to measure on: a controller (ours, or another law in its place), and guests."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from agent import wire
from bench.real.bare import wait_actual
from host_controller.core.interface import GuestSpoke
from host_controller.core.policy.dead_band import shrink_dead_band
from host_controller.domain_xml.ours import metadata_element
from host_controller.domain_xml.read import read_domain
from host_controller.hypervisor.definitions import Definitions
from host_controller.records.recording import Handled, Recording
from host_controller.units import MIB
from host_controller.verify.processes import prefer
from lab.controller import Controller, Limits, SentCommand, enable
from lab.domain import GuestSpec
from lab.errors import LabError
from lab.guest import Guest
from lab.lab import Lab

OURS: Final = "dynmem"
SEEN_BYTES: Final = 16 * MIB
"""By so much MemTotal must have grown for memory to have become usable."""


class Host:
    """One controller and its guests."""

    def __init__(self, lab: Lab, kind: str, capacity: int, **settings: Any) -> None:
        """Nothing runs yet; as of `host`."""
        self.lab = lab
        self.kind = kind
        self.guests: dict[str, Guest] = {}
        self._capacity = capacity
        self._settings = settings
        self.controller = self._controller()

    def _controller(self) -> Controller:
        settings = dict(self._settings)
        if self.kind != OURS:
            settings["program"] = (sys.executable, "-m", "bench.real.law_daemon", self.kind)
        directory = self.lab.directory / f"{self.kind}-{time.monotonic_ns()}"
        return Controller(directory, self.lab.session.uri, self._capacity, **settings)

    def start(self) -> None:
        """Start the controller, and wait until it has heard of every guest."""
        self.controller.start()
        prefer(self.controller.pid)
        for guest in self.guests.values():
            self.controller.wait_managed(guest)

    def close(self) -> None:
        """End controller and guests."""
        self.controller.stop()
        for guest in self.guests.values():
            guest.remove()

    def remove(self, *guests: Guest) -> None:
        """End these guests."""
        for guest in guests:
            self.guests.pop(guest.name).remove()

    def hand_over(self, kind: str, mib: int) -> None:
        """Another law takes over all guests, each with so many MiB."""
        self.controller.stop()
        for guest in self.guests.values():
            with guest.qmp() as qmp:
                qmp.execute("balloon", value=mib * MIB)
        for guest in self.guests.values():
            wait_actual(guest, mib * MIB)
        self.kind = kind
        self.controller = self._controller()
        self.start()

    def add(self, limits: dict[str, Limits], code_disk: Path | None = None, **spec: Any) -> list[Guest]:
        """Guests of these names and limits, booted together, managed. code_disk: with another agent."""
        added = []
        for name, limit in limits.items():
            ram = limit.maximum if limit.growth == "balloon" else limit.startup
            guest = self.lab.guest(GuestSpec(name, startup_mib=ram, **spec), code_disk=code_disk)
            enable(guest, limit)
            self.guests[name] = guest
            guest.start()
            prefer(guest.qemu_pid())
            added.append(guest)
        for guest in added:
            guest.wait_booted()
            self.controller.wait_vm(guest, lambda vm: vm["agent"] is not None, 60, "heard of")
        return added

    def set(self, guest: Guest, **limits: int) -> None:
        """As `dynmem set` on a running VM, but with no process of its own, which would be busy meanwhile."""
        with Definitions(guest.session.uri) as definitions:
            domain = definitions.find(guest.name)
            config = read_domain(domain.live_xml()).config
            assert config is not None
            changed = replace(config.limits, **limits)
            domain.write_metadata(metadata_element(changed, config.growth, config.trust))

    def set_capacity(self, mib: int) -> None:
        """Another capacity, by the configuration file."""
        text = self.controller.config.read_text()
        self.controller.config.write_text(re.sub(r"(?m)^capacity = .*$", f'capacity = "{mib}MiB"', text))
        self.controller.client.post("reload")

    def first_command(self, guest: Guest, since: float, limit: float = 30.0) -> float:
        """When the first balloon target, DIMM or size of virtio-mem was sent to it after `since`."""
        uuid, kinds = guest.domain().UUIDString(), ("SetTarget", "AttachDimm", "ResizeVirtioMem")
        sent = self.controller.wait_sent(*kinds, vm=uuid, since=since, limit=limit)
        return min(command.at for command in sent)

    def usable(self, guest: Guest, since: float, limit: float = 20.0) -> float:
        """When its agent first told of more memory after `since` than the last time before."""
        deadline = time.monotonic() + limit
        while True:
            before = 0
            for at, report in self._reports(guest):
                if at <= since:
                    before = report.total_bytes
                elif report.total_bytes >= before + SEEN_BYTES:
                    return at
            if time.monotonic() > deadline:
                raise LabError(f"{guest.name} got no memory within {limit:g} s\n{self.controller.log_tail()}")
            time.sleep(0.5)

    def available(self, guest: Guest, at: float) -> int:
        """Bytes that its agent told of as available, the last time before `at`; 0 where it never did."""
        available = 0
        for told_at, report in self._reports(guest):
            if told_at <= at:
                available = report.available_bytes
        return available

    def _reports(self, guest: Guest) -> Iterator[tuple[float, wire.Report]]:
        """What its agent reported, and when, as far as it is written down."""
        uuid = guest.domain().UUIDString()
        with self.controller.recording.open("rb") as stream:
            for record in Recording(stream):
                match record:
                    case Handled(at, GuestSpoke(vm, wire.Report() as report)) if vm == uuid:
                        yield at, report

    def sent(self, guest: Guest, *kinds: str, since: float = 0.0) -> list[SentCommand]:
        """Commands of these kinds that were sent to it after `since`, as far as they are written down."""
        return list(self.controller.sent(*kinds, vm=guest.domain().UUIDString(), since=since))


@contextmanager
def host(lab: Lab, kind: str, capacity: int, **settings: Any) -> Iterator[Host]:
    """A controller that is `dynmem`, or the law of that name; `capacity` in MiB, more as of Controller."""
    one = Host(lab, kind, capacity, **settings)
    try:
        one.start()
        yield one
    finally:
        one.close()


@dataclass(frozen=True, slots=True)
class Allocation:
    """One allocation in a guest, on our clock."""

    started: float
    done: float | None
    """None: it was killed before it was done."""
    mib: int
    """Touched, at the least."""

    @property
    def seconds(self) -> float:
        """How long it took. It was done."""
        assert self.done is not None
        return self.done - self.started


def start_allocation(
    guest: Guest,
    mib: int,
    rate: float = 0.0,
    meanwhile: Callable[[], object] = lambda: None,
    *,
    greedy: bool = True,
) -> float:
    """When it began, on our clock; `meanwhile` begins with it.

    greedy: it goes on while its guest has no memory left, and may be killed; else it waits.
    """
    offset, _ = guest.workload.clock_offset(5)
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(meanwhile)
        guest.workload.allocate(mib, rate, greedy=greedy)
        doing.result()
    return guest.workload.wait_event("started", "memory", 30).monotonic - offset


def finish_allocation(guest: Guest, started: float, limit: float) -> Allocation:
    """Wait until it is all touched, or killed."""
    offset, _ = guest.workload.clock_offset(1)
    deadline = time.monotonic() + limit
    touched = 0
    while True:
        while guest.workload.events:
            event = guest.workload.events.popleft()
            touched = max(touched, event.mib or 0)
            if event.kind == "done":
                return Allocation(started, event.monotonic - offset, touched)
            if event.kind == "ended":
                return Allocation(started, None, touched)
        if time.monotonic() > deadline:
            raise LabError(f"{guest.name} touched {touched} MiB in {limit:g} s and was not done")
        time.sleep(0.05)
        guest.workload.ping(limit)  # takes in what has come


def is_back_at(vm: Mapping[str, Any], mib: int) -> bool:
    """Whether a VM of the API has no more than that, but for an excess that the controller leaves alone."""
    actual_bytes: int = vm["actual_bytes"]
    return actual_bytes - shrink_dead_band(actual_bytes) <= mib * MIB
