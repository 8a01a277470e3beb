"""What a stopped VM starts with, from the file that its resource is started from."""

import os
import stat
from typing import Final

from host_controller.domain_xml.read import read_domain
from host_controller.errors import DynmemError
from host_controller.fleet.core.model import mib_up
from host_controller.units import MIB

LARGEST_BYTES: Final = 1 << 20
OVERHEAD_BYTES: Final = 64 * MIB
"""QEMU's own, as a host counts it before it has seen it."""


def startup_mib(config: str | None) -> int | None:
    """RAM and QEMU's own memory; None where the file is not here, or is no domain's."""
    if config is None:
        return None
    try:
        descriptor = os.open(config, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            text = file.read(LARGEST_BYTES + 1)
        if len(text) > LARGEST_BYTES or b"<!DOCTYPE" in text:
            return None
        domain = read_domain(text.decode())
    except (OSError, ValueError, DynmemError):
        return None
    return mib_up(domain.ram_bytes + OVERHEAD_BYTES)
