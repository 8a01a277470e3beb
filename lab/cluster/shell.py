"""Commands of this machine that have to succeed."""

import subprocess

from lab.errors import LabError


def run(*command: str) -> None:
    """Raises LabError with what it says."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
