"""A GiB taken from an idle guest, given back and used again: by virtio-mem and balloon, ours and bare QMP.

Times under TCG are not those of KVM. Counts are the same: requests on the device's queue, QEMU's page faults
when the guest uses the memory again, and the share of it in huge pages of the host. Each way has a guest of
its own, whose memory has all been used; what is taken is taken at once, before it is reported as free.
"""

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from bench.real.bare import request
from bench.real.harness import Goal, Ratio, Result, Spread, spread, tell
from bench.real.job import host_faults
from bench.real.rig import OURS, Host, finish_allocation, host, start_allocation
from host_controller.units import MIB
from host_controller.verify.qmp import Qmp
from host_controller.verify.smaps import huge_share
from lab.controller import Limits
from lab.errors import LabError
from lab.guest import Guest
from lab.lab import Lab

LOW: Final = 640
MOVED: Final = 1024
"""MiB, as are the others."""
USED: Final = 960
"""What a program in the guest touches: nearly all that is moved, since its kernel needs some of the rest."""
SPARE: Final = 64
CYCLES: Final = 10
MEASURED: Final = 3
"""Of these cycles; in the others the memory is not used in between."""
WANTS_ALL: Final = 2000
WANTS_LEAST: Final = 5
NEAR_BYTES: Final = 48 * MIB
"""A dead band, and noise that was learnt as memory came, keep the controller from moving less; the same for
bare QMP.
"""
LIMIT: Final = 90.0
SECONDS_APART: Final = 0.005
THP: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
REQUESTS_WRAP: Final = 1 << 16
"""A queue counts what it has used in 16 bits."""
QUEUES: Final = {"virtio-mem": (0,), "balloon": (0, 1)}
"""Where a device is asked for memory: of a balloon the inflate and the deflate queue."""


class Mover:
    """One guest, and one way to take memory from it and to give it back."""

    def __init__(
        self, one: Host, guest: Guest, device: str, ours: bool, near_bytes: int = NEAR_BYTES
    ) -> None:
        """It has all of its maximum; `ours` is moved by the controller, which is stopped otherwise.

        `near_bytes`: it is there when it is as near as that.
        """
        self.guest = guest
        self._host = one
        self._device = device
        self._ours = ours
        self._near_bytes = near_bytes
        self.share = 0.0
        """Of QEMU's memory in huge pages when the guest had last used all of it, 0 to 1."""

    def wait(self, size_bytes: int) -> float:
        """When it had so much beyond LOW, by QEMU's own word."""
        deadline = time.monotonic() + LIMIT
        with self.guest.qmp() as qmp:
            while abs((found := self._has(qmp)) - size_bytes) > self._near_bytes:
                if time.monotonic() > deadline:
                    raise LabError(f"{self.guest.name} has {found / MIB:.0f} MiB of {size_bytes / MIB:.0f}")
                time.sleep(SECONDS_APART)
            return time.monotonic()

    def _has(self, qmp: Qmp) -> int:
        if self._device == "virtio-mem":
            return int(qmp.execute("query-memory-devices")[0]["data"]["size"])
        return int(qmp.execute("query-balloon")["actual"]) - LOW * MIB

    def requests(self) -> int:
        """Requests that its driver has made, each queue's modulo REQUESTS_WRAP."""
        with self.guest.qmp() as qmp:
            name = f"virtio-{self._device.removeprefix('virtio-')}"
            (path,) = (one["path"] for one in qmp.execute("x-query-virtio") if one["name"] == name)
            return sum(
                int(qmp.execute("x-query-virtio-queue-status", path=path, queue=queue)["used-idx"])
                for queue in QUEUES[self._device]
            )

    def move(self, size_bytes: int) -> float:
        """Seconds from the first command until it has so much beyond LOW."""
        since = time.monotonic()
        if self._ours:
            self._host.set(self.guest, buffer_percent=WANTS_ALL if size_bytes else WANTS_LEAST)
        else:
            self._ask(size_bytes)
        there = self.wait(size_bytes)
        return there - (self._host.first_command(self.guest, since) if self._ours else since)

    def _ask(self, size_bytes: int) -> None:
        with self.guest.qmp() as qmp:
            if self._device == "virtio-mem":
                request(qmp, size_bytes)
            else:
                qmp.execute("balloon", value=LOW * MIB + size_bytes)

    def use(self) -> float:
        """Have a program touch it all and end; seconds that it took."""
        self.wait_online()
        allocation = finish_allocation(self.guest, start_allocation(self.guest, USED), LIMIT)
        if allocation.done is None:
            raise LabError(f"killed at {allocation.mib} of {USED} MiB\n{self.guest.console_tail(40)}")
        self.share = huge_share(self.guest.qemu_pid())
        self.guest.workload.free()
        return allocation.seconds

    def wait_online(self) -> None:
        """QEMU has given it: until the guest's kernel can use it, too.

        On a busy machine the agent names the zone too late, and what was plugged before is offline. The
        controller takes that back after some seconds and gives it again.
        """
        deadline = time.monotonic() + LIMIT
        while (free := self.guest.workload.memory().available_bytes) < (USED + SPARE) * MIB:
            if time.monotonic() > deadline:
                raise LabError(f"{self.guest.name} has only {free / MIB:.0f} MiB available")
            time.sleep(0.1)


TAKEN, GIVEN = "taken, s", "given back, s"
TO_TAKE, TO_GIVE = "requests on its queue to take it", "requests to give it back"
REFILLED, FAULTS = "used again, s", "QEMU's page faults while it is used again"


@dataclass(frozen=True, slots=True)
class Found:
    """Of one way: what its cycles took for a GiB, by the names above."""

    cycles: dict[str, list[float]]
    share_before: float
    """Of QEMU's memory in huge pages, 0 to 1, with the guest's memory in use."""
    share_after: float

    def told(self) -> dict[str, Spread]:
        """Medians, and the least and the most."""
        return {name: spread(values) for name, values in self.cycles.items()}

    def median(self, name: str) -> float:
        """Of all cycles."""
        return statistics.median(self.cycles[name])

    @property
    def requests(self) -> float:
        """To take a GiB and to give it back."""
        return self.median(TO_TAKE) + self.median(TO_GIVE)


def run() -> Result:
    """All of it."""
    result = Result("memory", "A GiB taken, given back and used again", ("of a GiB", *_names()))
    found: dict[str, Found] = {}
    with Lab() as lab:
        for device in QUEUES:
            with _movers(lab, device) as movers:
                told = _cycles(movers)
            for name, one in told.items():
                tell(f"memory: {name} {one.told()}")
            found |= told
    _tell(result, found)
    return result


def _name(device: str, ours: bool) -> str:
    return f"{'dynmem' if ours else 'bare QMP'}, {device}"


def _names() -> Iterator[str]:
    return (_name(device, ours) for device, ours in product(QUEUES, (True, False)))


@contextmanager
def _movers(lab: Lab, device: str) -> Iterator[dict[str, Mover]]:
    """Two guests that have all of their maximum and have used it: one is moved by the controller, and the
    other by hand, so the controller is told to leave that alone. By name of the way.
    """
    limits = Limits(LOW, LOW, LOW + MOVED, buffer=WANTS_ALL, growth=device)
    with host(lab, OURS, 4 * (LOW + MOVED), shrink_after=0, settle=0) as one:
        movers = {}
        for ours, guest in zip((True, False), one.add({"ours": limits, "bare": limits}), strict=True):
            mover = movers[_name(device, ours)] = Mover(one, guest, device, ours)
            mover.wait(MOVED * MIB)
            mover.wait_online()
            one.controller.wait_at_rest(guest, quiet=2.0)
        one.controller.client.post("vms", "bare", "pause")
        yield movers


def _cycles(movers: Mapping[str, Mover]) -> dict[str, Found]:
    """Each way in turn in each cycle, since the machine is not always as fast."""
    names = (TAKEN, TO_TAKE, GIVEN, TO_GIVE, REFILLED, FAULTS)
    found: dict[str, dict[str, list[float]]] = {way: {name: [] for name in names} for way in movers}
    before = {}
    for way, mover in movers.items():
        mover.use()
        before[way] = mover.share
    for cycle in range(CYCLES):
        for size, seconds, requests in ((0, TAKEN, TO_TAKE), (MOVED * MIB, GIVEN, TO_GIVE)):
            for way, mover in movers.items():
                asked = mover.requests()
                found[way][seconds].append(mover.move(size) * 1024 / MOVED)
                found[way][requests].append((mover.requests() - asked) % REQUESTS_WRAP * 1024 / MOVED)
        if cycle >= CYCLES - MEASURED:
            for way, mover in movers.items():
                faulted = host_faults(mover.guest)
                found[way][REFILLED].append(mover.use() * 1024 / USED)
                found[way][FAULTS].append((host_faults(mover.guest) - faulted) * 1024 / USED)
    return {way: Found(found[way], before[way], mover.share) for way, mover in movers.items()}


def _tell(result: Result, found: dict[str, Found]) -> None:
    ours, bare = found[_name("virtio-mem", True)], found[_name("virtio-mem", False)]
    balloon = found[_name("balloon", True)]
    result.rows += [(name, *(spread(one.cycles[name]) for one in found.values())) for name in ours.cycles]
    shares = (f"{one.share_before:.3f} → {one.share_after:.3f}" for one in found.values())
    mode = THP.read_text().partition("[")[2].partition("]")[0]
    result.rows.append((f"share in huge pages (THP `{mode}`), before and after {CYCLES} cycles", *shares))
    faults = ours.median(FAULTS) / balloon.median(FAULTS)
    requests = ours.requests / balloon.requests
    share = ours.share_after / ours.share_before
    take = bare.median(TAKEN) / ours.median(TAKEN)
    give = bare.median(GIVEN) / ours.median(GIVEN)
    result.goals += [
        Goal("page faults by virtio-mem ÷ by balloon", faults, 1 / 50),
        Goal("requests by virtio-mem ÷ by balloon", requests, 1 / 20),
        Goal("huge-page share after the cycles ÷ before", share, 0.95, least=True),
        Goal("taken by virtio-mem, bare QMP's time ÷ ours", take, 0.95, least=True),
        Goal("given back by virtio-mem, bare QMP's time ÷ ours", give, 0.95, least=True),
    ]
    result.ratios["page faults by virtio-mem ÷ by balloon"] = Ratio(faults)
    result.ratios["requests by virtio-mem ÷ by balloon"] = Ratio(requests)
    result.ratios["huge-page share after ÷ before"] = Ratio(share, high_is_good=True)


if __name__ == "__main__":
    print(run().text())
