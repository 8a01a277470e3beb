"""A fixed job in a managed guest that starts at startup, against the same with maximum from the start.

By dynmem and by nobody in turn; then under other laws. All guests have the same swap.
"""

from typing import Final

from bench.real.harness import Goal, Ratio, Result, spread
from bench.real.job import OBJECT_MIB, Done, run_job
from bench.real.rig import OURS, Bare, Host, host
from host_controller.units import MIB
from tests.lab.controller import Limits
from tests.lab.guest import Guest
from tests.lab.lab import Lab

FILES: Final = 80
TURNS: Final = 3
STARTUP: Final = 512
MAXIMUM: Final = 1536
SWAP: Final = 1024
CAPACITY: Final = 6000
LAWS: Final = ("mom", "proxmox")


def run() -> Result:
    """All of it."""
    columns = (
        "guest",
        "job, s",
        "÷ maximum from the start",
        "stalled (PSI some), s",
        "major faults",
        "swap-ins",
    )
    title = f"Guest impact: a job that grows to {FILES * OBJECT_MIB} MiB"
    result = Result("impact", title, columns)
    limits = Limits(STARTUP, 256, MAXIMUM, growth="balloon")
    with Lab() as lab:
        bare = Bare(lab, "bare", MAXIMUM, swap_mib=SWAP)
        base: list[Done] = []
        ours: list[Done] = []
        with host(lab, OURS, CAPACITY, shrink_after=2, settle=1) as one:
            guest = one.add({"ours": limits}, swap_mib=SWAP)[0]
            run_job(bare.guest, FILES)  # the library's files come into both caches
            run_job(guest, FILES)
            for _ in range(TURNS):
                base.append(run_job(bare.guest, FILES))
                _small(one, guest)
                ours.append(run_job(guest, FILES))
        bare.guest.remove()
        floor = _row(result, "maximum from the start", base, 0.0)
        ratio = _row(result, "dynmem", ours, floor) / floor
        for law in LAWS:
            with host(lab, law, CAPACITY) as one:
                guest = one.add({law: limits}, swap_mib=SWAP)[0]
                _row(result, law, [run_job(guest, FILES)], floor)
                guest.remove()
    result.goals.append(Goal("job, dynmem ÷ maximum from the start,", ratio, 1.05))
    result.ratios["job ÷ maximum from the start"] = Ratio(ratio)
    return result


def _row(result: Result, name: str, done: list[Done], floor: float) -> float:
    """Add a row; the median of the job's seconds."""
    times = spread([one.seconds for one in done])
    result.rows.append(
        (
            name,
            times,
            times.median / (floor or times.median),
            spread([one.stalled_seconds for one in done]),
            spread([one.major_faults for one in done]),
            spread([one.swap_in_pages for one in done]),
        )
    )
    result.series[name] = [one.seconds for one in done]
    return times.median


def _small(one: Host, guest: Guest) -> None:
    """Until it is back at what it started with, or less."""
    one.controller.wait_vm(guest, lambda vm: vm["actual_bytes"] <= STARTUP * MIB, 90, "small again")
    one.controller.wait_at_rest(guest, quiet=1.0)


if __name__ == "__main__":
    print(run().text())
