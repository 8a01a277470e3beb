"""An allocation starts in a guest: how long to the first command, to usable memory, until all is allocated.

One clock: the guest's, brought to the host's. Each step is taken by dynmem and by the floor in turn: the
floor is a guest of the same size, unmanaged, to which all the memory it could want is sent over QMP, as one
`balloon` or `device_add`, at the instant at which the allocation starts.
"""

import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from bench.real.bare import MEMMAP_ON_MEMORY, Bare
from bench.real.harness import Goal, Ratio, Result, Spread, spread, tell
from bench.real.rig import (
    OURS,
    Allocation,
    Host,
    finish_allocation,
    host,
    is_back_at,
    start_allocation,
)
from host_controller.units import MIB
from lab.controller import ControllerError, Limits
from lab.guest import Guest
from lab.lab import Lab

STEPS: Final = (128, 512, 1024)
TURNS: Final = 3
RAM: Final = 2048
SMALL: Final = 320
LEAN: Final = 128
"""A minimum below what an idle guest uses: it rests at that and its buffer, and not at its minimum."""
LEAN_NAME: Final = f"{OURS}, minimum {LEAN} MiB"
CAPACITY: Final = 9000
PHASE_CAPACITY: Final = 8000
"""Enough for every law to grow by, and less than all maxima: so a law that gives all away goes on acting."""
SWAP: Final = 1024
PHASE_GUESTS: Final = 5
PHASE_MIB: Final = 192
"""So much that every law has a reason to move memory."""
WHOLE: Final = 512
"""MiB that are allocated once under each of the others' laws, in a guest as large as ours."""
PERIOD: Final = 10.0
LAWS: Final = ("qmemman", "mom", "proxmox")
PHASES: Final = 20
QUICK: Final = (OURS, "qmemman")
LONGEST: Final = 1.5
"""Of its period: without a command for so long a law has looked and found that the guest has enough."""
CALM_SECONDS: Final = 1.0
"""Longer than what is quick takes to look again."""
FORGOTTEN_SECONDS: Final = 40.0
"""After so long without a change a guest's last allocation is neither flutter nor noise to our law: each is
the first of its kind, as it is to laws without a memory.
"""
LIMIT: Final = 120.0
DEFLATE: Final = Limits(SMALL, SMALL, RAM, growth="balloon")
HOT_ADD: Final = Limits(SMALL, SMALL, RAM)


def run() -> Result:
    """All of it."""
    columns = ("step", "by", "first command, s", "usable, s", "all allocated, s", "floor, s", "÷ floor")
    result = Result("reaction", "Reaction to an allocation", columns)
    with Lab() as lab:
        waits = _phases(lab, result)
        whole: dict[str, float] = {}
        for way, limits in (("deflate", DEFLATE), ("hot add", HOT_ADD)):
            whole |= _steps(lab, way, limits, result)
        worst = max(whole, key=lambda name: whole[name])
        result.goals.append(Goal(f"whole allocation ÷ floor, the worst ({worst}),", whole[worst], 1.3))
    for name in (OURS, LEAN_NAME):
        result.goals.append(Goal(f"first command, median, {name}, s", spread(waits[name]).median, 0.4))
        for law in ("mom", "proxmox"):
            shorter = spread(waits[law]).median / spread(waits[name]).median
            result.goals.append(Goal(f"first command under {law} ÷ {name}", shorter, 10, least=True))
            steadier = statistics.mean(waits[law]) / statistics.mean(waits[name])
            result.ratios[f"first command on average, {law} ÷ {name}"] = Ratio(steadier, high_is_good=True)
    return result


def _steps(lab: Lab, way: str, limits: Limits, result: Result) -> dict[str, float]:
    """Every step, ours and the floor in turn. The ratios of medians, by what they are.

    By hot add each turn has a guest of its own, just booted: a DIMM that its kernel has come to use stays.
    """
    found: dict[str, float] = {}
    deflates = way == "deflate"
    with host(lab, OURS, CAPACITY, shrink_after=1, settle=1) as one:
        bare = Bare(lab, "bare", RAM if deflates else SMALL, 2 * RAM, swap_mib=SWAP)
        guests = one.add({"ours": limits}, swap_mib=SWAP) * TURNS if deflates else []
        try:
            bare.guest.wait_booted()
            for mib in STEPS:
                if not deflates:
                    names = {f"ours{turn}": limits for turn in range(TURNS)}
                    guests = one.add(names, swap_mib=SWAP, kernel_arguments=MEMMAP_ON_MEMORY)
                ours = _Told()
                floors = []
                for guest in guests:
                    _calm(one, guest)
                    ours.take(one, guest, finish_allocation(guest, start_allocation(guest, mib), LIMIT))
                    guest.workload.free()
                    floors.append(_floor(bare, mib, deflates))
                if not deflates:
                    one.remove(*guests)
                ratio = spread(ours.whole).median / spread(floors).median
                tell(f"reaction: {mib} MiB by {way}: {spread(ours.whole)} s, floor {spread(floors)} s")
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


def _floor(bare: Bare, mib: int, deflates: bool) -> float:
    """Seconds of the allocation with all the memory sent as it starts."""
    more = (mib + 255) // 128 * 128 * MIB  # what it touches, and room to live

    def send() -> None:
        if deflates:
            bare.target(SMALL * MIB + more)
        else:
            bare.plug(more)

    if deflates:
        bare.move(SMALL * MIB)
    allocation = finish_allocation(bare.guest, start_allocation(bare.guest, mib, meanwhile=send), LIMIT)
    bare.guest.workload.free()
    if not deflates:
        bare.unplug()
    return allocation.seconds


def _calm(one: Host, guest: Guest) -> None:
    """Until it has what it booted with, no DIMM, and nothing moves."""
    one.controller.wait_vm(guest, lambda vm: not vm["dimms"] and is_back_at(vm, SMALL), LIMIT, "small again")
    one.controller.wait_at_rest(guest, quiet=1.0)


def _phases(lab: Lab, result: Result) -> dict[str, list[float]]:
    """Allocation → first command at random phases of the law's period, in some guests at a time, by law.

    Under ours twice. An idle guest needs less than the minimum of these guests, and has use for a command
    once it has come to need more; with a minimum below what it uses it has from the start.
    """
    found = {}
    with host(lab, OURS, PHASE_CAPACITY, shrink_after=1, settle=1) as one:
        guests = one.add({f"g{i}": DEFLATE for i in range(PHASE_GUESTS)}, swap_mib=SWAP)
        for name in (OURS, LEAN_NAME, *LAWS):
            law, minimum = (OURS, LEAN) if name == LEAN_NAME else (name, SMALL)
            for guest in guests:
                one.set(guest, minimum_bytes=minimum * MIB)
            whole: Spread | str = ""
            if law != OURS:
                one.hand_over(law, SMALL)
                whole = spread(
                    [finish_allocation(guests[0], start_allocation(guests[0], WHOLE), LIMIT).seconds]
                )
                guests[0].workload.free()
            order = range(PHASE_GUESTS)
            with ThreadPoolExecutor(PHASE_GUESTS) as pool:
                lists = list(
                    pool.map(lambda number, law=law: _waits(one, guests[number], number, law), order)
                )
            answers = [answer for each in lists for answer in each]
            waits = found[name] = [answer.seconds for answer in answers]
            taken, left = [answer.taken_mib for answer in answers], [answer.left_mib for answer in answers]
            tell(f"reaction: first command by {name} after {spread(waits)} s, {len(waits)} of {PHASES}")
            tell(f"reaction: its guest had taken {spread(taken)} MiB then and had {spread(left)} left")
            answered = f"{len(waits)} answered after {spread(taken)} MiB"
            what = f"{PHASE_MIB} MiB at {PHASES} random times, {answered}; {WHOLE} MiB"
            result.rows.append((what, name, spread(waits), "", whole, "", ""))
            result.series[f"phases {name}"] = waits
            result.series[f"MiB taken until the first command, {name}"] = taken
            result.series[f"MiB available at the first command, {name}"] = left
    return found


class _Answer(NamedTuple):
    """The first command after an allocation began."""

    seconds: float
    """After it."""
    taken_mib: float
    """So much less the guest's agent had told of as available by then: a count, however fast the guest is."""
    left_mib: float
    """Available to the guest by its last word."""


def _waits(one: Host, guest: Guest, number: int, law: str) -> list[_Answer]:
    """Some allocations in one guest, and what the law did about each.

    Each comes at a random time in a part of the period of its own, counted from the law's last command. What
    another law has no command for is left out.
    """
    rng = random.Random(number)
    turns = PHASES // PHASE_GUESTS
    period = CALM_SECONDS if law in QUICK else PERIOD
    sent = one.sent(guest, "SetTarget", "AttachDimm")
    command = sent[-1].at if sent else time.monotonic()
    found = []
    for turn in range(turns):
        if law == OURS:
            _calm(one, guest)
            time.sleep(FORGOTTEN_SECONDS)
        due = command + period * (turn + (number + rng.random()) / PHASE_GUESTS) / turns
        time.sleep((due - time.monotonic()) % period)
        started = start_allocation(guest, PHASE_MIB)
        try:
            command = one.first_command(guest, started, LIMIT if law == OURS else LONGEST * period)
        except ControllerError:
            if law == OURS:
                raise
            command = time.monotonic()  # it saw no need to: no wait of the guest's
        else:
            before, left = (one.available(guest, at) / MIB for at in (started, command))
            found.append(_Answer(command - started, before - left, left))
        guest.workload.free()
    return found


if __name__ == "__main__":
    print(run().text())
