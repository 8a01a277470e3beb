"""The file that `dynmem simulate` reads: a host, its VMs, and what their programs do.

    [host]
    capacity = "16GiB"
    duration = "2h"

    [[vm]]
    name = "web"
    count = 3                       # web1, web2, web3
    startup = "1GiB"
    minimum = "512MiB"
    maximum = "8GiB"
    demand = { kind = "diurnal", low = "400MiB", high = "3GiB", period = "1h" }

Demand is what programs hold, kernel not included. Every mistake is named, with its key and what is allowed.
`render` writes such a file from what `parse` takes: searches and benchmarks show their hosts that way.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from host_controller.core.model import Growth, Limits
from host_controller.errors import InputError
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.text_file import read_text
from host_controller.simulator.trace_file import read_trace
from host_controller.simulator.trial_keys import (
    DEMAND,
    HOST,
    OPTIONAL,
    OPTIONAL_DEMAND,
    OPTIONAL_OF,
    VM,
    Parse,
)
from host_controller.simulator.workload import (
    Curve,
    Workload,
    burst,
    diurnal,
    leak,
    noisy,
    ramp,
    saw,
    sine,
    square,
    steady,
)

_SPEC_FIELDS: Final = {
    "slots": "slots", "overhead": "overhead_bytes", "boot": "boot_seconds", "reporting": "reporting",
}  # fmt: skip
_PERIODIC: Final = {"sine": sine, "saw": saw, "square": square}


@dataclass(frozen=True, slots=True)
class TrialVm:
    """One VM of a trial."""

    spec: GuestSpec
    start: float
    holes: int = 0
    """Values of its trace that were repaired."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What is to be simulated."""

    capacity_bytes: int
    seconds: float
    seed: int
    vms: tuple[TrialVm, ...]
    warm_up_seconds: float = 0.0
    """What is not measured, at its beginning."""


def read_trial(path: Path) -> Trial:
    """The file, checked.

    Raises:
        InputError: every mistake that is in it.
    """
    try:
        whole = tomllib.loads(read_text(path, "TOML"))
    except (ValueError, RecursionError) as error:  # no TOML, a number or a nest without end
        raise InputError(f"{path}: {error}") from None
    return parse(whole, str(path), path.parent)


def parse(whole: Mapping[str, Any], name: str, folder: Path) -> Trial:
    """What such a file holds, checked. name: for messages; traces are read from the folder.

    Raises:
        InputError: every mistake that is in it.
    """
    wrong: list[str] = []
    wrong += [f"{key}: unknown; [host] and [[vm]] are allowed" for key in whole.keys() - {"host", "vm"}]
    host = _checked(whole.get("host", {}), HOST, "host", wrong)
    listed = whole.get("vm", [])
    if not isinstance(listed, list) or not listed:
        wrong.append("vm: at least one [[vm]] is needed")
        listed = []
    seconds, seed = host.get("duration", 0.0), host.get("seed", 0)
    vms: list[TrialVm] = []
    for number, one in enumerate(listed, 1):
        vms += _vms(one, f"vm[{number}]", folder, seconds, seed, wrong)
    warm_up = host.get("warm_up", 0.0)
    if warm_up >= seconds > 0:
        wrong.append("host.warm_up: nothing of the duration is left to be measured")
    names = [vm.spec.name for vm in vms]
    wrong += [f"vm: the name {name!r} is used twice" for name in sorted(set(names)) if names.count(name) > 1]
    if wrong:
        raise InputError(f"{name}: " + "; ".join(wrong))
    return Trial(host["capacity"], seconds, seed, tuple(vms), warm_up)


def _vms(one: Any, where: str, folder: Path, seconds: float, seed: int, wrong: list[str]) -> list[TrialVm]:
    before = len(wrong)
    vm = _checked(one, VM, where, wrong)
    demand = vm.get("demand", {})
    kind = demand.get("kind")
    if not isinstance(kind, str) or kind not in DEMAND:
        if "demand" in vm:
            found = "missing" if kind is None else repr(kind)
            wrong.append(f"{where}.demand.kind: {found}; allowed are {', '.join(DEMAND)}")
        return []
    given = {key: value for key, value in demand.items() if key != "kind"}
    shape = _checked(
        given, DEMAND[kind], f"{where}.demand", wrong, OPTIONAL_DEMAND | OPTIONAL_OF.get(kind, set())
    )
    if len(wrong) > before:
        return []
    limits = Limits(vm["startup"], vm["minimum"], vm["maximum"], vm.get("buffer", 20), vm.get("weight", 100))
    wrong += [f"{where}: {problem}" for problem in limits.problems()]
    made = []
    count = vm.get("count", 1)
    for i in range(count):
        name = vm["name"] if "count" not in vm else f"{vm['name']}{i + 1}"
        try:
            curve, holes = _curve(kind, shape, folder, seconds, f"{seed} {name}")
        except ValueError as error:
            wrong.append(f"{where}.demand: {error}")
            return []
        spec = GuestSpec(
            name,
            limits,
            growth=vm.get("growth", Growth.HOTADD),
            workload=Workload(curve, steady(vm.get("cache", 0))),
            swap_bytes=vm.get("swap", 0),
            **{field: vm[key] for key, field in _SPEC_FIELDS.items() if key in vm},
        )
        made.append(TrialVm(spec, vm.get("start", 0.0), holes))
    return made


def _curve(kind: str, shape: Mapping[str, Any], folder: Path, seconds: float, seed: str) -> tuple[Curve, int]:
    match kind:
        case "steady":
            if noise := shape.get("noise", 0.0):
                return noisy(shape["level"], noise, seconds, seed), 0
            return steady(shape["level"]), 0
        case "sine" | "saw" | "square":
            if not shape["period"]:
                raise ValueError("a period of nothing")
            make = _PERIODIC[kind]
            return make(shape["low"], shape["high"], shape["period"], seconds, shape.get("phase", 0.0)), 0
        case "ramp":
            return ramp(shape["low"], shape["high"], shape["start"], shape["over"]), 0
        case "burst":
            if shape["every"] <= shape["hold"] + shape.get("rise", 0.0):
                raise ValueError("a burst must be over before the next: every > rise + hold")
            sizes = shape["base"], shape["peak"]
            times = shape["every"], shape["hold"], seconds, shape.get("rise", 0.0), shape.get("first", 0.0)
            return burst(*sizes, *times), 0
        case "diurnal":
            salt = sum(ord(letter) * (i + 1) for i, letter in enumerate(seed))
            noise, period = shape.get("noise", 0.02), shape.get("period", 86400.0)
            if not period:
                raise ValueError("a period of nothing")
            return diurnal(shape["low"], shape["high"], seconds, salt, noise, period), 0
        case "leak":
            return leak(shape["base"], shape["per_hour"], seconds, shape["restart_at"]), 0
        case _:
            trace = read_trace(folder / shape["file"], shape["column"], shape.get("unit", 1 << 20))
            if trace.begins >= seconds > 0:
                begin = f"{shape['file']} begins at {trace.begins:.0f} s, and {seconds:.0f} s are simulated"
                raise ValueError(f"{begin}; its seconds count from the beginning")
            return trace.curve, trace.holes


def _checked(
    table: Any,
    schema: Mapping[str, Parse],
    where: str,
    wrong: list[str],
    optional: frozenset[str] = OPTIONAL,
) -> dict[str, Any]:
    if not isinstance(table, dict):
        wrong.append(f"{where}: a table is needed")
        return {}
    found = {}
    for key, value in table.items():
        if key not in schema:
            wrong.append(f"{where}.{key}: unknown; allowed are {', '.join(schema)}")
            continue
        try:
            found[key] = schema[key](value)
        except ValueError as error:
            wrong.append(f"{where}.{key}: {value!r}; allowed: {error}")
    wrong += [f"{where}.{key}: missing" for key in schema if key not in table and key not in optional]
    return found


def render(whole: Mapping[str, Any]) -> str:
    """What `parse` takes, as such a file."""
    lines = ["[host]", *(f"{key} = {_toml(value)}" for key, value in whole["host"].items())]
    for vm in whole["vm"]:
        lines += ["", "[[vm]]", *(f"{key} = {_toml(value)}" for key, value in vm.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)
