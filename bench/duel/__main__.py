"""`python -m bench.duel [--seconds N] [--seed N]`, or `make duel`: where is a peer ahead of us by most?

For half an hour of a processor's time, unless told otherwise, hosts and demands are searched. Wanted is the
host on which the best peer leaves its guests short of less than ours does, or uses less memory or fewer
commands for as much. The worst of each kind is printed as a file for `dynmem simulate`. With `--keep FILE` it
can be stopped at any time, and goes on where it was. With `--law LAW` a peer is searched for in our place:
how far from the best of all laws is any of them?
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bench.duel.hosts import Host
from bench.duel.judge import KINDS, PEERS, Verdict, judged
from bench.duel.kept import Kept
from bench.duel.search import search
from bench.grid import fingerprint
from host_controller.simulator.trial import OURS
from host_controller.simulator.trial_file import render

GOALS: Final = {"unmet": 1.5, "kept": 1.5, "bound": 3.0}
SHRINKING: Final = 0.25
"""Share of the time."""


def told(verdict: Verdict, host: Host) -> str:
    """A file for `dynmem simulate`, with what is wrong on its first line."""
    return f"# {verdict}\n{render(host.tables())}"


def law_mark() -> str:
    """Of all that a verdict depends on."""
    digest = hashlib.sha256(fingerprint(OURS).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 1 when a peer is ahead by more than the goals allow."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1800.0, help="of processor time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a file: what was judged, so that it can be stopped")
    parser.add_argument(
        "--hosts", type=int, help="play so many instead, however long it takes, before shrinking"
    )
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--law", default=OURS, choices=(OURS, *PEERS), help="whose worst hosts are searched")
    options = parser.parse_args(arguments)
    hosts: int | None = options.hosts
    seconds: float = options.seconds
    judge = Kept(partial(judged, law=options.law), options.keep, f"{law_mark()} {options.law}")

    def enough(played: int) -> bool:
        if hosts is not None:
            return played >= hosts
        return judge.spent_seconds > seconds * (1 - SHRINKING)

    def shrunk(played: int) -> bool:
        return played >= 40 or (hosts is None and judge.spent_seconds > seconds)

    worst = search(options.seed, judge, enough, shrunk, tuple(options.kinds))
    print(f"{worst.played} hosts played in {judge.spent_seconds:.0f} s of a processor, seed {options.seed}")
    for kind in options.kinds:
        if kept := worst.by_kind.get(kind):
            print(f"\n{told(*kept[0])}", end="")
            if kept[0][0].ratio < kept[1][0].ratio:
                print(f"# before it was made simpler: {kept[1][0]}")
    # The other kinds were not searched, and nothing about them is said.
    goals = {kind: goal for kind, goal in GOALS.items() if kind in options.kinds}
    found = {kind: worst.by_kind[kind][1][0].ratio for kind in goals if kind in worst.by_kind}
    missed = any(ratio > goals[kind] for kind, ratio in found.items())
    told_goals = ", ".join(f"{kind} <= {goal}" for kind, goal in goals.items())
    print(f"\n{'MISSED' if missed else 'met'}: {told_goals}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
