"""An allocation starts in a guest: how long to the first command, to usable memory, until all is allocated.

One clock: the guest's, brought to the host's. Each step is taken by dynmem and by the floor in turn: the
floor is a guest of the same size, unmanaged, to which all the memory it could want is sent over QMP, as one
`balloon` or `device_add`, at the instant at which the allocation starts.
"""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench.real.harness import Goal, Ratio, Result, Spread, spread
from bench.real.rig import OURS, Allocation, Bare, Host, finish_allocation, host, start_allocation
from host_controller.units import MIB
from tests.lab.controller import Limits
from tests.lab.guest import Guest
from tests.lab.lab import Lab

STEPS: Final = (128, 512, 1024)
TURNS: Final = 3
RAM: Final = 2048
SMALL: Final = 320
CAPACITY: Final = 9000
SWAP: Final = 1024
PHASES: Final = 20
PHASE_GUESTS: Final = 4
PHASE_MIB: Final = 64
PERIOD: Final = 10.0
LAWS: Final = ("mom", "proxmox", "qmemman")
LIMIT: Final = 120.0
DEFLATE: Final = Limits(SMALL, SMALL, RAM, growth="balloon")
HOT_ADD: Final = Limits(SMALL, SMALL, RAM)


def run() -> Result:
    """All of it."""
    columns = ("step", "by", "first command, s", "usable, s", "all allocated, s", "floor, s", "÷ floor")
    result = Result("reaction", "Reaction to an allocation", columns)
    with Lab() as lab:
        whole: dict[str, float] = {}
        for way, limits in (("deflate", DEFLATE), ("hot add", HOT_ADD)):
            whole |= _steps(lab, way, limits, result)
        worst = max(whole, key=lambda name: whole[name])
        result.goals.append(Goal(f"whole allocation ÷ floor, the worst ({worst}),", whole[worst], 1.3))
        waits = {OURS: _phases(lab, OURS, result)}
        for law in LAWS:
            waits[law] = _phases(lab, law, result)
    ours = waits[OURS].median
    for law in ("mom", "proxmox"):
        shorter = waits[law].median / ours
        result.goals.append(Goal(f"first command under {law} ÷ ours", shorter, 10, least=True))
        result.ratios[f"first command, {law} ÷ ours"] = Ratio(shorter, high_is_good=True)
    return result


def _steps(lab: Lab, way: str, limits: Limits, result: Result) -> dict[str, float]:
    """Every step, ours and the floor in turn. The ratios of medians, by what they are."""
    found: dict[str, float] = {}
    with host(lab, OURS, CAPACITY, shrink_after=1, settle=1, unplug_after=1) as one:
        guest = one.add({"ours": limits}, swap_mib=SWAP)[0]
        deflates = way == "deflate"
        bare = Bare(lab, "bare", RAM if deflates else SMALL, 2 * RAM, swap_mib=SWAP)
        try:
            for mib in STEPS:
                ours = _Told()
                floors = []
                for _ in range(TURNS):
                    _calm(one, guest)
                    ours.take(one, guest, _allocate(guest, mib))
                    guest.workload.free()
                    floors.append(_floor(bare, mib, deflates))
                ratio = spread(ours.whole).median / spread(floors).median
                result.rows.append((f"{mib} MiB", way, *ours.cells(), spread(floors), ratio))
                result.ratios[f"{mib} MiB by {way} ÷ floor"] = Ratio(ratio)
                result.series[f"{way} {mib}"] = {"ours": ours.whole, "floor": floors, "first": ours.first}
                found[f"{mib} MiB by {way}"] = ratio
        finally:
            bare.guest.remove()
    return found


class _Told:
    """What some turns of the same step took, seconds."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.usable: list[float] = []
        self.whole: list[float] = []

    def take(self, one: Host, guest: Guest, allocation: Allocation) -> None:
        first = one.first_command(guest, allocation.started)
        self.first.append(first - allocation.started)
        self.usable.append(one.usable(guest, first) - allocation.started)
        self.whole.append(allocation.seconds)

    def cells(self) -> tuple[Spread, Spread, Spread]:
        return spread(self.first), spread(self.usable), spread(self.whole)


def _allocate(guest: Guest, mib: int, before: Callable[[], object] = lambda: None) -> Allocation:
    before()
    return finish_allocation(guest, start_allocation(guest, mib), LIMIT)


def _floor(bare: Bare, mib: int, deflates: bool) -> float:
    """Seconds of the allocation with all the memory sent as it starts."""
    more = (mib + 255) // 128 * 128  # what it touches, and room to live
    if deflates:
        bare.move(SMALL * MIB)
        allocation = _allocate(bare.guest, mib, lambda: bare.target((SMALL + more) * MIB))
        bare.guest.workload.free()
    else:
        allocation = _allocate(bare.guest, mib, lambda: bare.plug(more * MIB))
        bare.guest.workload.free()
        bare.unplug()
    return allocation.seconds


def _calm(one: Host, guest: Guest) -> None:
    """Until it has what it booted with, no DIMM, and nothing moves."""
    one.controller.wait_vm(
        guest, lambda vm: not vm["dimms"] and vm["actual_bytes"] == SMALL * MIB, LIMIT, "small again"
    )
    one.controller.wait_at_rest(guest, quiet=1.0)


def _phases(lab: Lab, kind: str, result: Result) -> Spread:
    """Allocation → first command at random phases of the law's period, in some guests at a time."""
    rng = random.Random(1)
    limits = Limits(SMALL, SMALL, 2 * RAM, growth="balloon")
    with host(lab, kind, 4 * CAPACITY, shrink_after=1, settle=1) as one:
        guests = one.add({f"g{i}": limits for i in range(PHASE_GUESTS)}, swap_mib=SWAP)
        if kind == OURS:
            one.controller.wait_at_rest(*guests, quiet=1.0)
        seeds = [rng.random() for _ in guests]
        with ThreadPoolExecutor(PHASE_GUESTS) as pool:
            lists = pool.map(lambda guest, seed: _waits(one, guest, seed), guests, seeds)
            waits = [wait for each in lists for wait in each]
    told = spread(waits)
    result.rows.append((f"{PHASE_MIB} MiB, {len(waits)} random phases", kind, told, "", "", "", ""))
    result.series[f"phases {kind}"] = waits
    return told


def _waits(one: Host, guest: Guest, seed: float) -> list[float]:
    rng = random.Random(seed)
    found = []
    for _ in range(PHASES // PHASE_GUESTS):
        if one.kind == OURS:
            _calm(one, guest)
            time.sleep(rng.uniform(0, 1))
        else:
            time.sleep(rng.uniform(0, PERIOD))
        started = start_allocation(guest, PHASE_MIB)
        found.append(one.first_command(guest, started, 3 * PERIOD) - started)
        guest.workload.free()
    return found


if __name__ == "__main__":
    print(run().text())
