"""`make test-suite`: one host or guest of the matrix, by the commit's hash, so that all have their turn.

    make test-suite                 what HEAD's hash says
    make test-suite COMMIT=7369792  what that one's says

docs/compatibility.md stays as it is. Exit 1 where a cell is not as it should be. A suite that cannot be had
is said in a sentence, and is no failure of the code.
"""

import argparse
import subprocess
import sys
from typing import Final

from lab.code_disk import REPOSITORY
from lab.matrix.suites import GUESTS, NOT_FETCHED, SUITES

CHOICES: Final = [("lab.matrix", name) for name in SUITES] + [("lab.matrix.guests", name) for name in GUESTS]


def chosen(commit: str) -> tuple[str, str]:
    """The module to run and its suite. commit: its hash, hexadecimal."""
    return CHOICES[int(commit, 16) % len(CHOICES)]


def main() -> int:
    """See above."""
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
    print(f"commit {commit[:12]} asks for {suite} as a {what}", flush=True)
    code = subprocess.run([sys.executable, "-m", module, suite, "--no-table"], check=False).returncode
    if code == NOT_FETCHED:
        again = f"make test-suite COMMIT={commit[:12]}"
        print(f"{suite} was not tried: it could not be fetched. Once it can be: {again}")
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
