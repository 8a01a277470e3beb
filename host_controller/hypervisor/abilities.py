"""What is known of a libvirt's host: what its versions promise, and what its burn-in has shown."""

import platform

from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.records.burn_in import Versions, newest_of
from host_controller.records.burn_in import load as burn_ins


def abilities_of(versions: tuple[int, int], *, local: bool) -> HostAbilities:
    """What libvirt and QEMU of these `versions` can do here. Reads the kept verdicts, each time.

    local: they are on this machine, whose kernel it is and whose verdicts are kept here.
    """
    libvirt, qemu = versions
    kept = newest_of(burn_ins(), Versions(platform.release(), qemu, libvirt)) if local else None
    return HostAbilities(libvirt, qemu, passed=None if kept is None else kept.passed)
