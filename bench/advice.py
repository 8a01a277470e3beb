"""Advice that was given on the first weeks of a trace, held against the weeks that followed.

    python -m bench.advice TRACES [--replay] [--days N]

For each split: how many VMs would have gone short by more than 1 % of what they wanted with the maximum
that was advised, and how much of what a clairvoyant frees (what was promised, less what each comes to want)
was freed. With --replay also what `dynmem advise` takes for 100 VMs over the last 30 days, its replays
included.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.traces import FLOOR_MIB, Trace, load
from host_controller.advice.advise import advise
from host_controller.advice.past import SLOT, Past
from host_controller.advice.sizes import suggest
from host_controller.core.model import Growth
from host_controller.records.stored_limits import StoredLimits
from host_controller.units import MIB

RESULTS: Final = Path(__file__).parent / "results"
WEEK: Final = int(7 * 86400 / SLOT)
SPLITS: Final = ((0, 3, 4), (0, 2, 3), (0, 2, 4), (1, 3, 4), (0, 1, 2), (1, 2, 3), (2, 3, 4))
"""Weeks: from where to where was seen, and until where it was held against."""
SHORT: Final = 0.01
GOALS: Final = {"short_of_100": 1.0, "freed_share": 0.5, "seconds": 600.0}
REPLAYED: Final = 100
Array = Any


def past(trace: Trace, vm: int, begin: int, end: int) -> Past:
    """What history would hold of these slots."""
    maximum = int(trace.provisioned[vm]) * MIB
    minimum = min(int(FLOOR_MIB) * MIB, maximum)
    limits = StoredLimits(maximum, minimum, maximum, growth=Growth.BALLOON)
    demands = tuple(int(one * MIB) for one in trace.demand[begin:end, vm])
    seconds = len(demands) * SLOT
    uuid = f"00000000-0000-0000-0000-{vm:012d}"
    return Past(uuid, f"vm{vm}", limits, begin * SLOT, demands, seconds, seconds)


def held_out(trace: Trace, split: tuple[int, int, int]) -> dict[str, float]:
    """Advice from some weeks, held against the ones after them."""
    begin, cut, end = (week * WEEK for week in split)
    short = 0
    advised = []
    for vm in range(trace.demand.shape[1]):
        one = past(trace, vm, begin, cut)
        assert one.limits is not None
        maximum = suggest(one, one.limits.limits()).limits.maximum_bytes / MIB
        later = trace.demand[cut:end, vm]
        short += bool(np.maximum(0.0, later - maximum).sum() > SHORT * later.sum())
        advised.append(maximum)
    provisioned = trace.provisioned
    clairvoyant = (provisioned - np.maximum(trace.demand[cut:end].max(axis=0), FLOOR_MIB)).sum()
    vms = len(advised)
    return {
        "vms": vms,
        "short": short,
        "short_of_100": 100 * short / vms,
        "freed_share": float((provisioned - np.array(advised)).sum() / clairvoyant),
    }


def whole(trace: Trace, days: float) -> dict[str, float]:
    """What `dynmem advise` takes for 100 VMs and the last so many days."""
    vms = np.random.default_rng(7).permutation(trace.demand.shape[1])[:REPLAYED]
    slots = min(len(trace.demand), int(days * 86400 / SLOT))
    pasts = [past(trace, int(vm), len(trace.demand) - slots, len(trace.demand)) for vm in vms]
    began = time.process_time()
    found = advise(pasts, anyway=True)
    return {
        "vms": REPLAYED,
        "days": slots * SLOT / 86400,
        "seconds": time.process_time() - began,
        "taken_back": sum(one.taken_back for one in found.vms),
        "freed_gib": sum(one.freed_bytes for one in found.vms) / 2**30,
        "promised_gib": sum(one.now.maximum_bytes for one in found.vms) / 2**30,
        "largest_unmet_share": max(one.advised.unmet_share for one in found.vms),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path)
    parser.add_argument("--month")
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--days", type=float, default=30.0, help="for --replay: the last so many")
    options = parser.parse_args(arguments)
    trace = load(options.traces, options.month)
    path = RESULTS / f"advice-{trace.name}.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    kept["trace"] = trace.source
    missed = 0
    for split in SPLITS:
        found = held_out(trace, split)
        name = f"weeks {split[0] + 1}-{split[1]}, held against {split[1] + 1}-{split[2]}"
        kept.setdefault("splits", {})[name] = found
        missed += found["short_of_100"] > GOALS["short_of_100"] or found["freed_share"] < GOALS["freed_share"]
        print(
            f"{name}: {found['short']} of {found['vms']} short, {found['freed_share']:.0%} of a clairvoyant's"
        )
    if options.replay:
        kept["whole"] = whole(trace, options.days)
        missed += kept["whole"]["seconds"] > GOALS["seconds"]
        print(", ".join(f"{key} {value:.4g}" for key, value in kept["whole"].items()))
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
