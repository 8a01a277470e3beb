"""The demo's story: what happens, and what must be seen of it by the observer. Sizes in MiB.

The figures, worked out before the run: an idle lab guest of 512 MiB uses 150, its kernel's own memory and
watermarks included (facts 22). Need is demand + 16 (the margin), desired is 1.2 × demand + the same.
`burst` with 700 more wants 1,036, so its maximum of 1,024; `important` with 400 more needs 566 and wants 676.
QEMU takes up to 128 beside each guest.

    all idle                    3 × 196 + 3 × 128                                 =   972
    burst at its maximum        2 × 196 + 1,024 + 3 × 128 + next DIMM 128 + 32    = 1,960   within 2,300
    important has allocated     196 + 1,024 + 676 + 3 × 128 + 128 + 32            = 2,440   above it, so
    something must give; needs  166 + 866 + 566 + 3 × 128 + 128 + 32              = 2,142   within it

(32 are kept ready.) So the buffers contend over 2,300 - 2,142 = 158, and of these the weight of 300 takes
what it wants first (676 - 566 = 110): burst must come down by at least 64, to which nothing but contention
brings it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from host_controller.units import MIB
from host_controller.verify.observer import Observer, Sample
from lab.controller import Controller, Limits
from lab.guest import Guest

CAPACITY, KEEP_READY = 2300, 32
BLOCK = 128
CAST = {
    "idle": Limits(startup=512, minimum=160, maximum=1024, weight=100),
    "burst": Limits(startup=512, minimum=160, maximum=1024, weight=100),
    "important": Limits(startup=512, minimum=160, maximum=1024, weight=300),
}
BURST_ALLOCATES, IMPORTANT_ALLOCATES, RATE = 700, 400, 60
KERNEL = 140  # at most so much of RAM is not in MemTotal: 108 of 512 (facts 22), 1/64 of the rest, some slack


@dataclass(frozen=True, slots=True)
class Seen:
    """A step of the story that happened."""

    title: str
    text: str
    seconds: float


@dataclass(slots=True)
class Stage:
    """What the story is played on."""

    guests: dict[str, Guest]
    controller: Controller
    observer: Observer

    def watch(self, predicate: Callable[[Sample], bool], limit: float, what: str) -> Sample:
        """Wait until the observer has seen it."""
        return self.observer.wait_for(predicate, limit, what)

    def wanted(self, name: str) -> int:
        """What the policy says that a guest should have, MiB."""
        return int(self.controller.vm(self.guests[name])["desired_bytes"]) // MIB

    def mem_total(self, name: str) -> int:
        """MemTotal inside, MiB."""
        return self.guests[name].workload.memory().total_bytes // MIB


def actual(sample: Sample, name: str) -> int:
    """What a guest has by its balloon, MiB."""
    return sample.guests[name].actual // MIB


def play(stage: Stage) -> Iterator[Seen]:
    """The steps, each when it has been seen. Raises LabError for the first that does not come."""
    for step in (squeeze, deflate, plug, yield_to_weight, give_back):
        started = time.monotonic()
        title = (step.__doc__ or "").partition("\n")[0]
        yield Seen(title, step(stage), time.monotonic() - started)


def squeeze(stage: Stage) -> str:
    """Idle guests are squeezed from startup to what the policy says they need."""
    sample = stage.watch(
        lambda sample: all(
            actual(sample, name) < CAST[name].startup - BLOCK
            and abs(actual(sample, name) - stage.wanted(name)) <= BLOCK
            for name in CAST
        ),
        60,
        "every idle guest within one memory block of what the policy says",
    )
    said = ", ".join(f"{name} 512 → {actual(sample, name)} (policy: {stage.wanted(name)})" for name in CAST)
    return f"{said} MiB"


def deflate(stage: Stage) -> str:
    """A guest that allocates grows first by deflating its balloon."""
    stage.guests["burst"].workload.allocate(BURST_ALLOCATES, rate=RATE)
    sample = stage.watch(
        lambda sample: actual(sample, "burst") >= 512, 30, "burst's balloon empty, at its startup of 512 MiB"
    )
    by_balloon = [
        one
        for one in (sample.guests["burst"] for sample in stage.observer.samples if "burst" in sample.guests)
        if one.actual > 300 * MIB and not one.dimms
    ]
    if not by_balloon:
        raise AssertionError("burst had a DIMM before its balloon was deflated")
    return f"burst has {actual(sample, 'burst')} MiB, and grew before it had a DIMM"


def plug(stage: Stage) -> str:
    """Past startup it grows by hot-added DIMMs, up to its maximum, seen as MemTotal inside."""
    stage.guests["burst"].workload.wait_event("done", "memory", 60)
    sample = stage.watch(
        lambda sample: sample.guests["burst"].ram == CAST["burst"].maximum * MIB,
        30,
        "burst with all of its maximum as RAM",
    )
    total = stage.mem_total("burst")
    if total < CAST["burst"].maximum - KERNEL:
        raise AssertionError(
            f"MemTotal in burst is {total} MiB; {CAST['burst'].maximum - KERNEL} were expected"
        )
    return f"burst has {sample.guests['burst'].dimms // MIB} MiB of DIMMs online, MemTotal inside {total} MiB"


def yield_to_weight(stage: Stage) -> str:
    """A guest of a higher weight allocates, and memory moves to it from the other."""
    before = actual(stage.observer.latest(), "burst")
    stage.guests["important"].workload.allocate(IMPORTANT_ALLOCATES, rate=RATE)
    stage.guests["important"].workload.wait_event("done", "memory", 60)
    sample = stage.watch(
        lambda sample: actual(sample, "burst") <= before - 64 and actual(sample, "important") >= 600,
        45,
        f"burst down by 64 MiB from {before}, important at 600 MiB or more",
    )
    return f"burst {before} → {actual(sample, 'burst')} MiB, important {actual(sample, 'important')} MiB"


def give_back(stage: Stage) -> str:
    """The first guest frees its memory, and gets smaller again."""
    stage.guests["burst"].workload.free()
    sample = stage.watch(
        lambda sample: actual(sample, "burst") <= 198 + BLOCK, 60, "burst within a block of where it began"
    )
    return f"burst is back at {actual(sample, 'burst')} MiB"
