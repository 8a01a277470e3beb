"""Second-by-second demand for the fast benchmark: builds that ramp up, and servers that drift and burst.

The steepness is that of a real 16 GiB, 12-core VM that builds a compiler: +3.0 GiB (p99), +5.4 GiB (largest)
in 10 s.
"""

import random
from dataclasses import dataclass
from typing import Final

from host_controller.core.model import Growth, Limits
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Curve, Workload
from host_controller.units import GIB, MIB

P99_BYTES_PER_SECOND: Final = 3.0 * GIB / 10
LARGEST_BYTES_PER_SECOND: Final = 5.4 * GIB / 10
MINIMUM_BYTES: Final = 1 * GIB
MAXIMUM_BYTES: Final = 16 * GIB


@dataclass(frozen=True)
class Fleet:
    """The VMs of one run and what their programs want, bytes over seconds."""

    specs: list[GuestSpec]
    curves: dict[str, Curve]
    seconds: float


def fleet(seconds: float, builders: int = 4, servers: int = 4, twins: int = 2, seed: int = 3) -> Fleet:
    """A mixed host. The twins are two identical VMs with identical demand, for evenness."""
    curves = {f"build{i}": build(seconds, seed * 100 + i) for i in range(builders)}
    curves |= {f"server{i}": server(seconds, seed * 200 + i) for i in range(servers)}
    shared = build(seconds, seed * 300)
    curves |= {f"twin{i}": shared for i in range(twins)}
    specs = [_spec(name, Curve(list(points(curve)))) for name, curve in curves.items()]
    return Fleet(specs, {spec.name: spec.workload.anonymous for spec in specs}, seconds)


def build(seconds: float, seed: int) -> list[tuple[float, float]]:
    """Compilers come and go around 9 GiB; now and then a phase ends, and the next ramps up steeply.

    bench.workloads prints what it amounts to: mean, and growth in 10 s (p99, largest).
    """
    rng = random.Random(f"build {seed}")
    level, now = 1.0 * GIB, rng.uniform(65, 100)
    curve = [(0.0, level), (now, level)]
    target = rng.uniform(6, 10) * GIB
    now += (target - level) / P99_BYTES_PER_SECOND
    level = target
    curve.append((now, level))
    while now < seconds:
        hold = rng.uniform(4, 25)
        now += hold
        curve.append((now, level))
        if rng.random() < 0.05:  # a phase ends, and the next begins
            low = rng.uniform(2.0, 4.0) * GIB
            now += rng.uniform(1, 5)
            curve.append((now, low))
            now += rng.uniform(10, 40)
            curve.append((now, low))
            target = rng.uniform(8, 13) * GIB
            rate = LARGEST_BYTES_PER_SECOND if rng.random() < 0.3 else P99_BYTES_PER_SECOND
            now += (target - low) / rate
        else:
            step = rng.choice((-1, 1)) * rng.uniform(0.2, 1.8) * GIB
            target = min(13.0 * GIB, max(5.0 * GIB, level + step))
            now += rng.uniform(4, 20)
        level = target
        curve.append((now, level))
    return curve


def server(seconds: float, seed: int) -> list[tuple[float, float]]:
    """A slow drift between 1.5 and 5 GiB with a burst of up to 1 GiB within 2 s now and then."""
    rng = random.Random(f"server {seed}")
    level, now = rng.uniform(1.5, 5.0) * GIB, 0.0
    curve = [(0.0, level)]
    while now < seconds:
        now += rng.uniform(40, 120)
        level = min(5.0 * GIB, max(1.5 * GIB, level + rng.uniform(-0.4, 0.4) * GIB))
        curve.append((now, level))
        if rng.random() < 0.3:
            more = rng.uniform(0.1, 0.6) * GIB
            curve += [(now + 2, level + more), (now + 12, level + more), (now + 14, level)]
            now += 14
    return curve


def points(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Whole tenths of seconds and MiB: what two runs must agree upon."""
    return [(round(at, 1), round(size / MIB) * float(MIB)) for at, size in curve]


def _spec(name: str, curve: Curve) -> GuestSpec:
    limits = Limits(2 * GIB, MINIMUM_BYTES, MAXIMUM_BYTES)
    # Equal actuators for all: the balloon alone, nothing handed back unasked, no overhead counted.
    return GuestSpec(
        name,
        limits,
        growth=Growth.BALLOON,
        workload=Workload(curve),
        overhead_bytes=0,
        reporting=False,
        boot_seconds=2.0,
        agent_seconds=1.0,
    )


def main() -> None:
    """Print what the builds amount to."""
    curves = [Curve(build(3600.0, seed)) for seed in range(20)]
    sizes = [[curve.at(float(t)) for t in range(70, 3600)] for curve in curves]
    grown = sorted(b - a for one in sizes for a, b in zip(one, one[10:], strict=False))
    mean = sum(sum(one) for one in sizes) / sum(len(one) for one in sizes)
    p99 = grown[int(len(grown) * 0.99)]
    print(
        f"mean {mean / GIB:.2f} GiB, growth in 10 s: p99 {p99 / GIB:.2f}, largest {grown[-1] / GIB:.2f} GiB"
    )


if __name__ == "__main__":
    main()
