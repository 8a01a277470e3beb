"""The tables of fleets, from what `bench.fleet_day`, `bench.fleet_places` and `bench.fleet_sampled` left."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.fleet_cells import STEP_SECONDS, Tally
from bench.fleet_demand import DAY_SECONDS

RESULTS: Final = Path(__file__).parent / "results"
LAWS: Final = {
    "none": "nobody moves", "static": "static sizes", "dynmem": "**dynmem**",
    "threshold": "above 90 %, at once", "clairvoyant": "clairvoyant", "frugal": "clairvoyant, frugal",
}  # fmt: skip
PLACES: Final = {
    "static": "static sizes", "placed": "dynmem, starts alone", "relieved": "**dynmem**, starts and relief",
    "clairvoyant": "clairvoyant about starts", "one host": "one host of 512 GiB",
}  # fmt: skip
Rows = list[list[str]]


def days(seconds: int = DAY_SECONDS) -> dict[str, Any]:
    """By demand, load and law: what was played for so long."""
    found: dict[str, Any] = json.loads((RESULTS / "fleet_day.json").read_text())[str(seconds)]
    return found


def day_rows(seconds: int = DAY_SECONDS) -> tuple[list[str], Rows]:
    """Head and rows of the day of a thousand hosts, or of what else was played."""
    head = [
        "demand",
        "load",
        "hosts",
        "law",
        "host-steps short",
        "unmet, GiB·s",
        "moves a host and day",
        "VMs without a place",
    ]
    rows = []
    for demand, by_load in days(seconds).items():
        for load, by_law in by_load.items():
            base = Tally(**by_law["none"]["sums"])
            for law, name in LAWS.items():
                if law in by_law and by_law[law]["cells"] == by_law["none"]["cells"]:
                    sums = Tally(**by_law[law]["sums"])
                    hosts = sums.host_steps * STEP_SECONDS // seconds
                    known = [demand, f"{float(load):.0%}", f"{hosts:,}", name]
                    rows.append([*known, *_day(sums, base, law)])
    return head, rows


def _day(sums: Tally, base: Tally, law: str) -> Iterator[str]:
    share = sums.short / sums.host_steps
    less = "" if law in ("none", "static") else f" ({sums.short / base.short:.2f} ×)"
    yield f"{share:.2%}{less}"
    less = "" if law in ("none", "static") else f" ({sums.unmet_mib_seconds / base.unmet_mib_seconds:.2f} ×)"
    yield f"{sums.unmet_mib_seconds / 1024:,.0f}{less}"
    yield f"{sums.moves_a_host_and_day:.1f}"
    yield f"{sums.stopped:,}"


def places_rows(name: str = "bitbrains-rnd-2013-07") -> tuple[list[str], Rows]:
    """Head and rows of how many VMs a cell holds."""
    orders: Sequence[Mapping[str, Mapping[str, int]]]
    orders = json.loads((RESULTS / f"fleet_places-{name}.json").read_text())["orders"]
    mean = {
        (law, count): float(np.mean([one[law][count] for one in orders]))
        for law in PLACES
        for count in ("slots", "mib")
    }
    head = ["law", "VMs, by slots", "÷ one host", "÷ static", "VMs, by MiB", "÷ one host", "÷ static"]
    rows = []
    for law, told in PLACES.items():
        row = [told]
        for count in ("slots", "mib"):
            vms = mean[law, count]
            row += [
                f"{vms:.0f}",
                f"{vms / mean['one host', count]:.3f}",
                f"{vms / mean['static', count]:.2f}",
            ]
        rows.append(row)
    return head, rows


def sampled_rows() -> tuple[list[str], Rows]:
    """Head and rows of what need as utilization does."""
    head = ["demand", "load", "publications", "VMs", "VMs moved", "a host and day", "running VMs stopped"]
    rows = []
    for demand, by_load in json.loads((RESULTS / "fleet_sampled.json").read_text()).items():
        for load, one in by_load.items():
            a_day = one["moves"] / one["host_steps"] * DAY_SECONDS / 300
            rows.append(
                [demand, f"{float(load):.0%}", str(one["publications"]), str(one["vms"]), str(one["moves"]),
                 f"{a_day:.0f}", str(one["stopped"])]
            )  # fmt: skip
    return head, rows
