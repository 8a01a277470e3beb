"""What a stopped VM starts with, by the file of its resource; and whether that is prepared."""

import os
import stat
from typing import Final

from host_controller.domain_xml.read import DomainView, read_domain
from host_controller.errors import DynmemError
from host_controller.fleet.core.model import mib_up
from host_controller.fleet.pacemaker.cib import Cib
from host_controller.fleet.pacemaker.needs import Need
from host_controller.neutral import shell_word
from host_controller.units import MIB

LARGEST_BYTES: Final = 1 << 20
OVERHEAD_BYTES: Final = 64 * MIB
"""QEMU's own, as a host counts it before it has seen it."""


def startup_mib(config: str | None) -> int | None:
    """RAM and QEMU's own memory, as its host's hook wants it to be free; None where the file is not here, or
    is no domain's. RAM in huge pages is none of what a host has published.
    """
    domain = _domain(config)
    if domain is None:
        return None
    ram = domain.starts_with_bytes if domain.huge_page_bytes is None else 0
    return mib_up(ram + OVERHEAD_BYTES)


def unprepared(cib: Cib) -> tuple[Need, ...]:
    """VMs whose files can be read here, and that no controller would manage."""
    found = ((one, _domain(one.config)) for one in cib.vms)
    return tuple(
        Need(
            f"{one.name}: {one.config}",
            "not prepared",
            f"dynmem enable --file {shell_word(one.config or '')}",
            "a VM of fixed size that is charged whole",
            by_hand=True,
        )
        for one, domain in found
        if domain is not None and domain.config is None
    )


def _domain(config: str | None) -> DomainView | None:
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
        return read_domain(text.decode())
    except (OSError, ValueError, DynmemError):
        return None
