"""A transient domain that ends with us: what `dynmem verify` runs its guest in."""

import re
from typing import Any, Final

import libvirt

from host_controller.core.model import Dimm
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.view import DomainView
from host_controller.hypervisor.failure import called
from host_controller.hypervisor.libvirt_calls import LIVE
from host_controller.hypervisor.memory_devices import dimm_xml, resized
from host_controller.hypervisor.opening import opened
from host_controller.units import KIB

_RUNNING_AS: Final = re.compile(r"\+(\d+):\+(\d+)")


class ThrowawayDomains:
    """A connection of its own. What was started on it ends when it closes, or when this process ends."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._connection = opened(uri)

    def versions(self) -> tuple[int, int]:
        """Of libvirt and QEMU, as `Survey.versions` has them."""
        return called(self._connection.getLibVersion), called(self._connection.getVersion)

    def owner(self) -> tuple[int, int] | None:
        """User and group as which its QEMUs run; None where it does not say: then as ourselves."""
        found = _RUNNING_AS.search(called(self._connection.getCapabilities))
        return (int(found[1]), int(found[2])) if found else None

    def start(self, xml: str) -> "ThrowawayDomain":
        """Start a domain that nobody defines.

        Raises:
            CallFailed: with libvirt's words; a start hook's are among them.
        """
        return ThrowawayDomain(called(self._connection.createXML, xml, libvirt.VIR_DOMAIN_START_AUTODESTROY))

    def close(self) -> None:
        """End what runs, and let go."""
        self._connection.close()


class ThrowawayDomain:
    """One domain. Sizes are bytes; every method raises CallFailed."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain

    def view(self) -> DomainView:
        """As libvirt describes it now."""
        return read_domain(str(called(self._domain.XMLDesc, 0)))

    def dimms(self) -> tuple[Dimm, ...]:
        """Those that are plugged."""
        return self.view().dimms

    def actual(self) -> int:
        """The balloon's size, bytes; 0 where libvirt does not say it."""
        return int(called(self._domain.memoryStats).get("actual", 0)) * KIB

    def set_balloon(self, target: int) -> None:
        """Ask the balloon for a size of the guest, bytes; it follows by and by."""
        called(self._domain.setMemoryFlags, target // KIB, LIVE)

    def plug(self, size: int) -> str:
        """Hot add a DIMM of so many bytes; its alias."""
        before = {one.alias for one in self.dimms()}
        called(self._domain.attachDeviceFlags, dimm_xml(size), LIVE)
        return next(one.alias for one in self.dimms() if one.alias not in before)

    def unplug(self, alias: str) -> None:
        """Ask for a DIMM back."""
        called(self._domain.detachDeviceAlias, alias, LIVE)

    def resize(self, requested: int) -> None:
        """Ask virtio-mem for so many bytes in all; it follows by and by."""
        called(self._domain.updateDeviceFlags, resized(str(called(self._domain.XMLDesc, 0)), requested), LIVE)

    def virtio_mem(self) -> int:
        """How much virtio-mem has plugged, bytes."""
        return self.view().virtio_mem_bytes

    def reset(self) -> None:
        """Pull the reset line."""
        called(self._domain.reset)

    def end(self) -> None:
        """End it at once, as by pulling the plug."""
        called(self._domain.destroy)
