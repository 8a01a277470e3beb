"""A fixed job in a managed guest that starts at startup, against the same with maximum from the start.

By dynmem and by nobody in turn; then under other laws. All guests have the same swap. What grows by hot add
or virtio-mem is a new guest each time, so that nothing is left of the last turn; others ran the job before.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from bench.real.bare import MEMMAP_ON_MEMORY, Bare
from bench.real.harness import Goal, Ratio, Result, spread, tell
from bench.real.job import OBJECT_MIB, Done, run_job
from bench.real.rig import OURS, Host, host, is_back_at
from host_controller.units import MIB
from lab.controller import Limits
from lab.guest import Guest
from lab.lab import Lab

FILES: Final = 80
TURNS: Final = 3
STARTUP: Final = 512
MAXIMUM: Final = 1536
LIMITS: Final = Limits(STARTUP, STARTUP, MAXIMUM)
"""At rest it would shrink to its minimum; the job is to find it with what it started with."""
SWAP: Final = 1024
SMALL_MIB: Final = 1
"""Of an object, so that the job fits into a new guest: its library's files come into the caches."""
CAPACITY: Final = 6000
LAWS: Final = ("mom", "proxmox")
FLOOR: Final = "maximum from the start"
BALLOON: Final = f"{OURS}, by balloon"
VIRTIO_MEM: Final = f"{OURS}, by virtio-mem"
HOTADD: Final = f"{OURS}, by hot add"
COLUMNS: Final = (
    "guest",
    "job, s",
    "÷ maximum from the start",
    "stalled (PSI some), s",
    "major faults",
    "swap-ins",
    "agent's CPU, s",
    "faults of QEMU's, thousands",
)
GOALS: Final = {VIRTIO_MEM: 1.05, HOTADD: 1.05, BALLOON: 1.08}
DEFLATED: Final = "deflated over QMP at its start"
PLUGGED: Final = "plugged over QMP at its start"
"""What balloon and DIMMs cost by themselves, whoever drives them."""


def run() -> Result:
    """All of it."""
    result = Result("impact", f"Guest impact: a job that grows to {FILES * OBJECT_MIB} MiB", COLUMNS)
    measure(result, LAWS)
    return result


def measure(result: Result, laws: Sequence[str] = (), **spec: Any) -> None:
    """Rows, goals and ratios of the job, under `laws` too. `spec`: what all guests have beside."""
    limits = replace(LIMITS, growth="balloon")
    order = (FLOOR, PLUGGED, VIRTIO_MEM, HOTADD, DEFLATED, BALLOON, *laws)
    done: dict[str, list[Done]] = {name: [] for name in order}
    spec["swap_mib"] = SWAP
    with Lab() as lab, host(lab, OURS, CAPACITY, shrink_after=2, settle=1) as one:
        whole, deflated = (Bare(lab, name, MAXIMUM, **spec) for name in ("whole", "deflated"))
        guest = one.add({"ours": limits}, **spec)[0]
        try:
            whole.guest.wait_booted()
            deflated.guest.wait_booted()
            for each in (whole.guest, deflated.guest, guest):
                run_job(each, FILES)  # the library's files come into the caches
            _small(one, guest)
            for turn in range(TURNS):
                done[FLOOR].append(run_job(whole.guest, FILES))
                done[PLUGGED].append(_plugged(one, turn, **spec))
                done[VIRTIO_MEM].append(_grown(one, turn, "virtio-mem", **spec))
                done[HOTADD].append(_grown(one, turn, "hotadd", **spec))
                done[BALLOON].append(run_job(guest, FILES))
                _small(one, guest)
                deflated.move(STARTUP * MIB)
                deflated.target(MAXIMUM * MIB)
                done[DEFLATED].append(run_job(deflated.guest, FILES))
                told = (f"{name} {each[-1].seconds:.2f}" for name, each in done.items() if each)
                tell(f"{result.name}: {', '.join(told)}")
        finally:
            whole.guest.remove()
            deflated.guest.remove()
        for law in laws:
            one.hand_over(law, STARTUP)
            done[law].append(run_job(guest, FILES))
            tell(f"{result.name}: under {law} {done[law][-1].seconds:.2f}")
    floor = spread([one.seconds for one in done[FLOOR]]).median
    for name, times in done.items():
        _row(result, name, times, floor)
    for name, goal in GOALS.items():
        ratio = spread([one.seconds for one in done[name]]).median / floor
        result.goals.append(Goal(f"job, {name}, ÷ {FLOOR},", ratio, goal))
        result.ratios[f"job, {name}, ÷ {FLOOR}"] = Ratio(ratio)


def _plugged(one: Host, turn: int, **spec: Any) -> Done:
    """The job in a new guest that nobody manages; all is plugged as it starts."""
    bare = Bare(one.lab, f"plugged{turn}", STARTUP, MAXIMUM, **spec)
    try:
        bare.guest.wait_booted()
        run_job(bare.guest, FILES, object_mib=SMALL_MIB)
        bare.plug((MAXIMUM - STARTUP) * MIB)
        return run_job(bare.guest, FILES)
    finally:
        bare.guest.remove()


def _grown(one: Host, turn: int, growth: str, **spec: Any) -> Done:
    """The job in a new guest that grows as dynmem has it grow."""
    limits = replace(LIMITS, growth=growth)
    guest = one.add({f"{growth}{turn}": limits}, kernel_arguments=MEMMAP_ON_MEMORY, **spec)[0]
    run_job(guest, FILES, object_mib=SMALL_MIB)
    one.controller.wait_at_rest(guest, quiet=1.0)
    done = run_job(guest, FILES)
    one.remove(guest)
    return done


def _row(result: Result, name: str, done: list[Done], floor: float) -> None:
    times = spread([one.seconds for one in done])
    result.rows.append(
        (
            name,
            times,
            times.median / floor,
            *(
                spread([getattr(one, what) for one in done])
                for what in ("stalled_seconds", "major_faults", "swap_in_pages", "agent_seconds")
            ),
            spread([one.host_faults / 1000 for one in done]),
        )
    )
    result.series[name] = [one.seconds for one in done]


def _small(one: Host, guest: Guest) -> None:
    """Until it is back at what it started with."""
    one.controller.wait_vm(guest, lambda vm: is_back_at(vm, STARTUP), 90, "small again")
    one.controller.wait_at_rest(guest, quiet=1.0)


if __name__ == "__main__":
    print(run().text())
