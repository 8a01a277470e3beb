"""`make test-fleet-quick`: pytest on what it is told, or a sentence: why this machine can have no cluster.

    python -m lab.cluster.quick PYTEST-ARGUMENT…

Exit 0 where packages or namespaces cannot be had: that is no failure of the code. Else what pytest ends with.
"""

import os
import sys

from lab import apt, namespaces
from lab.code_disk import REPOSITORY
from lab.errors import FetchError, LabError


def main() -> int:
    """Do what the module's text says; returns the exit code."""
    try:
        apt.install(REPOSITORY / "lab/fleet-packages.txt")
    except FetchError as error:
        return _not_tried(str(error))
    except LabError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    why_not = namespaces.why_not(namespaces.NODES)
    if not why_not:
        # In our place: pytest alone is interrupted then, and clears up.
        os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])
    return _not_tried(why_not)


def _not_tried(why: str) -> int:
    print(f"the fleet's quick half is not tried: {why}. Once it can be: make test-fleet-quick")
    return 0


if __name__ == "__main__":
    sys.exit(main())
