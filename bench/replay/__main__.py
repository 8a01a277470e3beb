"""Does this tree decide what another commit decides, and as fast?

    make replay-proof BASE=12af730       the same commands at the same times
    make bench-against BASE=12af730      in no more than 1.05 × the time

The base's own code records simulated stories and the benchmarks of the engine. Its engine and the one of
this tree then play every recording. What they make of it is compared line by line: commands and their times,
decisions, goals and charges. A redesign changes none of that. A change of the law does, and is shown the
first difference in each story. Where only the operator is told of something else, that is shown as well.

Exit 1 with a difference, and where this tree is slower than that.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
NOW: Final = HERE.parents[1]
STORIES: Final = 20
PAIRS: Final = 25
VMS: Final = 1000
LIMIT: Final = 1.05
"""Of the base's time, at most: the median over the pairs."""


class ReplayError(Exception):
    """Nothing could be compared. Says why, and what to do."""


@dataclass(slots=True)
class Story:
    """What was found in all recordings of one story."""

    lives: int = 0
    """Controllers that followed each other: a recording of each."""
    decisions: int = 0
    commands: Counter[str] = field(default_factory=Counter)
    notices: Counter[str] = field(default_factory=Counter)
    difference: str | None = None
    """The first."""
    told: str | None = None
    """The first where nothing differs but what the operator is told: shown, and no failure."""
    repeated: bool = True
    """The base gives the commands that were recorded. Recordings of an older law it need not repeat."""


def main(arguments: Sequence[str] | None = None) -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="the commit to compare with")
    parser.add_argument("--stories", type=int, default=STORIES, help="how many hosts are simulated")
    parser.add_argument("--recordings", type=Path, help="a directory of recordings that are played as well")
    parser.add_argument(
        "--time", action="store_true", help="compare times in so many pairs, and nothing else"
    )
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--vms", type=int, default=VMS, help="on the host whose steps are timed")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="dynmem-replay-") as directory:
            base = unpack(options.base, Path(directory) / "base")
            if options.time:
                return compare_times(base, options.pairs, options.vms)
            return compare_recordings(base, Path(directory), options.stories, options.recordings)
    except ReplayError as error:
        print(error, file=sys.stderr)
        return 1


def unpack(commit: str, to: Path) -> Path:
    """The files of a commit out of this repository's own history. Raises ReplayError if it is not there."""
    packed = subprocess.run(["git", "archive", commit], cwd=NOW, capture_output=True, check=False)
    if packed.returncode != 0:
        raise ReplayError(
            f"{packed.stderr.decode().strip()}\n"
            f"If this clone is shallow, fetch it: git fetch --unshallow (or: git fetch origin {commit})"
        )
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(to, filter="data")
    return to


def _start(tree: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Have a tree's own code do something (see in_tree.py)."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "in_tree", *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tree), str(HERE)))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _run(tree: Path, *arguments: str) -> None:
    """As `_start`, until it is done."""
    with _start(tree, *arguments) as process:
        process.communicate()
    if process.returncode != 0:
        raise ReplayError(f"`{arguments[0]}` failed in {tree}; the error stands above")


# --- recordings -------------------------------------------------------------------------------------


def compare_recordings(base: Path, directory: Path, stories: int, more: Path | None) -> int:
    """Record with the base, play in both trees, and print a row for each story."""
    recorded, old, new = (directory / name for name in ("recorded", "old", "new"))
    for made in (recorded, old, new):
        made.mkdir()
    _run(base, "record", str(recorded), str(stories))
    found = sorted(recorded.glob("*.jsonl"))
    if more is not None:
        found += sorted(path.resolve() for path in more.glob("*.jsonl*"))
    for tree, traces in ((base, old), (NOW, new)):
        _run(tree, "trace", str(traces), *map(str, found))
    rows: dict[str, Story] = {}
    for recording in found:
        story = rows.setdefault(recording.name.partition(".jsonl")[0].rpartition("-")[0], Story())
        name = f"{recording.name}.trace"
        compare(recording.name, old / name, new / name, story)
    return _tell(rows)


def compare(recording: str, base: Path, now: Path, story: Story) -> None:
    """Count what the base's trace of a recording holds, and keep the first difference from the other."""
    story.lives += 1
    with base.open(encoding="utf-8") as old, now.open(encoding="utf-8") as new:
        for before, after in zip_longest(old, new, fillvalue="{}"):
            expected = json.loads(before)
            story.decisions += 1
            story.commands.update(command.partition("(")[0] for command in expected.get("commands", ()))
            story.notices.update(kind for kind, _ in expected.get("notices", ()))
            story.repeated &= expected.get("as_recorded", True)
            if before == after or story.difference is not None:
                continue
            found = json.loads(after)
            shown = "\n".join(_difference(recording, expected, found))
            if expected | {"notices": None} != found | {"notices": None}:
                story.difference = shown
            else:
                story.told = story.told or shown


def _difference(recording: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    yield f"{recording} at {before.get('at', after.get('at'))}, the first difference (- base, + now):"
    for key in before | after:
        if before.get(key) != after.get(key):
            yield f"- {key}: {json.dumps(before.get(key))}"
            yield f"+ {key}: {json.dumps(after.get(key))}"


def _tell(rows: dict[str, Story]) -> int:
    kinds = sorted({kind for story in rows.values() for kind in story.commands})
    width = max(map(len, rows))
    print(f"{'':{width}}{'lives':>7}{'decisions':>11}" + "".join(f"{kind:>17}" for kind in kinds))
    for name, story in rows.items():
        print(
            f"{name:{width}}{story.lives:7d}{story.decisions:11d}"
            + "".join(f"{story.commands[kind]:17d}" for kind in kinds)
            + ("   same" if story.difference is None else "   DIFFERS")
            + ("" if story.told is None else ", told otherwise")
            + ("" if story.repeated else ", base not as recorded")
        )
    different = [story.difference for story in rows.values() if story.difference is not None]
    otherwise = [story.told for story in rows.values() if story.told is not None]
    told: Counter[str] = sum((story.notices for story in rows.values()), Counter())
    commands = sum(story.commands.total() for story in rows.values())
    decisions = sum(story.decisions for story in rows.values())
    print("told: " + ", ".join(f"{kind} {count}" for kind, count in sorted(told.items())))
    print(f"{len(rows) - len(different)} of {len(rows)} stories the same: ", end="")
    print(f"{commands} commands in {decisions} decisions")
    for shown in (*otherwise, *different):
        print(f"\n{shown}")
    return 1 if different else 0


# --- time -------------------------------------------------------------------------------------------


def compare_times(base: Path, pairs: int, vms: int) -> int:
    """Let both trees take turns, so that what else the machine does befalls both."""
    taken: dict[str, list[tuple[float, float]]] = {}
    with _start(base, "time", str(vms)) as old, _start(NOW, "time", str(vms)) as new:
        for number in range(pairs + 1):
            turns = {side: _turn(side) for side in ((old, new) if number % 2 else (new, old))}
            for name, seconds in turns[old].items() if number else ():  # the first turn warms up
                taken.setdefault(name, []).append((seconds, turns[new][name]))
        for side in (old, new):
            side.communicate()
    print(
        f"{'':12}{'base ms':>10}{'now ms':>10}{'ratio':>8}   medians of {pairs} interleaved pairs; quartiles"
    )
    slow = False
    for name, times in taken.items():
        low, ratio, high = statistics.quantiles((now / before for before, now in times), n=4)
        slow |= ratio > LIMIT
        before, now = (statistics.median(side) * 1000 for side in zip(*times, strict=True))
        print(f"{name:12}{before:10.2f}{now:10.2f}{ratio:8.3f}   {low:.3f} to {high:.3f}")
    return 1 if slow else 0


def _turn(side: "subprocess.Popen[str]") -> dict[str, float]:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write("\n")
    side.stdin.flush()
    line = side.stdout.readline()
    if not line:
        raise ReplayError("it could not be timed; the error stands above")
    turn: dict[str, float] = json.loads(line)
    return turn


if __name__ == "__main__":
    sys.exit(main())
