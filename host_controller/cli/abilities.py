"""What is known of the host, for commands that choose how a VM is to grow on it."""

from dataclasses import replace

from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.host.memory import (
    RESERVES_ALL,
    default_huge_page_bytes,
    overcommit_memory,
    transparent_huge_page_bytes,
    vfio_mappings,
)
from host_controller.host.proc import PAGE_BYTES
from host_controller.hypervisor.abilities import abilities_of
from host_controller.hypervisor.about_host import AboutHost


def abilities(about: AboutHost) -> HostAbilities:
    """What libvirt says of its host; what the kernel says and `dynmem verify` found, if it is this one."""
    known = abilities_of(about.versions(), local=about.local)
    if about.local:
        known = replace(
            known,
            page_bytes=PAGE_BYTES,
            huge_page_bytes=default_huge_page_bytes(),
            transparent_huge_page_bytes=transparent_huge_page_bytes(),
            vfio_mappings=vfio_mappings(),
            reserves_all=overcommit_memory() == RESERVES_ALL,
        )
    return replace(
        known,
        memory_bytes=about.memory_bytes(),
        address_bits=about.address_bits(),
        device_networks=about.device_networks(),
    )
