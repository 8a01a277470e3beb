"""What the fleet's arbiter knows, kept in files: the controller beside it serves that with its own.

So whoever asks all hosts for `/metrics` has the fleet's figures too, from wherever the arbiter runs. The page
of that host shows the fleet.
"""

import os
import stat
from pathlib import Path
from typing import Final

from host_controller.private import private_directory, replace_private

METRICS: Final = Path("/var/lib/dynmem/fleet/metrics.prom")
STATUS: Final = METRICS.with_name("status.json")
FRESH_SECONDS: Final = 120.0
"""What is older is of an arbiter that runs no more, or elsewhere."""
LARGEST_BYTES: Final = 4 << 20
"""640 VMs take 200 KiB."""


def keep(text: bytes, file: Path) -> None:
    """Replace what is there, at once.

    Raises:
        OSError
    """
    private_directory(file.parent)
    replace_private(file, text)


def fresh(now: float, file: Path) -> bytes:
    """What was kept lately; nothing where that is old, or cannot be read. `now`: seconds since 1970."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as opened:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode) or not abs(now - about.st_mtime) <= FRESH_SECONDS:
                return b""
            text = opened.read(LARGEST_BYTES + 1)
    except OSError:
        return b""
    return text if len(text) <= LARGEST_BYTES else b""
