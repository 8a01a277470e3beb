"""Four identical guests with identical jobs and too little memory for all: do they end together?

And the host's huge pages under guest memory after ten cycles of inflating and deflating, ours and bare.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from bench.real.bare import move, move_with_device, wait_actual
from bench.real.harness import Goal, Ratio, Result, spread, tell
from bench.real.job import OBJECT_MIB, Done, run_job
from bench.real.rig import OURS, host
from host_controller.units import MIB
from host_controller.verify.smaps import huge_share
from lab.controller import Limits
from lab.guest import Guest
from lab.lab import Lab

GUESTS: Final = 4
ROUNDS: Final = 2
FILES: Final = 40
BUILDS: Final = 3
"""One build is over so soon that who is scheduled first ends first."""
SHARE: Final = 560
"""MiB of each guest when memory is shared evenly, less than a job and its kernel want."""
MAXIMUM: Final = 1024
SWAP: Final = 512
CYCLES: Final = 10
LOW: Final = 640
RAM: Final = 1024
TOUCHED: Final = 400
REPORTED_SECONDS: Final = 6.0
COLUMNS: Final = ("what", "ours", "bare QMP", "ratio")
ByHand = Callable[[Guest, int], object]
"""Gives a guest so many bytes while nobody manages it."""
WAYS: Final[dict[str, ByHand]] = {"virtio-mem": move_with_device, "balloon": move}


def run() -> Result:
    """All of it."""
    result = Result("evenness", "Evenness", COLUMNS)
    with Lab() as lab:
        for growth, by_hand in WAYS.items():
            jobs(lab, result, growth, by_hand)
        _huge_pages(lab, result)
    return result


def jobs(lab: Lab, result: Result, growth: str, by_hand: ByHand, **spec: Any) -> None:
    """Ours, and in turn the same guests with the same memory for each, which nobody manages.

    `spec`: what the guests have beside.
    """
    limits = Limits(512, 256, MAXIMUM, growth=growth)
    done: dict[str, list[list[Done]]] = {"ours": [], "bare": []}
    with host(lab, OURS, GUESTS * MAXIMUM, shrink_after=2, settle=0) as one:
        guests = one.add({f"{growth}{i}": limits for i in range(GUESTS)}, swap_mib=SWAP, **spec)
        vms = [one.controller.vm(guest) for guest in guests]
        beside = sum(vm["charge_bytes"] - vm["actual_bytes"] - vm["virtio_mem_bytes"] for vm in vms)
        one.set_capacity(GUESTS * SHARE + beside // MIB)
        together(guests, 2, 1)  # programs come into the caches
        for _ in range(ROUNDS):
            one.controller.wait_at_rest(*guests, quiet=2.0)
            done["ours"].append(together(guests, FILES, BUILDS))
            one.controller.stop()
            for guest in guests:
                by_hand(guest, SHARE * MIB)
            done["bare"].append(together(guests, FILES, BUILDS))
            one.start()
            told = (f"{who} {spread([one.seconds for one in done[who][-1]])} s" for who in done)
            tell(f"{result.name} by {growth}: {', '.join(told)}")
    _tell(result, growth, done)


def _tell(result: Result, growth: str, done: dict[str, list[list[Done]]]) -> None:
    """`done`: the jobs of each round, ours and bare."""
    times = {name: [[each.seconds for each in one] for one in rounds] for name, rounds in done.items()}
    apart = {name: spread([max(one) / min(one) for one in rounds]) for name, rounds in times.items()}
    all_times = {name: spread([each for one in rounds for each in one]) for name, rounds in times.items()}
    ours, bare = apart["ours"], apart["bare"]
    what = f"by {growth}: {GUESTS} jobs of {FILES * OBJECT_MIB} MiB, {BUILDS} builds, {SHARE} MiB a guest"
    ratio = all_times["ours"].median / all_times["bare"].median
    result.rows.append((f"{what}, s", all_times["ours"], all_times["bare"], ratio))
    result.rows.append(("the slowest of the four ÷ the quickest", ours, bare, ours.median / bare.median))
    for field, name in (
        ("stalled_seconds", "of that stalled (PSI some), s"),
        ("major_faults", "major faults of each"),
        ("swap_in_pages", "pages swapped in by each"),
        ("agent_seconds", "processor time of its agent, s"),
        ("host_faults", "page faults of its QEMU"),
    ):
        cells = [spread([getattr(each, field) for one in done[who] for each in one]) for who in done]
        result.rows.append((name, *cells, ""))
    result.goals.append(Goal(f"four jobs at once by {growth}, ÷ fixed shares,", ratio, 1.15))
    result.goals.append(Goal(f"largest ÷ smallest of their times, by {growth},", ours.median, 1.10))
    result.ratios[f"largest ÷ smallest by {growth}, ours ÷ bare"] = Ratio(ours.median / bare.median)
    result.series[f"job seconds by {growth}"] = times


def together(guests: list[Guest], files: int, builds: int) -> list[Done]:
    """The job in each, begun at once."""
    with ThreadPoolExecutor(len(guests)) as pool:
        return list(pool.map(lambda guest: run_job(guest, files, builds), guests))


def _huge_pages(lab: Lab, result: Result) -> None:
    """After cycles of inflating and deflating, ours in its steps and bare in one, in the same guest in turn.

    A balloon gives its pages up one by one, and what the host has split so it fills again page by page; whole
    huge pages come back when the guest reports them as free, 2 s later. So the memory is used after that.
    """
    shares: dict[str, list[float]] = {"ours": [], "bare": []}
    with host(lab, OURS, 2 * RAM, shrink_after=0, settle=0) as one:
        guest = one.add({"ours": Limits(LOW, LOW, RAM, buffer=2000, growth="balloon")})[0]
        wait_actual(guest, RAM * MIB)
        for _ in range(ROUNDS):
            for _ in range(CYCLES):
                for size, buffer in ((LOW, 5), (RAM, 2000)):
                    one.set(guest, buffer_percent=buffer)
                    wait_actual(guest, size * MIB)
            shares["ours"].append(_touched_share(guest))
            one.controller.stop()
            for _ in range(CYCLES):
                for size in (LOW, RAM):
                    move(guest, size * MIB)
            shares["bare"].append(_touched_share(guest))
            one.start()
            tell(f"evenness: huge-page share {shares['ours'][-1]:.3f}, bare {shares['bare'][-1]:.3f}")
    ours, bare = (spread([100 * share for share in shares[who]]) for who in ("ours", "bare"))
    ratio = ours.median / bare.median
    result.rows.append((f"huge-page share after {CYCLES} cycles, {TOUCHED} MiB used, %", ours, bare, ratio))
    result.ratios["huge-page share ÷ bare"] = Ratio(ratio, high_is_good=True)
    result.goals.append(Goal("huge-page share ÷ bare QMP", ratio, 0.95, least=True))


def _touched_share(guest: Guest) -> float:
    """With much of its memory in use again, once what is free is reported."""
    time.sleep(REPORTED_SECONDS)
    guest.workload.allocate(TOUCHED)
    guest.workload.wait_event("done", "memory", 60)
    share = huge_share(guest.qemu_pid())
    guest.workload.free()
    time.sleep(REPORTED_SECONDS)
    return share


if __name__ == "__main__":
    print(run().text())
