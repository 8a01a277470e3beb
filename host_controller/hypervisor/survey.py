"""What `dynmem doctor` asks libvirt: read-only, blocking, on a connection of its own."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import libvirt

from host_controller.domain_xml.ours import NAMESPACE
from host_controller.domain_xml.traces import was_prepared
from host_controller.hypervisor.opening import opened, versions


@dataclass(frozen=True, slots=True)
class SurveyedDomain:
    """A managed domain as the doctor sees it, or one that was and has lost its metadata."""

    uuid: str
    name: str
    running: bool
    xml: str
    """Live when it runs."""
    statistics: dict[str, int]


class Survey:
    """A read-only connection; close it."""

    def __init__(self, uri: str) -> None:
        self._connection = opened(uri, read_only=True)

    def versions(self) -> tuple[int, int]:
        """Of libvirt and QEMU, each as major * 1,000,000 + minor * 1,000 + release; 0 where unknown."""
        return versions(self._connection)

    def domains(self) -> Iterator[SurveyedDomain]:
        """Every such domain, in the order of their names. One that is going away is left out."""
        for domain in sorted(self._connection.listAllDomains(), key=lambda one: str(one.name())):
            try:
                found = self._look(domain)
            except libvirt.libvirtError:
                continue
            if found is not None:
                yield found

    def definitions(self) -> Iterator[tuple[str, str | None]]:
        """Every domain's XML, live where it runs, and what it starts with next time; ours or not."""
        for domain in self._connection.listAllDomains():
            try:
                persistent = domain.isPersistent()
                inactive = str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) if persistent else None
                yield str(domain.XMLDesc(0)), inactive
            except libvirt.libvirtError:
                continue

    def close(self) -> None:
        """To be called once, after the last question."""
        self._connection.close()

    @staticmethod
    def _look(domain: Any) -> SurveyedDomain | None:
        running = bool(domain.isActive())
        xml = str(domain.XMLDesc(0))
        if NAMESPACE not in xml and not was_prepared(xml):
            return None
        statistics: dict[str, int] = {}
        if running:
            with suppress(libvirt.libvirtError):  # a job holds it: what its XML says is still worth a look
                statistics = dict(domain.memoryStats())
        return SurveyedDomain(str(domain.UUIDString()), str(domain.name()), running, xml, statistics)
