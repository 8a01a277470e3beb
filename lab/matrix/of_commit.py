"""`make test-suite`: one host or guest of the matrix, by the commit's hash, so that all have their turn.

    make test-suite                 what HEAD's hash says
    make test-suite COMMIT=7369792  what that one's says

docs/compatibility.md stays as it is. Exit 1 where a cell is not as it should be, with what was said. A suite
that cannot be had is counted in the last line, and is no failure of the code; nor is a machine that gives us
no namespaces.
"""

import argparse
import os
import signal
import subprocess
import sys
from typing import Final

from lab import namespaces
from lab.code_disk import REPOSITORY
from lab.matrix import runs
from lab.matrix.suites import GUESTS, NOT_FETCHED, SUITES

CHOICES: Final = [("lab.matrix", name) for name in SUITES] + [("lab.matrix.guests", name) for name in GUESTS]

LOGS: Final = {"lab.matrix": runs.HOSTS_LOG, "lab.matrix.guests": runs.GUESTS_LOG}
_SHOWN: Final = 20_000
"""Characters of a log, its last."""


def chosen(commit: str) -> tuple[str, str]:
    """The module to run and its suite. commit: its hash, hexadecimal."""
    return CHOICES[int(commit, 16) % len(CHOICES)]


def main() -> int:
    """Do what the module's text says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make test-suite", description=__doc__)
    parser.add_argument("commit", nargs="?", default="HEAD")
    asked = parser.parse_args().commit
    found = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "--verify", f"{asked}^{{commit}}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode != 0:
        parser.error(f"no commit is called {asked}: {found.stderr.strip()}")
    module, suite = chosen(commit := found.stdout.strip())
    what = "guest" if module == "lab.matrix.guests" else "host"
    again = f"make test-suite COMMIT={commit[:12]}"
    print(f"commit {commit[:12]} asks for {suite} as a {what}", flush=True)
    # Without root a guest's image comes by way of a user namespace.
    is_entered = module == "lab.matrix" or os.geteuid() == 0
    if is_entered and (why_not := namespaces.why_not(namespaces.ROOTS)):
        print(f"0 of 1 suites tried: {suite} is not, since {why_not}. Once it can be: {again}")
        return 0
    # Interrupted, it clears up: `subprocess.run` would kill it a quarter of a second after that.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run([sys.executable, "-m", module, suite, "--no-table"], check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code == NOT_FETCHED:
        print(f"0 of 1 suites tried: {suite} could not be fetched. Once it can be: {again}")
        return 0
    if code != 0 and LOGS[module].exists():
        print(LOGS[module].read_text(encoding="utf-8")[-_SHOWN:])
    print("1 of 1 suites tried")
    return code


if __name__ == "__main__":
    sys.exit(main())
