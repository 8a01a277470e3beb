"""Demand traces of five-minute slots: a real one that is read from where it lies, or a generated one.

The real ones are months of GWA-T-12 (Grid Workloads Archive; Bitbrains IT Services Inc.): the largest "memory
usage" in each slot, which is near to active memory. They are not part of this project. A month is two files,
bitbrains_SET_YEAR-MONTH_mem_use_mib.csv.gz (a column for each VM) and …_vms.csv (vm, cap_mib).
"""

import argparse
import csv
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

USE_SUFFIX: Final = "_mem_use_mib.csv.gz"
VMS_SUFFIX: Final = "_vms.csv"
SLOTS: Final = 8636
VMS: Final = 241
"""Of the generated one."""
FLOOR_MIB: Final = 512.0
"""Nobody's minimum is less."""

Array = Any


@dataclass(frozen=True)
class Trace:
    """demand: slots × VMs, MiB. provisioned: of each VM, MiB, never below the floor."""

    name: str
    """Of the files that the results are kept in."""
    source: str
    demand: Array
    provisioned: Array
    clipped: int
    """Values above what was provisioned, or negative, that were cut."""


def load(folder: Path | None, month: str | None = None) -> Trace:
    """The trace in that folder, or a generated one. month: which, if there are several, as "2013-08".

    Raises:
        ValueError: there is none, or it is not clear which.
    """
    if folder is None:
        return generate()
    found = [path for path in sorted(folder.glob(f"*{USE_SUFFIX}")) if month is None or month in path.name]
    if len(found) != 1:
        there = ", ".join(path.name for path in sorted(folder.glob(f"*{USE_SUFFIX}"))) or "none"
        raise ValueError(f"one trace is needed, of one month; in {folder} there are: {there}")
    name = found[0].name.removesuffix(USE_SUFFIX)
    with (folder / f"{name}{VMS_SUFFIX}").open(newline="") as stream:
        caps = {row["vm"]: float(row["cap_mib"]) for row in csv.DictReader(stream)}
    with gzip.open(found[0], "rt", newline="") as stream:
        names = next(csv.reader(stream))[1:]
        raw = np.loadtxt(stream, delimiter=",")[:, 1:]
    cap = np.array([caps[one] for one in names])
    return _made(name.replace("_", "-"), f"GWA-T-12, {name.replace('_', ' ')}", raw, cap)


def add_trace_arguments(parser: argparse.ArgumentParser) -> None:
    """What `load` is asked for on a command line: `traces` and `month`."""
    parser.add_argument("traces", nargs="?", type=Path, help="folder of a month of the Bitbrains trace")
    parser.add_argument("--month", help="which, if there are several: 2013-08")


def generate(seed: int = 1) -> Trace:
    """As many VMs and slots, with the real one's distributions of size, use, daily swing and bursts."""
    rng = np.random.default_rng(seed)
    sizes = np.array([1024, 2048, 4096, 8192, 16384, 32768, 65536.0])
    cap = rng.choice(sizes, VMS, p=[0.05, 0.18, 0.26, 0.22, 0.17, 0.08, 0.04])
    mean = np.clip(rng.lognormal(np.log(230.0), 0.9, VMS) * (cap / 4096) ** 0.45, 20, 0.5 * cap)
    hours = np.arange(SLOTS) / 12.0
    phase = rng.uniform(0, 24, VMS)
    daily = 1 + 0.15 * np.sin(2 * np.pi * (hours[:, None] - phase) / 24)
    noise = np.empty((SLOTS, VMS))
    noise[0] = 0.0
    shocks = rng.normal(0, 0.18, (SLOTS, VMS))
    for slot in range(1, SLOTS):
        noise[slot] = 0.85 * noise[slot - 1] + shocks[slot]
    use = mean * daily * np.exp(noise)
    bursts = rng.random((SLOTS, VMS)) < 0.004
    height = np.minimum(rng.pareto(1.4, (SLOTS, VMS)) + 1, 30)
    lifted = np.where(bursts, use * height, 0.0)
    for later in range(1, 4):  # a burst lasts some slots
        lifted[later:] = np.maximum(lifted[later:], np.where(bursts, use * height, 0.0)[:-later])
    return _made("generated", "generated, statistics as Bitbrains Rnd's", np.maximum(use, lifted), cap)


def _made(name: str, source: str, raw: Array, cap: Array) -> Trace:
    bad = int(((raw < 0) | (raw > cap)).sum() + np.isnan(raw).sum())
    demand = np.clip(np.nan_to_num(raw), 0.0, cap)
    return Trace(name, source, demand, np.maximum(cap, FLOOR_MIB), bad)
