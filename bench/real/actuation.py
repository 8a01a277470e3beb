"""How fast the controller moves balloons, against bare QMP; one guest's memory to another; and taking back.

Inflate and deflate: another buffer makes a guest want its minimum or its maximum, and the time is from
the first command to QEMU's own word that the balloon is there. Bare: one `balloon` command over as much, in
turn, in the same guest, whose agent then has no host. Moving: one guest lets 512 MiB go that another has
been waiting for.
"""

import time
from collections.abc import Callable
from typing import Final

from bench.real.bare import move, wait_actual
from bench.real.harness import Goal, Ratio, Result, spread, tell
from bench.real.rig import OURS, Host, finish_allocation, host, start_allocation
from host_controller.units import GIB, MIB
from host_controller.verify.smaps import read_smaps
from lab.controller import Limits
from lab.errors import LabError
from lab.guest import Guest
from lab.lab import Lab

RAM: Final = 2048
LOW: Final = 640
TURNS: Final = 3
MOVED: Final = 512
CAPACITY: Final = 2 * RAM + 1000
WANTS_ALL: Final = 2000
"""A buffer of so many percent makes a guest want whatever its maximum lets it have."""
WANTS_LEAST: Final = 5
ROOM: Final = 24
"""MiB that the taker has beyond its minimum while it waits."""
SHORT: Final = 700
"""MiB above one guest's RAM that both guests have together, so that one waits for the other."""
LIMIT: Final = 60.0
REPORTED_SECONDS: Final = 5.0
"""A guest reports its free pages 2 s after they became free (fact: free-page-reporting), and is busy with
that."""
SECONDS_APART: Final = 0.02
FREED: Final = 600
TAKEN_BACK: Final = 0.9


def run() -> Result:
    """All of it."""
    result = Result("actuation", "Moving memory", ("what", "ours", "bare QMP", "ours ÷ bare"))
    with Lab() as lab:
        rates = _rates(lab, result)
        _moving(lab, result, *rates)
        _reclaim(lab, result)
    return result


def _rates(lab: Lab, result: Result) -> tuple[float, float]:
    """Inflate and deflate, ours and bare in turn. Bare seconds per byte of each."""
    sizes = {"inflate": LOW, "deflate": RAM}
    ours: dict[str, list[float]] = {name: [] for name in sizes}
    bare: dict[str, list[float]] = {name: [] for name in sizes}
    moved = (RAM - LOW) * MIB
    with host(lab, OURS, CAPACITY, shrink_after=0, settle=0) as one:
        limits = Limits(LOW, LOW, RAM, buffer=WANTS_ALL, growth="balloon")
        guest = one.add({"mover": limits})[0]
        wait_actual(guest, RAM * MIB)
        one.controller.wait_at_rest(guest, quiet=2.0)
        for _ in range(TURNS):
            time.sleep(REPORTED_SECONDS)
            for name, size in sizes.items():
                ours[name].append(moved / GIB / _want(one, guest, size))
            one.controller.stop()
            time.sleep(REPORTED_SECONDS)
            for name, size in sizes.items():
                bare[name].append(moved / GIB / move(guest, size * MIB))
            one.start()
    for name in sizes:
        tell(f"actuation: {name} {spread(ours[name])} GiB/s, bare {spread(bare[name])} GiB/s")
        ratio = spread(ours[name]).median / spread(bare[name]).median
        result.rows.append((f"{name}, GiB/s", spread(ours[name]), spread(bare[name]), ratio))
        result.goals.append(Goal(f"{name} ÷ bare QMP", ratio, 0.95, least=True))
        result.ratios[f"{name} ÷ bare"] = Ratio(ratio, high_is_good=True)
    inflate, deflate = (1 / GIB / spread(bare[name]).median for name in sizes)
    return inflate, deflate


def _want(one: Host, guest: Guest, mib: int) -> float:
    """Seconds from the first command to the balloon's being there."""
    since = time.monotonic()
    one.set(guest, buffer_percent=WANTS_ALL if mib == RAM else WANTS_LEAST)
    there = wait_actual(guest, mib * MIB)
    return there - one.first_command(guest, since)


def _moving(lab: Lab, result: Result, inflate: float, deflate: float) -> None:
    """512 MiB from one guest that wants them no longer to another that has been waiting for them."""
    found = []
    low, high = RAM - MOVED, RAM
    with host(lab, OURS, CAPACITY, shrink_after=0, settle=0, keep_ready=0) as one:
        limits = Limits(low, low, high, buffer=WANTS_ALL, growth="balloon")
        taker, donor = one.add({"a": limits, "b": limits})
        one.controller.wait_at_rest(taker, donor, quiet=2.0)
        vms = [one.controller.vm(guest) for guest in (taker, donor)]
        beside = sum(vm["charge_bytes"] - vm["actual_bytes"] for vm in vms)
        one.set_capacity(low + high + beside // MIB + ROOM)
        for _ in range(TURNS):
            taker, donor = donor, taker
            one.set(donor, weight=10000, buffer_percent=WANTS_ALL)
            one.set(taker, weight=1, buffer_percent=WANTS_ALL)
            wait_actual(donor, high * MIB)
            wait_actual(taker, (low + ROOM) * MIB)
            one.controller.wait_at_rest(taker, donor, quiet=2.0)
            since = time.monotonic()
            one.set(donor, buffer_percent=WANTS_LEAST)
            there = wait_actual(taker, high * MIB)
            found.append((there - one.first_command(donor, since)) / (MOVED * MIB * (inflate + deflate)))
    told = spread(found)
    tell(f"actuation: moving took {told} of bare inflate + bare deflate")
    result.rows.append((f"{MOVED} MiB moved, in bare inflate + bare deflate", told, "", told.median))
    result.goals.append(Goal(f"moving {MOVED} MiB ÷ (bare inflate + bare deflate)", told.median, 1.15))
    result.ratios["moving ÷ bare"] = Ratio(told.median)


def _reclaim(lab: Lab, result: Result) -> None:
    """A guest frees what another waits for: when the host has it, by entitlement and by QEMU's memory."""
    waits: dict[str, list[float]] = {"entitlement": [], "QEMU's memory": []}
    with host(lab, OURS, RAM + SHORT, settle=0, keep_ready=0) as one:
        giver = Limits(512, 256, RAM, growth="balloon")
        # At its maximum it would want no more, and the rest be taken back at leisure.
        taker = Limits(512, 256, RAM + FREED, buffer=WANTS_ALL, weight=1, growth="balloon")
        guest, _ = one.add({"giver": giver, "taker": taker})
        for _ in range(TURNS):
            # Whether it lives is not what is measured: without swap, on a busy machine, a greedy one may not.
            finish_allocation(guest, start_allocation(guest, FREED, greedy=False), LIMIT)
            one.controller.wait_at_rest(guest, quiet=2.0)
            for name, seconds in _freed(guest).items():
                waits[name].append(seconds)
    for name, values in waits.items():
        what = f"{FREED} MiB freed while another waits → 90 % back, by {name}, s"
        result.rows.append((what, spread(values), "", ""))
        result.series[f"reclaim by {name}"] = values
        tell(f"actuation: {what} {spread(values)}")


def _freed(guest: Guest) -> dict[str, float]:
    """Seconds from the end of the program to the host's having its memory, by both accounts."""
    pid = guest.qemu_pid()
    with guest.qmp() as qmp:
        looks: dict[str, Callable[[], int]] = {
            "entitlement": lambda: int(qmp.execute("query-balloon")["actual"]),
            "QEMU's memory": lambda: read_smaps(pid).resident_bytes,
        }
        wanted = {name: look() - TAKEN_BACK * FREED * MIB for name, look in looks.items()}
        guest.workload.free()
        at = time.monotonic()
        found: dict[str, float] = {}
        while len(found) < len(looks):
            for name, look in looks.items():
                if name not in found and look() <= wanted[name]:
                    found[name] = time.monotonic() - at
            if time.monotonic() > at + LIMIT:
                raise LabError(f"only {sorted(found)} came back in {LIMIT:g} s")
            time.sleep(SECONDS_APART)
    return found


if __name__ == "__main__":
    print(run().text())
