"""`make test-fleet-quick`: pytest on what it is told, or a sentence: why this machine can have no cluster.

    python -m lab.cluster.quick PYTEST-ARGUMENT…

Exit 0 where packages or namespaces cannot be had: that is no failure of the code. Else what pytest ends with.
"""

import subprocess
import sys

from lab import apt, namespaces
from lab.code_disk import REPOSITORY
from lab.errors import FetchError, LabError


def main() -> int:
    """See above."""
    try:
        apt.install(REPOSITORY / "lab/fleet-packages.txt")
    except FetchError as error:
        return _not_tried(str(error))
    except LabError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    if why_not := namespaces.why_not(namespaces.NODES):
        return _not_tried(why_not)
    return subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], check=False).returncode


def _not_tried(why: str) -> int:
    print(f"the fleet's quick half is not tried: {why}. Once it can be: make test-fleet-quick")
    return 0


if __name__ == "__main__":
    sys.exit(main())
