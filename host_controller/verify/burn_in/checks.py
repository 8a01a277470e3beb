"""The checks. Each is given a machine with its balloon empty, no DIMM and no virtio-mem, and leaves it so.

What does not come true raises CheckFailed.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from host_controller.errors import DynmemError
from host_controller.records.burn_in import Verdict
from host_controller.verify.burn_in.machine import MIB, CheckFailed, Machine, until

BOOT_LIMIT: Final = 120.0
AGENT_LIMIT: Final = 30.0
BALLOON_LIMIT: Final = 30.0
MEMORY_LIMIT: Final = 15.0
ASK_AGAIN_SECONDS: Final = 4.0
SQUEEZE_MIB: Final = 128
"""What the balloon takes; the guest has about twice as much that it does not use."""
HONEST_SHARE: Final = 0.5
"""Of what a balloon claims the host must see so much come back: a few pages were never touched."""
UNTOUCHED_MIB: Final = 32
"""What the guest keeps available while all else is touched."""
NEAR_BYTES: Final = 4 * MIB
DIMM_CYCLES: Final = 20
DIMM_STAGES: Final = ("hot add", "online", "offline", "unplug")
VIRTIO_MEM_CYCLES: Final = 100
VIRTIO_MEM_STEP: Final = 2 * MIB


def boot(machine: Machine) -> Iterator[Verdict]:
    """It comes up."""
    begun = machine.clock()
    machine.boot()
    yield _passed("boot", "the guest answers", machine.clock() - begun, "s")


def agent(machine: Machine) -> Iterator[Verdict]:
    """Its agent says hello, reports, and takes the zone of new memory."""
    begun = machine.clock()
    if not machine.hears_agent(AGENT_LIMIT):
        raise CheckFailed(f"no agent reported and took the zone within {AGENT_LIMIT:g} s")
    yield _passed("agent", "reports", machine.clock() - begun, "s")


def balloon(machine: Machine) -> Iterator[Verdict]:
    """It inflates and deflates, and what it claims to give comes back to the host."""
    _touch_all(machine)
    touched = machine.resident()
    taken = SQUEEZE_MIB * MIB
    begun = machine.clock()
    _squeeze(machine, _full(machine) - taken)
    seconds = max(machine.clock() - begun, 1e-3)
    yield _passed("inflate", f"{SQUEEZE_MIB} MiB taken", SQUEEZE_MIB / seconds, "MiB/s")
    given = touched - machine.resident()
    if given < HONEST_SHARE * taken:
        raise CheckFailed(
            f"the balloon claims {SQUEEZE_MIB} MiB and the host has {max(0, given) // MIB} MiB of them back"
        )
    yield _passed("balloon frees", "what it claims came back to the host", given / MIB, "MiB")
    begun = machine.clock()
    _squeeze(machine, _full(machine))
    seconds = max(machine.clock() - begun, 1e-3)
    yield _passed("deflate", f"{SQUEEZE_MIB} MiB given back", SQUEEZE_MIB / seconds, "MiB/s")


def dimms(machine: Machine, cycles: int = DIMM_CYCLES) -> Iterator[Verdict]:
    """DIMMs come in, online, offline and out, again and again."""
    took: dict[str, list[float]] = {stage: [] for stage in DIMM_STAGES}
    try:
        for cycle in range(1, cycles + 1):
            _dimm_cycle(machine, took, f"cycle {cycle}: ")
    finally:
        # Also where a later stage fails: what came before it works.
        for stage in DIMM_STAGES:
            if len(took[stage]) == len(took["hot add"]) > 0:
                yield _passed(stage, f"the slowest of {len(took[stage])}", max(took[stage]), "s")


def _dimm_cycle(machine: Machine, took: dict[str, list[float]], where: str) -> None:
    # Of a block some MiB are its own memmap.
    enough = machine.inside().total_bytes + machine.block_bytes * 3 // 4
    begun = machine.clock()
    alias = machine.plug()
    took["hot add"].append(machine.clock() - begun)
    online = f"{where}the DIMM's memory online in the guest"
    took["online"].append(
        until(machine, lambda: machine.inside().total_bytes >= enough, MEMORY_LIMIT, online)
    )
    begun = machine.clock()
    if not machine.offline(alias):
        raise CheckFailed(f"{where}the guest did not take the DIMM offline")
    took["offline"].append(machine.clock() - begun)
    begun = machine.clock()
    _unplugged(machine, alias, where)
    took["unplug"].append(machine.clock() - begun)


def virtio_mem(machine: Machine, cycles: int = VIRTIO_MEM_CYCLES) -> Iterator[Verdict]:
    """Virtio-mem follows what is asked of it, block by block, up and down."""
    slowest = 0.0
    for cycle in range(1, cycles + 1):
        # Never none: then the guest would make and unmake a whole memory block every time.
        wanted = VIRTIO_MEM_STEP if cycle % 2 == 0 else VIRTIO_MEM_STEP * (2 + cycle % 5)
        machine.resize(wanted)
        slowest = max(slowest, _resized(machine, wanted, f"cycle {cycle}: "))
    machine.resize(0)
    _resized(machine, 0, "")
    yield _passed("virtio-mem", f"the slowest of {cycles} steps", slowest, "s")


def resets(machine: Machine) -> Iterator[Verdict]:
    """A reset in each state: afterwards the guest boots, and its balloon obeys."""
    for state in ("squeezed", "with a DIMM", "with virtio-mem"):
        begun = machine.clock()
        if state == "squeezed":
            _squeeze(machine, _full(machine) - SQUEEZE_MIB * MIB)
        elif state == "with a DIMM":
            machine.plug()
        else:
            machine.resize(8 * VIRTIO_MEM_STEP)
            _resized(machine, 8 * VIRTIO_MEM_STEP, "")
        # As the controller does: the new driver would obey the old target.
        machine.set_balloon(_full(machine))
        machine.reset()
        if not machine.hears_agent(AGENT_LIMIT):
            raise CheckFailed(f"reset {state}: no agent afterwards")
        for alias in machine.dimms():  # still offline: nothing of it is in use
            _unplugged(machine, alias, f"reset {state}: ")
        machine.resize(0)
        _resized(machine, 0, f"reset {state}: ")
        _squeeze(machine, _full(machine) - 32 * MIB)
        _squeeze(machine, _full(machine))
        yield _passed(f"reset {state}", "boots, and its balloon obeys", machine.clock() - begun, "s")


def shrinking(machine: Machine) -> Iterator[Verdict]:
    """A program allocates while its guest shrinks: both go on, and nothing is killed."""
    room = machine.inside()
    mib = min(96, room.available_bytes // MIB // 3)
    machine.begin_allocation(mib, rate=mib / 2)
    target = _full(machine)
    for _ in range(4):
        target -= mib * MIB // 4
        machine.set_balloon(target)
        machine.wait(0.3)
    survived = machine.allocation_survives(BALLOON_LIMIT)
    _squeeze(machine, _full(machine))
    killed = machine.inside().oom_kills - room.oom_kills
    if not survived or killed:
        raise CheckFailed(f"while the guest shrank by {mib} MiB a program died ({killed} kills)")
    yield _passed("allocation while shrinking", "both went on", mib, "MiB")


def unbound(machine: Machine) -> Iterator[Verdict]:
    """Guest root takes the balloon's driver away: the host must see what that takes."""
    _squeeze(machine, _full(machine) - SQUEEZE_MIB * MIB)
    machine.unbind_balloon()
    returned = until(
        machine,
        lambda: machine.actual() >= _full(machine) - NEAR_BYTES,
        BALLOON_LIMIT,
        "`actual` of no driver",
    )
    machine.bind_balloon()
    _squeeze(machine, _full(machine) - 32 * MIB)
    _squeeze(machine, _full(machine))
    yield _passed("unbound driver", "`actual` shows it, and the driver obeys when it is back", returned, "s")


def forged(machine: Machine) -> Iterator[Verdict]:
    """Guest root claims to have given memory: the host's own count must tell."""
    _touch_all(machine)
    before = machine.resident()
    machine.forge_actual(SQUEEZE_MIB)
    until(
        machine,
        lambda: machine.actual() <= _full(machine) - SQUEEZE_MIB * MIB + NEAR_BYTES,
        BALLOON_LIMIT,
        "the forged figure in `actual`",
    )
    given = before - machine.resident()
    if given >= HONEST_SHARE * SQUEEZE_MIB * MIB:
        raise CheckFailed("nothing was given, and the host's count of the guest's memory fell all the same")
    _squeeze(machine, _full(machine) - 32 * MIB)
    _squeeze(machine, _full(machine))
    yield _passed(
        "forged actual", "the host's own count tells, and the driver sets it right", given / MIB, "MiB"
    )


def settle(machine: Machine) -> None:
    """After a check that failed: leave as little of it as can be, for those that come."""
    for alias in machine.dimms():
        with suppress(CheckFailed):
            _unplugged(machine, alias, "")
    machine.resize(0)
    machine.bind_balloon()
    until(
        machine,
        lambda: not machine.dimms() and not machine.virtio_mem(),
        MEMORY_LIMIT,
        "what was plugged out",
    )
    _squeeze(machine, _full(machine))


def _unplugged(machine: Machine, alias: str, where: str) -> None:
    """A guest whose kernel has just come up may not hear the first request."""
    until_when = machine.clock() + MEMORY_LIMIT
    while alias in machine.dimms():
        if machine.clock() > until_when:
            raise CheckFailed(f"{where}the DIMM out of the guest: not within {MEMORY_LIMIT:g} s")
        with suppress(DynmemError):  # QEMU may still hold the last request
            machine.unplug(alias)
        with suppress(CheckFailed):
            until(machine, lambda: alias not in machine.dimms(), ASK_AGAIN_SECONDS, "")


def _full(machine: Machine) -> int:
    """All of its RAM in the balloon's terms: DIMMs that do not leave count."""
    return machine.ram_bytes + len(machine.dimms()) * machine.block_bytes


def _touch_all(machine: Machine) -> None:
    machine.touch(machine.inside().available_bytes // MIB - UNTOUCHED_MIB)


def _squeeze(machine: Machine, target: int) -> None:
    machine.set_balloon(target)
    until(
        machine,
        lambda: abs(machine.actual() - target) <= NEAR_BYTES,
        BALLOON_LIMIT,
        f"the balloon at {target // MIB} MiB (it is at {machine.actual() // MIB} MiB)",
    )


def _resized(machine: Machine, wanted: int, where: str) -> float:
    return until(
        machine,
        lambda: machine.virtio_mem() == wanted,
        MEMORY_LIMIT,
        f"{where}virtio-mem at {wanted // MIB} MiB (it is at {machine.virtio_mem() // MIB} MiB)",
    )


def _passed(check: str, said: str, figure: float, unit: str) -> Verdict:
    return Verdict(check, "passed", said, round(figure, 3), unit)
