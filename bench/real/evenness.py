"""Four identical guests with identical jobs and too little memory for all: do they end together?

And the host's huge pages under guest memory after ten cycles of inflating and deflating, ours and bare.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench.real.harness import Goal, Ratio, Result, spread
from bench.real.job import OBJECT_MIB, run_job
from bench.real.rig import OURS, Bare, host, wait_actual
from host_controller.units import MIB
from tests.lab.controller import Limits
from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.smaps import huge_share

GUESTS: Final = 4
FILES: Final = 40
SHARE: Final = 560
"""MiB of each guest when memory is shared evenly, less than a job and its kernel want."""
MAXIMUM: Final = 1024
SWAP: Final = 512
CYCLES: Final = 10
LOW: Final = 640
RAM: Final = 1024
TOUCHED: Final = 400


def run() -> Result:
    """All of it."""
    result = Result("evenness", "Evenness", ("what", "ours", "bare QMP", "ratio"))
    with Lab() as lab:
        _jobs(lab, result)
        _huge_pages(lab, result)
    return result


def _jobs(lab: Lab, result: Result) -> None:
    limits = Limits(512, 256, MAXIMUM, growth="balloon")
    with host(lab, OURS, GUESTS * MAXIMUM, shrink_after=2, settle=0) as one:
        guests = one.add({f"even{i}": limits for i in range(GUESTS)}, swap_mib=SWAP)
        vms = [one.controller.vm(guest) for guest in guests]
        beside = sum(vm["charge_bytes"] - vm["actual_bytes"] for vm in vms)
        one.set_capacity(GUESTS * SHARE + beside // MIB)
        with ThreadPoolExecutor(GUESTS) as pool:
            list(pool.map(lambda guest: run_job(guest, 2), guests))  # programs come into the caches
            done = list(pool.map(lambda guest: run_job(guest, FILES), guests))
    times = [one.seconds for one in done]
    ratio = max(times) / min(times)
    what = f"{GUESTS} jobs of {FILES * OBJECT_MIB} MiB at once, {SHARE} MiB a guest, s"
    result.rows.append((what, spread(times), "", ratio))
    result.goals.append(Goal("job times of four identical guests, largest ÷ smallest,", ratio, 1.10))
    result.ratios["job times, largest ÷ smallest"] = Ratio(ratio)
    result.series["job seconds"] = times


def _huge_pages(lab: Lab, result: Result) -> None:
    with host(lab, OURS, 2 * RAM + 800, shrink_after=0, settle=0) as one:
        guest = one.add({"ours": Limits(LOW, LOW, RAM, buffer=2000, growth="balloon")})[0]
        bare = Bare(lab, "bare", RAM)
        try:
            wait_actual(guest, RAM * MIB)
            for _ in range(CYCLES):
                for size, buffer in ((LOW, 5), (RAM, 2000)):
                    one.set(guest, buffer=buffer)
                    bare.move(size * MIB)
                    wait_actual(guest, size * MIB)
            ours, floor = _touched_share(guest), _touched_share(bare.guest)
        finally:
            bare.guest.remove()
    ratio = ours / floor if floor else 1.0
    result.rows.append(
        (f"huge-page share of guest memory after {CYCLES} cycles, %", 100 * ours, 100 * floor, ratio)
    )
    result.goals.append(Goal("huge-page share ÷ bare QMP", ratio, 0.95, least=True))
    result.ratios["huge-page share ÷ bare"] = Ratio(ratio, high_is_good=True)


def _touched_share(guest: Guest) -> float:
    """With much of its memory in use again."""
    guest.workload.allocate(TOUCHED)
    guest.workload.wait_event("done", "memory", 60)
    return huge_share(guest.qemu_pid())


if __name__ == "__main__":
    print(run().text())
