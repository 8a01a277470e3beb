"""The fastest steady allocation that a guest with a buffer of 20 % and 256 MiB of swap survives.

Under each law it is tried as fast as the guest goes, one alone; if that is killed, at steady rates, in some
guests at once, on a host with memory for all. The rate is the one that was kept: swapping slows a guest down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.real.harness import Goal, Ratio, Result, tell
from bench.real.rig import OURS, finish_allocation, host, start_allocation
from host_controller.units import MIB
from lab.controller import Limits
from lab.guest import Guest
from lab.lab import Lab

MIB_IN_ALL: Final = 768
RATES: Final = (12.0, 24.0, 48.0)
UNPACED: Final = 0.0
STARTUP: Final = 512
LIMITS: Final = Limits(STARTUP, 256, 2048, buffer=20, growth="balloon")
SWAP: Final = 256
CAPACITY: Final = 16000
LAWS: Final = ("qmemman", "mom", "proxmox")
LIMIT: Final = 200.0


@dataclass(frozen=True, slots=True)
class Fastest:
    """What guests of one law survive."""

    rate: float
    """MiB/s; 0 when even the slowest that was tried was killed."""
    killed_at: str = ""
    """The slowest rate that was not survived."""
    swapped_mib: float = 0.0

    def __str__(self) -> str:
        if not self.rate:
            return f"< {RATES[0]:g}"
        # What neither is killed nor swaps is as fast as this guest can touch memory.
        at_least = not self.killed_at and self.swapped_mib < 1
        return f"{'≥ ' if at_least else ''}{self.rate:.0f}"


def run() -> Result:
    """All of it."""
    columns = ("law", "survived, MiB/s", "killed at, MiB/s", "swapped meanwhile, MiB", "ours ÷ it")
    result = Result("survival", f"Survival of an allocation of {MIB_IN_ALL} MiB", columns)
    found = {}
    with Lab() as lab, host(lab, OURS, CAPACITY, shrink_after=2, settle=1) as one:
        guests = one.add({f"s{i}": LIMITS for i in range(len(RATES))}, swap_mib=SWAP)
        for law in (OURS, *LAWS):
            if law != OURS:
                one.hand_over(law, STARTUP)
            found[law] = _fastest(guests)
            tell(f"survival: under {law} {found[law]} MiB/s")
    ours = found[OURS].rate
    for law, one_law in found.items():
        ratio = "" if law == OURS else f"{ours / (one_law.rate or RATES[0]):.1f}"
        result.rows.append((law, str(one_law), one_law.killed_at, one_law.swapped_mib, ratio))
        result.series[law] = {"survived": one_law.rate, "killed_at": one_law.killed_at}
    for law in LAWS:
        least = ours / (found[law].rate or RATES[0])
        if law != "qmemman":
            result.goals.append(Goal(f"ours ÷ {law}", least, 1.0, least=True))
    result.ratios["ours ÷ qmemman"] = Ratio(ours / (found["qmemman"].rate or RATES[0]), high_is_good=True)
    return result


def _fastest(guests: list[Guest]) -> Fastest:
    """As fast as it goes; if that is not survived, the fastest rate below which none was killed."""
    alone = _play(guests[:1], (UNPACED,))[UNPACED]
    if alone.rate:
        return alone
    played = _play(guests, RATES)
    killed = min((rate for rate, one in played.items() if not one.rate), default=math.inf)
    survived = [one for rate, one in played.items() if rate < killed]
    best = max(survived, key=lambda one: one.rate, default=Fastest(0.0))
    return replace(best, killed_at="as fast as it goes" if math.isinf(killed) else f"{killed:g}")


def _play(guests: Sequence[Guest], rates: Sequence[float]) -> dict[float, Fastest]:
    """One guest for each rate, all at once; the rate that each kept, by the rate that was asked for."""
    before = [_swapped_mib(guest) for guest in guests]
    started = [start_allocation(guest, MIB_IN_ALL, rate) for guest, rate in zip(guests, rates, strict=True)]
    found = {}
    for guest, rate, at, swapped in zip(guests, rates, started, before, strict=True):
        done = finish_allocation(guest, at, LIMIT)
        kept = 0.0 if done.done is None else done.mib / done.seconds
        found[rate] = Fastest(kept, swapped_mib=_swapped_mib(guest) - swapped)
    for guest in guests:
        guest.workload.free()
    return found


def _swapped_mib(guest: Guest) -> float:
    """In or out, since its boot."""
    vmstat = guest.workload.memory().vmstat
    return (vmstat["pswpin"] + vmstat["pswpout"]) * 4096 / MIB


if __name__ == "__main__":
    print(run().text())
