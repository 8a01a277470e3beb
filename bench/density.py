"""How many VMs fit on a host: `python -m bench.density [TRACES]`, or `make bench-density TRACES=DIR`.

VMs are added in 40 random orders until too much demand goes unmet. That is counted in three ways:

- slots: in more than 0.1 % of VM-slots somebody lacks something, however little.
- mib: more than 0.1 % of the MiB that are wanted are missing.
- touched: as slots, but what a guest was given and does not touch is still the host's. That helps laws that
  give out more than there is, or look at what their host has free.

Slots are five minutes long, which hides how fast a law reacts: that is what bench.fast is for. What has been
measured is kept, law by law, and not measured again: --fresh does, and begins where the law came to before.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.bulk_laws import STEPS, Hosts, Step
from bench.our_law import OurLaw
from bench.traces import FLOOR_MIB, Trace, add_trace_arguments, load

HOSTS_GIB: Final = (64, 128)
GOALS: Final = {64: 0.97, 128: 0.965}
"""Of the fair clairvoyant, by host."""
ORDERS: Final = 40
ALLOWED: Final = 0.001
"""Share of VM-slots, or of MiB, that may go unmet."""
COUNTS: Final = ("slots", "mib", "touched")
COMPACT_EVERY: Final = 100
GUESS_SLOTS: Final = 1200
MEMMAP_OF: Final = 64
"""A kernel that booted with all of its RAM keeps page structures for it, whatever its balloon takes."""
TOLERANCE_MIB: Final = 0.01
RESULTS: Final = Path(__file__).parent / "results"
LAWS: Final = (
    "static", "peak", "squeezed", "proxmox", "mom", "mom-production", "ghaf", "qmemman", "hyperv",
    "adopted", "dynmem", "clairvoyant-buffered", "clairvoyant", "starving-bound",
)  # fmt: skip
BY_TOUCH: Final = ("static", "proxmox", "mom", "mom-production", "ghaf")
"""Laws for which it matters whether memory that was given and not touched is the host's.

The others never give out more than there is, and do not look at what the host has free.
"""
Array = Any
Sizes = dict[str, list[int]]
"""How many VMs fit in each order, by host."""
Kept = dict[str, dict[str, Sizes]]
"""By count, and law."""


def orders(vms: int, seed: int = 7) -> Array:
    """ORDERS random orders of the VMs, one a row."""
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(vms) for _ in range(ORDERS)])


def fits(trace: Trace, step: Step, rows: Sequence[tuple[Array, int, float]], count: str = "slots") -> Array:
    """Of each row (an order, a number of VMs, a host in MiB): whether it keeps the service level."""
    slots = len(trace.demand)
    counts = np.array([n for _, n, _ in rows])
    columns = int(counts.max())
    chosen = np.array([np.pad(order[:n], (0, columns - n)) for order, n, _ in rows])
    present = np.arange(columns) < counts[:, None]
    maximum = np.where(present, trace.provisioned[chosen], 0.0)
    minimum = np.where(present, np.minimum(FLOOR_MIB, maximum), 0.0)
    totals = np.array([total for _, _, total in rows])
    hosts = Hosts(totals, minimum, maximum, minimum.copy(), touched=count == "touched")
    allowed = ALLOWED * counts * slots
    if count == "mib":
        allowed = ALLOWED * np.array([trace.demand[:, order[:n]].sum() for order, n, _ in rows])
    unmet = np.zeros(len(rows))
    alive = np.arange(len(rows))
    for slot in range(slots):
        demand = np.where(present, trace.demand[slot][chosen], 0.0)
        step(hosts, demand)
        lacks = lacking(hosts, demand)
        unmet[alive] += (lacks if count == "mib" else lacks > TOLERANCE_MIB).sum(axis=1)
        if slot % COMPACT_EVERY == COMPACT_EVERY - 1:
            keep = unmet[alive] <= allowed[alive]
            if not keep.all():
                alive, chosen, present = alive[keep], chosen[keep], present[keep]
                hosts.keep(keep)
                if not alive.size:
                    break
    return unmet <= allowed


def lacking(hosts: Hosts, demand: Array) -> Array:
    """What each VM lacks, MiB.

    Of a host that gave out more than it has, its kernel takes the excess from all in proportion to what
    counts as used.
    """
    used = hosts.used(demand)
    scale = np.minimum(1.0, hosts.total / np.maximum(used.sum(axis=1), 1e-9))
    return np.maximum(0.0, demand - np.minimum(hosts.current, used) * scale[:, None])


def search(
    trace: Trace, step: Step, chosen: Array, count: str = "slots", near: Sizes | None = None
) -> dict[int, list[int]]:
    """For each host the largest number of VMs in each order, all orders and hosts together.

    From what was found before (`near`), or a guess from the first days, galloping away from it, then
    bisection: full passes are dear.
    """
    cases = [(order, float(host * 1024)) for host in HOSTS_GIB for order in chosen]
    if near:
        start = np.array([size for host in HOSTS_GIB for size in near[str(host)]])
    else:
        start = np.full(len(cases), 16)
        start = _largest(replace(trace, demand=trace.demand[:GUESS_SLOTS]), step, cases, start, count)
    return _by_host(_largest(trace, step, cases, start, count))


def _largest(
    trace: Trace, step: Step, cases: Sequence[tuple[Array, float]], start: Array, count: str
) -> Array:
    whole = trace.demand.shape[1]
    low, high, stride = np.zeros(len(cases), int), np.full(len(cases), whole + 1), np.ones(len(cases), int)
    tried = np.clip(start, 1, whole)
    while (open_ := np.flatnonzero(high - low > 1)).size:
        rows = [(cases[int(i)][0], int(tried[i]), cases[int(i)][1]) for i in open_]
        good = fits(trace, step, rows, count)
        for i, fine in zip(open_, good, strict=True):
            low[i], high[i] = (tried[i], high[i]) if fine else (low[i], tried[i])
            beyond = tried[i] + stride[i] if fine else tried[i] - stride[i]
            bracketed = low[i] > 0 and high[i] <= whole
            tried[i] = (low[i] + high[i]) // 2 if bracketed else np.clip(beyond, low[i] + 1, high[i] - 1)
            stride[i] *= 2
    return low


def sized(chosen: Array, need: Array) -> dict[int, list[int]]:
    """How many VMs fit when the sum of `need` (slots × VMs, or one row) never exceeds the host."""
    found = []
    for host in HOSTS_GIB:
        for order in chosen:
            peaks = np.cumsum(need[:, order], axis=1).max(axis=0)
            found.append(int(np.searchsorted(peaks, host * 1024, side="right")))
    return _by_host(np.array(found))


def bound(trace: Trace, chosen: Array, count: str = "slots") -> dict[int, list[int]]:
    """What no law at all can pass.

    By slots: in one that does not fit the fewest VMs go short, which takes all but their minimum from the
    largest. By MiB: what is wanted beyond the host is missing, whoever lacks it.
    """
    need = np.maximum(trace.demand, FLOOR_MIB)

    def fine(order: Array, n: int, host: float) -> bool:
        size = need[:, order[:n]]
        over = size.sum(axis=1) - host
        if count == "mib":
            return bool(np.maximum(0.0, over).sum() <= ALLOWED * trace.demand[:, order[:n]].sum())
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


def measure(
    name: str, count: str, trace: Trace, chosen: Array, near: Sizes | None = None
) -> dict[int, list[int]]:
    """One law's densities. near: as far as it came before."""
    cap = trace.provisioned
    if name == "peak":
        peaks = np.clip(trace.demand.max(axis=0) * 1.2, FLOOR_MIB, cap)
        return sized(chosen, peaks[None, :])
    if name == "clairvoyant-buffered":
        return sized(chosen, np.clip(trace.demand * 1.2, FLOOR_MIB, cap))
    if name == "starving-bound":
        return bound(trace, chosen, count)
    if name == "adopted":
        held = replace(trace, demand=np.minimum(trace.demand + cap / MEMMAP_OF, cap))
        return search(held, OurLaw(agentless=True), chosen, count, near)
    if name == "static" and count == "slots":
        return sized(chosen, cap[None, :])
    return search(trace, OurLaw() if name == "dynmem" else STEPS[name], chosen, count, near)


def _task(
    name: str, count: str, near: Sizes | None, folder: Path | None, month: str | None
) -> tuple[dict[int, list[int]], float]:
    """And the processor's seconds that it took."""
    began = time.process_time()
    trace = load(folder, month)
    return measure(name, count, trace, orders(trace.demand.shape[1]), near), time.process_time() - began


def _by_host(found: Array) -> dict[int, list[int]]:
    parts = np.split(found, len(HOSTS_GIB))
    return {host: part.tolist() for host, part in zip(HOSTS_GIB, parts, strict=True)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_trace_arguments(parser)
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=LAWS)
    parser.add_argument("--counts", nargs="+", default=list(COUNTS), choices=COUNTS)
    parser.add_argument("--fresh", nargs="*", default=[], choices=LAWS, help="laws to be measured again")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    trace = load(options.traces, options.month)
    print(f"trace: {trace.source}; {trace.clipped} values cut to what was provisioned")
    path = RESULTS / f"density-{trace.name}.json"
    kept: Kept = json.loads(path.read_text())["vms"] if path.exists() else {}
    missing = [
        (name, count)
        for count in options.counts
        for name in options.laws
        if (count != "touched" or name in BY_TOUCH)
        and (name in options.fresh or name not in kept.get(count, {}))
    ]
    slow = ("adopted", "mom", "mom-production", "dynmem", "proxmox")
    missing.sort(key=lambda task: task[0] not in slow)
    with ProcessPoolExecutor(options.jobs) as pool:
        tasks = {}
        for name, count in missing:
            near = kept.get(count, {}).get(name)
            tasks[pool.submit(_task, name, count, near, options.traces, options.month)] = name, count
        for done in as_completed(tasks):
            (name, count), (found, seconds) = tasks[done], done.result()
            kept.setdefault(count, {})[name] = {str(host): sizes for host, sizes in found.items()}
            told = ", ".join(f"{host} GiB: {np.mean(found[host]):.1f}" for host in HOSTS_GIB)
            print(f"{name:22} {count:8} {told}   ({seconds:.0f} s)", flush=True)
            _save(path, trace, kept)
    return judge(kept)


def _save(path: Path, trace: Trace, kept: Kept) -> None:
    RESULTS.mkdir(exist_ok=True)
    told = {"trace": trace.source, "cut": trace.clipped, "allowed": ALLOWED, "vms": kept}
    path.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


def by_law(kept: Kept, count: str) -> dict[str, Sizes]:
    """What is known of each law. Where touching makes no difference, it is as for slots."""
    if count != "touched":
        return kept[count]
    slots = {name: one for name, one in kept.get("slots", {}).items() if name not in BY_TOUCH}
    return kept[count] | slots


def densities(kept: Kept, count: str, host: int) -> dict[str, float]:
    """Mean over the orders, by law."""
    return {name: float(np.mean(found[str(host)])) for name, found in by_law(kept, count).items()}


def judge(kept: Kept) -> int:
    """Say whether the goals are met, in every way of counting."""
    missed = 0
    for count in COUNTS:
        for host in HOSTS_GIB:
            mean = densities(kept, count, host) if count in kept else {}
            if not {"dynmem", "clairvoyant"} <= mean.keys():
                continue
            share = mean["dynmem"] / mean["clairvoyant"]
            ahead = [name for name in STEPS if name != "clairvoyant" and mean.get(name, 0.0) > mean["dynmem"]]
            missed += share < GOALS[host] or bool(ahead)
            print(
                f"by {count}, {host} GiB: {share:.1%} of the clairvoyant that shares fairly (goal "
                f"{GOALS[host]:.1%}); peers ahead: {', '.join(ahead) or 'none'}"
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
