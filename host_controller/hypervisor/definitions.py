"""Definitions of domains, read and written: what `dynmem enable`, `disable` and `set` need of libvirt.

Plain blocking calls on a connection of their own; the controller learns of a change by libvirt's events.
"""

from collections.abc import Callable
from typing import Any, Final, Self

import libvirt

from host_controller.domain_xml.ours import NAMESPACE, PREFIX
from host_controller.hypervisor.about_host import AboutHost
from host_controller.hypervisor.failure import called
from host_controller.hypervisor.opening import found, opened

INACTIVE: Final = libvirt.VIR_DOMAIN_XML_INACTIVE
SECURE: Final = libvirt.VIR_DOMAIN_XML_SECURE
ELEMENT: Final = libvirt.VIR_DOMAIN_METADATA_ELEMENT


class Definition:
    """One domain, running or not; every method asks libvirt anew.

    Raises:
        CallFailed: libvirt said no.
    """

    def __init__(self, connection: Any, domain: Any) -> None:
        self._connection = connection
        self._domain = domain

    @property
    def name(self) -> str:
        """Its name, also when it was asked for by UUID."""
        return str(self._domain.name())

    @property
    def domain(self) -> Any:
        """Libvirt's own object of it."""
        return self._domain

    @property
    def running(self) -> bool:
        """Whether it has a QEMU process."""
        return bool(self.call(self._domain.isActive))

    @property
    def persistent(self) -> bool:
        """Whether it is defined, not only running."""
        return bool(self.call(self._domain.isPersistent))

    @property
    def saved(self) -> bool:
        """Whether its next start restores what `virsh managedsave` has put away."""
        return self.persistent and bool(self.call(self._domain.hasManagedSaveImage))

    def snapshots(self, *, prepared: bool) -> int:
        """How many of its snapshots keep a definition that is prepared, or not: whoever reverts has that."""
        try:
            kept = [str(one.getXMLDesc()) for one in self._domain.listAllSnapshots()]
        except libvirt.libvirtError:  # a driver without them, or one that went while we looked
            return 0
        return sum((NAMESPACE in one) is prepared for one in kept)

    def xml(self, *, secrets: bool = False) -> str:
        """What it starts with next time. With secrets it can be defined again; without, it can be shown."""
        return str(self.call(self._domain.XMLDesc, INACTIVE | (SECURE if secrets else 0)))

    def live_xml(self) -> str:
        """The XML of the running domain, without secrets."""
        return str(self.call(self._domain.XMLDesc, 0))

    def define(self, xml: str) -> None:
        """Replace what it starts with next time."""
        self._domain = self.call(self._connection.defineXML, xml)

    def write_metadata(self, element: str | None) -> None:
        """Replace our element of the running domain, or take it out; the controller sees the event."""
        if element is not None or self.has_live_metadata():
            self.call(
                self._domain.setMetadata, ELEMENT, element, PREFIX, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_LIVE
            )

    def has_live_metadata(self) -> bool:
        """The running domain has an element of ours."""
        return NAMESPACE in self.live_xml()

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """A call of libvirt's about it."""
        return called(function, *arguments, vm=self.name)


class Definitions(AboutHost):
    """A connection for reading and writing definitions. Use it in a `with`, which closes it.

    Raises:
        HypervisorUnreachable: libvirt is not there.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(opened(uri), uri)

    def __enter__(self) -> Self:
        """The connection is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._connection.close()

    def names(self) -> list[str]:
        """Of all domains, running or not."""
        return [name for name, _ in self.listed()]

    def listed(self, *, running: bool = False) -> list[tuple[str, str]]:
        """Name and UUID of all domains, or of those that run. A name may be another's UUID."""
        flags = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE if running else 0
        found = called(self._connection.listAllDomains, flags)
        return sorted((str(one.name()), str(one.UUIDString())) for one in found)

    def find(self, name_or_uuid: str) -> Definition:
        """The domain of that name or UUID.

        Raises:
            DomainNotFound: there is none.
            CallFailed: libvirt does not say.
        """
        return Definition(self._connection, found(self._connection, self._uri, name_or_uuid))
