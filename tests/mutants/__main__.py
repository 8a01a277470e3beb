"""Mutation testing of the core: `python -m tests.mutants [--changed] [FILE ...]`.

A mutant is the core with one small error: `<` for `<=`, a missing argument, another number. It is killed
when a test in `tests/unit/core` fails; only tests that reach it are tried. Whatever survives is in
`survivors.toml`, with the reason why no test is owed, or it is shown here and the exit status is 1.

The library works in `build/mutants`, in a copy: the tree may be edited meanwhile.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.mutants.outcome import CORE, Mutant, read_mutants
from tests.mutants.survivors import LIST, judge, load

TREE: Final = Path(__file__).parents[2]
SCRATCH: Final = TREE / "build/mutants"
TESTS: Final = "tests/unit/core"
PROSE: Final = [
    r"\bnotice\(.*\bf\"",  # what an operator is told
    r"^\s*(f?\"[^\"]*\"[,)]*)+$",  # a line that is nothing but text
    r"^\s*(text|note|what|why|because|word|reason) = f?\"",
    r"^\s*return f\"",
    r"^\s*raise \w+\(f\"",
    r"^\s*assert ",  # for the type checker and the reader
]
"""Lines that are not mutated: they say something to people, and nothing is done by it."""
GOAL_PERCENT: Final = 90.0


def main() -> int:
    """Mutate, test and judge. Returns the exit status."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", nargs="*", type=Path, help=f"of {CORE}; all without")
    parser.add_argument("--changed", action="store_true", help="only what changed since origin/main")
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="processes at once")
    chosen = parser.parse_args()
    files = [path.resolve().relative_to(TREE) for path in chosen.files]
    if chosen.changed and not (files := _changed()):
        print(f"nothing changed in {CORE}")
        return 0
    _copy_tree()
    _configure(files)
    run = [sys.executable, "-m", "tests.mutants.quick", "run", "--max-children", str(chosen.children)]
    done = subprocess.run(run, cwd=SCRATCH, check=False)
    if done.returncode:
        return done.returncode
    with contextlib.chdir(SCRATCH):
        mutants = read_mutants()
    return _report(mutants, whole=not files)


def _changed() -> list[Path]:
    """Files of the core that differ from what origin/main had when this branch left it."""
    base = _git("merge-base", "HEAD", "origin/main")[0]
    names = _git("diff", "--name-only", "--diff-filter=d", base, "--", CORE)
    names += _git("ls-files", "--others", "--exclude-standard", "--", CORE)
    return [Path(name) for name in names if name.endswith(".py")]


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=TREE, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def _copy_tree() -> None:
    shutil.rmtree(SCRATCH, ignore_errors=True)
    for name in _git("ls-files", "--cached", "--others", "--exclude-standard"):
        if (TREE / name).is_file():
            (SCRATCH / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TREE / name, SCRATCH / name)


def _configure(files: list[Path]) -> None:
    """The library reads setup.cfg where pyproject.toml does not speak of it."""
    lists = {
        "source_paths": ["host_controller", "agent"],
        "only_mutate": [str(path) for path in files] or [f"{CORE}/*"],
        "also_copy": ["lab", "bench", "docs", "systemd"],
        "pytest_add_cli_args": ["--assert=plain", "-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": [TESTS],
        "do_not_mutate_patterns": PROSE,
    }
    # A mutant has four times as long as its tests took, and 2 s, of the processor (`quick.py`).
    lines = ["[mutmut]", "timeout_multiplier = 2", "timeout_constant = 0.5"]
    for name, values in lists.items():
        lines += [f"{name} =", *(f"    {value.replace('%', '%%')}" for value in values)]
    (SCRATCH / "setup.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _report(mutants: list[Mutant], *, whole: bool) -> int:
    """Print what was killed, file by file, and what is wrong with that."""
    files = sorted({one.file for one in mutants})
    for file in files:
        _row(file, [one for one in mutants if one.file == file])
    percent = _row("all", mutants)
    unexplained, needless = judge(mutants, load(), whole=whole)
    for one in unexplained:
        print(f"\n{one.status}: {one.file}, {one.function}\n{one.diff}")
    for entry in needless:
        print(f"\nkilled by now, remove it from {LIST.name}: {entry}")
    print(f"\n{len(unexplained)} survivors without a reason; {len(needless)} reasons without a survivor")
    return int(bool(unexplained or needless) or (whole and percent < GOAL_PERCENT))


def _row(name: str, mutants: list[Mutant]) -> float:
    killed = sum(one.killed for one in mutants)
    percent = 100.0 * killed / max(1, len(mutants))
    print(f"{name:<28} {killed:>5} of {len(mutants):>5} killed  {percent:5.1f} %")
    return percent


if __name__ == "__main__":
    sys.exit(main())
