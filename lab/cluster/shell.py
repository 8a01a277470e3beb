"""Commands of this machine that have to succeed."""

import os
import subprocess

from lab.code_disk import REPOSITORY
from lab.errors import LabError


def of_this_tree() -> dict[str, str]:
    """The environment in which Python takes dynmem from here, in whatever directory it is started.

    Nodes have a root of their own, and the engine starts the arbiter elsewhere again: there Python would take
    the tree that is installed, which may be another.
    """
    return os.environ | {"PYTHONPATH": str(REPOSITORY)}


def run(*command: str) -> None:
    """Raises LabError with what it says."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
