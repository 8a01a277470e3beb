"""How many VMs fit on a host: `python -m bench.density [TRACES]`, or `make bench-density TRACES=DIR`.

VMs are added in 40 random orders until demand goes unmet in more than 0.1 % of VM-slots. Slots are five
minutes long, which hides how fast a law reacts: that is what bench.fast is for.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.bulk_laws import STEPS, Hosts, Step
from bench.our_law import OurLaw
from bench.traces import FLOOR_MIB, Trace, load

HOSTS_GIB: Final = (64, 128)
ORDERS: Final = 40
ALLOWED: Final = 0.001
"""Share of VM-slots in which demand may go unmet."""
COMPACT_EVERY: Final = 100
GUESS_SLOTS: Final = 1200
TOLERANCE_MIB: Final = 0.01
RESULTS: Final = Path(__file__).parent / "results"
LAWS: Final = (
    "static", "peak", "squeezed", "proxmox", "mom", "mom-production", "ghaf", "qmemman", "hyperv", "dynmem",
    "clairvoyant-buffered", "clairvoyant", "starving-bound",
)  # fmt: skip
Array = Any


def orders(vms: int, seed: int = 7) -> Array:
    """40 permutations."""
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(vms) for _ in range(ORDERS)])


def fits(trace: Trace, step: Step, rows: Sequence[tuple[Array, int, float]]) -> Array:
    """Of each row (an order, a number of VMs, a host in MiB): whether it keeps the service level."""
    slots = len(trace.demand)
    counts = np.array([n for _, n, _ in rows])
    columns = int(counts.max())
    chosen = np.array([np.pad(order[:n], (0, columns - n)) for order, n, _ in rows])
    present = np.arange(columns) < counts[:, None]
    maximum = np.where(present, trace.provisioned[chosen], 0.0)
    minimum = np.where(present, np.minimum(FLOOR_MIB, maximum), 0.0)
    hosts = Hosts(np.array([total for _, _, total in rows]), minimum, maximum, minimum.copy())
    allowed = ALLOWED * counts * slots
    unmet = np.zeros(len(rows))
    alive = np.arange(len(rows))
    for slot in range(slots):
        demand = np.where(present, trace.demand[slot][chosen], 0.0)
        step(hosts, demand)
        unmet[alive] += short(hosts, demand).sum(axis=1)
        if slot % COMPACT_EVERY == COMPACT_EVERY - 1:
            keep = unmet[alive] <= allowed[alive]
            if not keep.all():
                alive, chosen, present = alive[keep], chosen[keep], present[keep]
                hosts.keep(keep)
                if not alive.size:
                    break
    return unmet <= allowed


def short(hosts: Hosts, demand: Array) -> Array:
    """Which VMs lack something. Of a host that gave out more than it has, its kernel takes the excess away
    from all in proportion: what was given is in use, if only as cache.
    """
    given = hosts.current.sum(axis=1)
    scale = np.minimum(1.0, hosts.total / np.maximum(given, 1e-9))
    return hosts.current * scale[:, None] < demand - TOLERANCE_MIB


def search(trace: Trace, step: Step, chosen: Array) -> dict[int, list[int]]:
    """For each host the largest number of VMs in each order, all orders and hosts together.

    A guess from the first days, then galloping away from it, then bisection: full passes are dear.
    """
    cases = [(order, float(host * 1024)) for host in HOSTS_GIB for order in chosen]
    start = np.full(len(cases), 16)
    start = _largest(replace(trace, demand=trace.demand[:GUESS_SLOTS]), step, cases, start)
    return _by_host(_largest(trace, step, cases, start))


def _largest(trace: Trace, step: Step, cases: Sequence[tuple[Array, float]], start: Array) -> Array:
    whole = trace.demand.shape[1]
    low, high, stride = np.zeros(len(cases), int), np.full(len(cases), whole + 1), np.ones(len(cases), int)
    tried = np.clip(start, 1, whole)
    while (open_ := np.flatnonzero(high - low > 1)).size:
        good = fits(trace, step, [(cases[int(i)][0], int(tried[i]), cases[int(i)][1]) for i in open_])
        for i, fine in zip(open_, good, strict=True):
            low[i], high[i] = (tried[i], high[i]) if fine else (low[i], tried[i])
            beyond = tried[i] + stride[i] if fine else tried[i] - stride[i]
            bracketed = low[i] > 0 and high[i] <= whole
            tried[i] = (low[i] + high[i]) // 2 if bracketed else np.clip(beyond, low[i] + 1, high[i] - 1)
            stride[i] *= 2
    return low


def sized(trace: Trace, chosen: Array, need: Array) -> dict[int, list[int]]:
    """How many VMs fit when the sum of `need` (slots × VMs, or one row) never exceeds the host."""
    found = []
    for host in HOSTS_GIB:
        for order in chosen:
            peaks = np.cumsum(need[:, order], axis=1).max(axis=0)
            found.append(int(np.searchsorted(peaks, host * 1024, side="right")))
    return _by_host(np.array(found))


def bound(trace: Trace, chosen: Array) -> dict[int, list[int]]:
    """What no law at all can pass: in a slot that does not fit, the fewest VMs go short, which takes all but
    their minimum from the largest.
    """
    need = np.maximum(trace.demand, FLOOR_MIB)

    def fine(order: Array, n: int, host: float) -> bool:
        size = need[:, order[:n]]
        over = size.sum(axis=1) - host
        slots = np.flatnonzero(over > 0)
        spare = np.cumsum(-np.sort(FLOOR_MIB - size[slots], axis=1), axis=1)
        short_of = (spare < over[slots, None]).sum(axis=1) + 1
        return bool(np.minimum(short_of, n).sum() <= ALLOWED * n * len(size))

    found = []
    for host in HOSTS_GIB:
        for order in chosen:
            low, high = 0, trace.demand.shape[1] + 1
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if fine(order, middle, host * 1024.0) else (low, middle)
            found.append(low)
    return _by_host(np.array(found))


def measure(name: str, folder: Path | None) -> tuple[str, dict[int, list[int]], float]:
    """One law's densities and how long that took."""
    began = time.monotonic()
    trace = load(folder)
    chosen = orders(trace.demand.shape[1])
    cap = trace.provisioned
    if name == "peak":
        peaks = np.clip(trace.demand.max(axis=0) * 1.2, FLOOR_MIB, cap)
        found = sized(trace, chosen, peaks[None, :])
    elif name == "clairvoyant-buffered":
        found = sized(trace, chosen, np.clip(trace.demand * 1.2, FLOOR_MIB, cap))
    elif name == "starving-bound":
        found = bound(trace, chosen)
    elif name == "static":
        found = sized(trace, chosen, cap[None, :])
    else:
        found = search(trace, OurLaw() if name == "dynmem" else STEPS[name], chosen)
    return name, found, time.monotonic() - began


def _by_host(found: Array) -> dict[int, list[int]]:
    parts = np.split(found, len(HOSTS_GIB))
    return {host: part.tolist() for host, part in zip(HOSTS_GIB, parts, strict=True)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="?", type=Path, help="folder of the Bitbrains trace")
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=LAWS)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    trace = load(options.traces)
    print(f"trace: {trace.source}; {trace.clipped} values cut to what was provisioned")
    results: dict[str, dict[int, list[int]]] = {}
    slow_first = sorted(
        options.laws, key=lambda name: name not in ("mom", "mom-production", "dynmem", "proxmox")
    )
    with ProcessPoolExecutor(options.jobs) as pool:
        for name, found, seconds in pool.map(measure, slow_first, [options.traces] * len(slow_first)):
            results[name] = found
            told = ", ".join(f"{host} GiB: {np.mean(found[host]):.1f}" for host in HOSTS_GIB)
            print(f"{name:22} {told}   ({seconds:.0f} s)", flush=True)
    if set(results) != set(LAWS):
        return 0
    RESULTS.mkdir(exist_ok=True)
    kind = "generated" if options.traces is None else "bitbrains"
    told_all = {"trace": trace.source, "cut": trace.clipped, "allowed": ALLOWED, "vms": results}
    (RESULTS / f"density-{kind}.json").write_text(json.dumps(told_all, indent=1) + "\n")
    return judge(results)


def judge(results: dict[str, dict[int, list[int]]]) -> int:
    """Say whether the goals are met."""
    missed = 0
    for host in HOSTS_GIB:
        mean = {name: float(np.mean(found[host])) for name, found in results.items()}
        share = mean["dynmem"] / mean["clairvoyant"]
        whole = mean["dynmem"] / mean["starving-bound"]
        ahead = [name for name in STEPS if name != "clairvoyant" and mean[name] > mean["dynmem"]]
        missed += share < 0.95 or bool(ahead)
        print(
            f"{host} GiB: {share:.1%} of the clairvoyant that shares fairly (goal 95 %), {whole:.1%} of what "
            f"starving the largest makes possible; peers ahead: {', '.join(ahead) or 'none'}"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
