"""What is known of the host, for commands that choose how a VM is to grow on it."""

from dataclasses import replace

from host_controller.domain_xml.growth_choice import HostAbilities
from host_controller.hypervisor.abilities import abilities_of
from host_controller.hypervisor.definitions import Definitions


def abilities(definitions: Definitions) -> HostAbilities:
    """What libvirt says of its host, and what `dynmem verify` found if that is this one."""
    known = abilities_of(definitions.versions(), local=definitions.local)
    return replace(known, address_bits=definitions.address_bits())
