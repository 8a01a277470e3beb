"""What libvirt says of its host. Plain blocking calls, for commands."""

from typing import Any
from xml.etree import ElementTree

import libvirt

from host_controller.domain_xml.values import attribute_number
from host_controller.host.libvirt_run import is_local
from host_controller.hypervisor.networks import device_networks
from host_controller.hypervisor.opening import versions
from host_controller.units import MIB


class AboutHost:
    """A connection of somebody's who closes it, and where it leads."""

    def __init__(self, connection: Any, uri: str) -> None:
        self._connection = connection
        self._uri = uri

    @property
    def local(self) -> bool:
        """Whether it is the libvirt of this machine."""
        return is_local(self._uri)

    def versions(self) -> tuple[int, int]:
        """Of libvirt and QEMU, each as major * 1,000,000 + minor * 1,000 + release; 0 where unknown."""
        return versions(self._connection)

    def memory_bytes(self) -> int | None:
        """All RAM of the host; None where libvirt does not say."""
        try:
            return int(self._connection.getInfo()[1]) * MIB or None
        except (libvirt.libvirtError, LookupError, TypeError):
            return None

    def address_bits(self) -> int | None:
        """Physical address bits of the host's processors; None where libvirt does not say."""
        try:
            capabilities = ElementTree.fromstring(self._connection.getCapabilities())  # noqa: S314 # libvirt's
        except (libvirt.libvirtError, ElementTree.ParseError):
            return None
        return attribute_number(capabilities.find("./host/cpu/maxphysaddr"), "bits") or None

    def device_networks(self) -> frozenset[str]:
        """Networks that hand out devices of the host."""
        return device_networks(self._connection)
