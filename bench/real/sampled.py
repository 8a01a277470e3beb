"""The four jobs of `price`, and where the processors are meanwhile, by clock: unmanaged, and by dynmem.

What dynmem costs more is the difference of the two, and every moment that was looked at has a name.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from bench.real.evenness import FILES, GUESTS, MAXIMUM, WAYS
from bench.real.harness import Result, spread, tell
from bench.real.job import OBJECT_MIB
from bench.real.price import BARE, Four, Took
from bench.real.rig import OURS, Host, host
from bench.real.sampling import Found, sampled
from lab.guest import Guest
from lab.lab import Lab

ROUNDS: Final = 2
STATES: Final = ("program", "kernel", "waits")


def run() -> Result:
    """All of it."""
    title = f"Where the processors are: {GUESTS} jobs of {FILES * OBJECT_MIB} MiB, by clock"
    columns = ("what runs", "unmanaged, s", "dynmem, s", "more, s", "of all that is more")
    result = Result("sampled", title, columns)
    with Lab() as lab:
        for growth in WAYS:
            with host(lab, OURS, GUESTS * MAXIMUM, shrink_after=2, settle=0) as one:
                _way(one, result, growth)
    return result


def _way(one: Host, result: Result, growth: str) -> None:
    """Ours and unmanaged in turn, by one way to grow: virtio-mem leaves huge pages whole."""
    seen: list[Found] = []

    @contextmanager
    def watch(guests: list[Guest], beside: Mapping[int, str]) -> Iterator[None]:
        with sampled(guests, beside) as found:
            yield
        seen.append(found)

    took: dict[str, list[Took]] = {OURS: [], BARE: []}
    four = Four(one, growth, watch)
    for _ in range(ROUNDS):
        took[OURS].append(four.ours())
        took[BARE].append(four.bare())
        tell(f"sampled, by {growth}: {seen[-2]}; unmanaged {seen[-1]}")
    _tell(result, growth, {OURS: seen[::2], BARE: seen[1::2]}, took)


def _tell(result: Result, growth: str, found: dict[str, list[Found]], took: dict[str, list[Took]]) -> None:
    before, after = (_mean([one.seconds for one in found[way]]) for way in (BARE, OURS))
    more = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in before | after}
    total = sum(more.values())
    for name in sorted(more, key=lambda one: -more[one]):
        seconds = (before.get(name, 0.0), after.get(name, 0.0))
        result.rows.append((f"by {growth}: {name}", *seconds, more[name], more[name] / total))
    result.rows.append(("all of it", sum(before.values()), sum(after.values()), total, 1.0))
    by_kernel = [spread([one.all_seconds for one in took[way]]).median for way in (BARE, OURS)]
    result.rows.append(("the same by the kernel's account", *by_kernel, by_kernel[1] - by_kernel[0], ""))
    looks = [_mean([one.guests for one in found[way]]) for way in (BARE, OURS)]
    for name in STATES:
        shares = [one.get(name, 0.0) / max(1.0, sum(one.values())) for one in looks]
        result.rows.append((f"share of looks at a guest: {name}", *shares, shares[1] - shares[0], ""))
    for way, each in took.items():
        times = [[job.seconds for job in one.jobs] for one in each]
        result.series[f"{way}, by {growth}, job seconds"] = times


def _mean(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of several rounds."""
    names = {name for one in rounds for name in one}
    return {name: sum(one.get(name, 0.0) for one in rounds) / len(rounds) for name in names}


if __name__ == "__main__":
    print(run().text())
