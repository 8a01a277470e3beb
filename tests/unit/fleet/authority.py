"""Certificates for tests: made once, by the command's own code."""

from pathlib import Path

from host_controller.credentials import Credentials
from host_controller.fleet.certificates import make_authority, make_host


def credentials(directory: Path, host: str = "localhost", days: int = 1) -> Credentials:
    make_authority(directory)
    return Credentials.within(make_host(directory, host, days))
