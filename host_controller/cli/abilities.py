"""What is known of the host, for commands that choose how a VM is to grow on it."""

import platform

from host_controller.domain_xml.growth_choice import HostAbilities
from host_controller.hypervisor.definitions import Definitions
from host_controller.records.burn_in import Versions, newest_of
from host_controller.records.burn_in import load as burn_ins


def abilities(definitions: Definitions) -> HostAbilities:
    """What libvirt says of its host, and what `dynmem verify` found if that is this one."""
    libvirt, qemu = definitions.versions()
    now = Versions(platform.release(), qemu, libvirt)
    kept = newest_of(burn_ins(), now) if definitions.local else None
    return HostAbilities(libvirt, qemu, definitions.address_bits(), None if kept is None else kept.trusts)
