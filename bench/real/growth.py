"""From 1 GiB to a maximum of 16 GiB in guests that allocate as fast as they can, by virtio-mem and by DIMMs.

Each turn is a new guest with a little swap. A program in it takes nearly all of maximum at once, and is
killed if memory does not come. Under KVM guests allocate ten times as fast: tests/simulated/test_slots.py has
those.
"""

from dataclasses import dataclass
from typing import Final

from bench.real.bare import MEMMAP_ON_MEMORY
from bench.real.harness import Goal, Result, spread, tell
from bench.real.rig import OURS, Host, finish_allocation, host, start_allocation
from host_controller.units import MIB
from lab.controller import Limits
from lab.lab import Lab

STARTUP: Final = 1024
MAXIMUM: Final = 16384
SWAP: Final = 256
"""MiB, as are the others."""
LEFT: Final = MAXIMUM // 16
"""For the guest's kernel: page structures (1/64), and what it does not give to programs."""
TURNS: Final = 5
LIMIT: Final = 900.0
CAPACITY: Final = MAXIMUM + 1536
WAYS: Final = {"virtio-mem": "", "hotadd": MEMMAP_ON_MEMORY}
"""Kernel arguments that each way wants."""
SLOTS: Final = 16
ENOUGH_BYTES: Final = MAXIMUM * MIB * 127 // 128
"""A dead band of 1/128 may be left where a guest lacks nothing."""


def run() -> Result:
    """All of it."""
    columns = (
        "way to grow",
        "reached maximum",
        "killed",
        "slots used",
        "MiB allocated",
        "s",
        "pages swapped",
    )
    result = Result("growth", f"From {STARTUP} MiB to {MAXIMUM // 1024} GiB as fast as it goes", columns)
    with Lab() as lab, host(lab, OURS, CAPACITY) as one:
        for way, arguments in WAYS.items():
            turns = [_turn(one, way, arguments, turn) for turn in range(TURNS)]
            there = sum(turn.there for turn in turns)
            killed = sum(turn.seconds is None for turn in turns)
            took = [turn.seconds for turn in turns if turn.seconds is not None]
            slots = max(turn.slots for turn in turns)
            swapped = spread([turn.swapped_pages for turn in turns])
            result.rows.append(
                (
                    way,
                    f"{there} of {TURNS}",
                    str(killed),
                    str(slots) if way == "hotadd" else "none",
                    spread([turn.allocated_mib for turn in turns]),
                    spread(took) if took else "none was done",
                    swapped,
                )
            )
            result.goals.append(Goal(f"{way}: guests that reached maximum", there, TURNS, least=True))
            result.goals.append(Goal(f"{way}: killed", killed, 0))
            if way == "hotadd":
                result.goals.append(Goal("slots used", slots, SLOTS))
    return result


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one guest came to."""

    there: bool
    seconds: float | None
    """None: it was killed."""
    allocated_mib: int
    slots: int
    swapped_pages: int


def _turn(one: Host, way: str, arguments: str, number: int) -> _Turn:
    limits = Limits(STARTUP, STARTUP, MAXIMUM, growth=way)
    (guest,) = one.add({f"{way}{number}": limits}, swap_mib=SWAP, kernel_arguments=arguments)
    one.controller.wait_at_rest(guest, quiet=1.0)
    try:
        done = finish_allocation(guest, start_allocation(guest, MAXIMUM - LEFT), LIMIT)
        if done.done is not None:
            one.controller.wait_at_rest(guest, quiet=2.0)
        memory = guest.workload.memory()
        with guest.qmp() as qmp:
            devices = qmp.execute("query-memory-devices")
            given = int(qmp.execute("query-balloon")["actual"])
    finally:
        one.remove(guest)
    # The balloon's figure counts DIMMs, and not virtio-mem.
    given += sum(int(device["data"]["size"]) for device in devices if device["type"] == "virtio-mem")
    turn = _Turn(
        there=done.done is not None and given >= ENOUGH_BYTES,
        seconds=None if done.done is None else done.seconds,
        allocated_mib=done.mib,
        slots=sum(device["type"] == "dimm" for device in devices),
        swapped_pages=memory.vmstat["pswpout"],
    )
    tell(f"{guest.name}: {turn}; given {given // MIB} MiB, {memory.vmstat['oom_kill']} killed")
    return turn
