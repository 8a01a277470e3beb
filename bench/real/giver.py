"""What it costs a guest that works to give a GiB: its job's time, stalls, refaults and faults of disk.

A guest has all of its maximum and has used all of it. A program builds, and another one reads a file over
and over, when what they do not need is taken at once, down to minimum: by virtio-mem and by balloon, by
dynmem and over bare QMP. Beside them the same job while nobody takes anything. What leaves is free for the
most part; it is for the guest's kernel to say whose pages it moves or drops for the rest.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from bench.real.harness import Ratio, Result, spread, tell
from bench.real.job import Done, run_job
from bench.real.memory import LOW, MOVED, QUEUES, WANTS_ALL, Mover
from bench.real.rig import OURS, host
from host_controller.units import MIB
from lab.controller import Limits
from lab.lab import Lab

TURNS: Final = 2
FILES: Final = 25
BUILDS: Final = 6
"""Long enough to be under way until all has been taken."""
READ_MIB: Final = 96
READ_RATE: Final = 32.0
"""With the job and its kernel it fits into LOW: what is dropped of it was dropped for nothing."""
SWAP: Final = 256
KEPT_BYTES: Final = 64 * MIB
"""What leaves in parts of a memory block looks like demand for a moment, so dynmem lets a guest that works
keep some."""
STARTS_AFTER_SECONDS: Final = 1.0
LIMIT: Final = 120.0
NOBODY: Final = "nobody takes"
COLUMNS: Final = (
    "who takes a GiB",
    "job, s",
    "÷ nobody",
    "stalled (PSI some), s",
    "refaults, pages",
    "major faults",
    "swapped out, pages",
    "taken, s",
)


def run() -> Result:
    """All of it."""
    result = Result("giver", f"What it costs a guest that works to give {MOVED} MiB", COLUMNS)
    with Lab() as lab:
        for device in QUEUES:
            _device(lab, result, device)
    return result


def _device(lab: Lab, result: Result, device: str) -> None:
    done: dict[str, list[Done]] = {name: [] for name in (NOBODY, OURS, "bare QMP")}
    took: dict[str, list[float]] = {OURS: [], "bare QMP": []}
    with _movers(lab, device) as movers:
        for name, mover in movers:
            for _ in range(TURNS):
                if name == OURS:
                    done[NOBODY].append(_job(mover))
                with ThreadPoolExecutor(1) as pool:
                    job = pool.submit(_job, mover)
                    time.sleep(STARTS_AFTER_SECONDS)
                    took[name].append(mover.move(0))
                    done[name].append(job.result())
                mover.move(MOVED * MIB)
                tell(f"giver: {device}, {name}: {done[name][-1]}")
    alone = spread([one.seconds for one in done[NOBODY]]).median
    for name, jobs in done.items():
        seconds = spread([one.seconds for one in jobs])
        result.rows.append(
            (
                f"{name}, {device}",
                seconds,
                seconds.median / alone,
                *(
                    spread([getattr(one, what) for one in jobs])
                    for what in ("stalled_seconds", "refault_pages", "major_faults", "swap_out_pages")
                ),
                spread(took[name]) if name in took else "",
            )
        )
    ours, bare = (spread([one.seconds for one in done[name]]).median for name in (OURS, "bare QMP"))
    result.ratios[f"job while {device} is taken, ours ÷ bare QMP"] = Ratio(ours / bare)


def _job(mover: Mover) -> Done:
    return run_job(mover.guest, FILES, BUILDS)


@contextmanager
def _movers(lab: Lab, device: str) -> Iterator[Iterator[tuple[str, Mover]]]:
    """A guest that has used all of its maximum and reads its file; moved by dynmem, and then by hand."""
    limits = Limits(LOW, LOW, LOW + MOVED, buffer=WANTS_ALL, growth=device)
    with host(lab, OURS, 2 * (LOW + MOVED), shrink_after=0, settle=0) as one:
        (guest,) = one.add({"giver": limits}, swap_mib=SWAP)
        ours = Mover(one, guest, device, ours=True, near_bytes=KEPT_BYTES)
        ours.wait(MOVED * MIB)
        ours.use()
        guest.workload.thrash(READ_MIB, READ_RATE)
        guest.workload.wait_event("progress", "thrash", LIMIT)
        run_job(guest, FILES)  # its library's files come into the caches
        one.controller.wait_at_rest(guest, quiet=2.0)

        def in_turn() -> Iterator[tuple[str, Mover]]:
            yield OURS, ours
            one.controller.stop()
            yield "bare QMP", Mover(one, guest, device, ours=False, near_bytes=KEPT_BYTES)

        yield in_turn()


if __name__ == "__main__":
    print(run().text())
