"""Random hosts for the duel, and what changes them a little or makes them simpler.

A host is the tables of a file for `dynmem simulate`, but for its capacity. That is kept as a share of the
mean sum of what its VMs need: a host that loses a VM is as tight as before.
"""

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.cells import mean_need
from host_controller.simulator.trial_file import Trial, parse
from host_controller.units import MIB

Table = dict[str, Any]

WARM_UP_SECONDS: Final = 60
SECONDS: Final = 180
LONGEST_VMS: Final = 5
KINDS: Final = ("steady", "ramp", "burst", "sine", "saw", "square")
PERIODS: Final = (2, 5, 10, 20, 30, 45, 60, 90, 120)
STEP_MIB: Final = 64


@dataclass(frozen=True, slots=True)
class Host:
    """One that can be played. vms: their tables."""

    share: float
    vms: tuple[Table, ...]
    seconds: int = SECONDS
    """Measured, after the warm-up."""

    def tables(self) -> Table:
        """As a file has them."""
        duration = WARM_UP_SECONDS + self.seconds
        host: Table = {"capacity": "1GiB", "duration": duration, "warm_up": WARM_UP_SECONDS}
        whole = {"host": host, "vm": list(self.vms)}
        host["capacity"] = f"{int(self.share * mean_need(parse(whole, 'host', Path())) / MIB)}MiB"
        return whole

    def trial(self) -> Trial:
        """To be played."""
        return parse(self.tables(), "host", Path())


def random_host(rng: random.Random) -> Host:
    """Two to five VMs whose demands move by up to GiB within seconds; a host from too small to roomy."""
    growth = rng.choice(("balloon", "balloon", "hotadd", "virtio-mem"))
    alike = rng.random() < 0.5
    count = rng.randint(2, LONGEST_VMS)
    first = _random_demand(rng, 0.0)
    vms = []
    for i in range(count):
        demand = _shifted(first, i / count) if alike else _random_demand(rng, rng.random())
        vms.append(_vm(rng, f"vm{i}", growth, demand))
    return Host(round(rng.uniform(0.85, 1.4), 2), tuple(vms))


def mutated(rng: random.Random, host: Host) -> Host:
    """Something about it is another."""
    vms = [copy.deepcopy(vm) for vm in host.vms]
    vm = rng.choice(vms)
    choice = rng.randrange(7)
    if choice == 0:
        return Host(round(min(1.6, max(0.8, host.share * rng.uniform(0.9, 1.1))), 2), host.vms, host.seconds)
    if choice == 1 and len(vms) < LONGEST_VMS:
        more = copy.deepcopy(vm)
        more["name"] = f"vm{max(int(one['name'][2:]) for one in vms) + 1}"
        more["demand"] = _shifted(vm["demand"], rng.random())
        vms.append(more)
    elif choice == 2:
        vm["demand"] = _random_demand(rng, rng.random())
    elif choice == 3:
        vm["weight"] = rng.choice((1, 10, 100, 1000))
    elif choice == 4:
        vm["buffer"] = rng.choice((5, 20, 50, 100))
    else:
        _nudge(rng, vm["demand"])
    vm["maximum"] = f"{_maximum(vm['demand'])}MiB"
    return Host(host.share, tuple(vms), host.seconds)


def simpler(host: Host) -> Iterator[Host]:
    """The same with something left out or made plain, the largest simplifications first."""
    for i in range(len(host.vms)):
        if len(host.vms) > 1:
            yield Host(host.share, host.vms[:i] + host.vms[i + 1 :], host.seconds)
    if host.seconds > 90:
        yield Host(host.share, host.vms, 90)
    for key in ("weight", "buffer", "swap", "start"):
        if any(key in vm for vm in host.vms):
            plain = tuple({name: value for name, value in vm.items() if name != key} for vm in host.vms)
            yield Host(host.share, plain, host.seconds)
    if any(vm["growth"] != "balloon" for vm in host.vms):
        yield Host(host.share, tuple(vm | {"growth": "balloon"} for vm in host.vms), host.seconds)
    for i, vm in enumerate(host.vms):
        levels = [size for key in ("level", "low", "high", "base", "peak") if (size := vm["demand"].get(key))]
        if vm["demand"]["kind"] != "steady":
            flat = {"kind": "steady", "level": levels[0]}
            yield _with(host, i, vm | {"demand": flat})
        elif vm["demand"].get("noise"):
            yield _with(host, i, vm | {"demand": {"kind": "steady", "level": levels[0]}})
    if host.share != (rounded := round(host.share, 1)):
        yield Host(rounded, host.vms, host.seconds)


def _with(host: Host, i: int, vm: Table) -> Host:
    return Host(host.share, (*host.vms[:i], vm, *host.vms[i + 1 :]), host.seconds)


def _vm(rng: random.Random, name: str, growth: str, demand: Table) -> Table:
    maximum = f"{_maximum(demand)}MiB"
    vm: Table = {"name": name, "growth": growth, "startup": "1GiB", "minimum": "512MiB", "maximum": maximum}
    vm |= {"overhead": 0, "boot": 2, "demand": demand}
    if rng.random() < 0.2:
        vm["weight"] = rng.choice((1, 10, 1000))
    if rng.random() < 0.2:
        vm["buffer"] = rng.choice((5, 50, 100))
    if rng.random() < 0.15:
        vm["swap"] = "4GiB"
    if rng.random() < 0.1:
        vm["start"] = rng.randrange(1, WARM_UP_SECONDS)
    return vm


def _size(rng: random.Random, low: int, high: int) -> str:
    return f"{rng.randrange(low // STEP_MIB, high // STEP_MIB + 1) * STEP_MIB}MiB"


def _mib(size: str) -> int:
    return int(size.removesuffix("MiB"))


def _maximum(demand: Table) -> int:
    """So much that the maximum is never what a VM lacks: a quarter beyond its peak, and a kernel."""
    peak = max(_mib(demand.get(key, "0MiB")) for key in ("level", "high", "peak"))
    return max(1024, (peak * 5 // 4 + 512) // 128 * 128)


def _random_demand(rng: random.Random, phase: float) -> Table:
    kind = rng.choice(KINDS)
    low = _size(rng, 256, 4096)
    high = f"{_mib(low) + _mib(_size(rng, 128, 4096))}MiB"
    if kind == "steady":
        return {"kind": kind, "level": low, "noise": rng.choice((0.0, 0.01, 0.05))}
    if kind == "ramp":
        start = rng.randrange(WARM_UP_SECONDS, WARM_UP_SECONDS + SECONDS - 30)
        return {
            "kind": kind,
            "low": low,
            "high": high,
            "start": start,
            "over": rng.choice((1, 3, 10, 30, 60)),
        }
    if kind == "burst":
        every = rng.choice(PERIODS[4:])
        rise = rng.choice((0, 1, 3, 10))
        first = WARM_UP_SECONDS + round(phase * every)
        hold = rng.randrange(2, every - rise)
        return {
            "kind": kind,
            "base": low,
            "peak": high,
            "every": every,
            "rise": rise,
            "hold": hold,
            "first": first,
        }
    return {"kind": kind, "low": low, "high": high, "period": rng.choice(PERIODS), "phase": round(phase, 2)}


def _shifted(demand: Table, by: float) -> Table:
    """The same, at another point of it."""
    if "phase" in demand:
        return demand | {"phase": round((demand["phase"] + by) % 1.0, 2)}
    if demand["kind"] == "burst":
        return demand | {"first": WARM_UP_SECONDS + round(by * demand["every"])}
    if demand["kind"] == "ramp":
        return demand | {"start": WARM_UP_SECONDS + round(by * (SECONDS - 60))}
    return dict(demand)


def _nudge(rng: random.Random, demand: Table) -> None:
    """One figure of it."""
    key = rng.choice([key for key in demand if key != "kind"])
    if key == "period":
        demand[key] = rng.choice(PERIODS)
    elif key == "phase":
        demand[key] = round(rng.random(), 2)
    elif key == "noise":
        demand[key] = rng.choice((0.0, 0.01, 0.05))
    elif isinstance(demand[key], str):
        size = _mib(demand[key]) * rng.uniform(0.7, 1.4)
        demand[key] = f"{max(128, round(size / STEP_MIB) * STEP_MIB)}MiB"
    if demand["kind"] in ("ramp", "sine", "saw", "square"):
        low, high = sorted((demand["low"], demand["high"]), key=_mib)
        demand["low"], demand["high"] = low, high
