"""A domain that runs, changed while it does: what adopting and releasing need of libvirt. Blocking calls."""

from xml.etree import ElementTree

import libvirt

from host_controller.domain_xml.read import read_domain
from host_controller.hypervisor.definitions import Definition, Definitions
from host_controller.hypervisor.failure import call_failed
from host_controller.hypervisor.jobs import running_job
from host_controller.hypervisor.memory_devices import resized
from host_controller.units import KIB

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE


class RunningDomain:
    """One domain by its UUID, running or not; every method asks libvirt anew.

    Raises:
        CallFailed: libvirt said no, or the domain has ended meanwhile.
    """

    def __init__(self, definitions: Definitions, name_or_uuid: str) -> None:
        self._definition: Definition = definitions.find(name_or_uuid)
        self._domain = self._definition.domain
        self._call = self._definition.call

    @property
    def name(self) -> str:
        """Its name, as people know it."""
        return self._definition.name

    @property
    def uuid(self) -> str:
        """In lower case."""
        return str(self._call(self._domain.UUIDString))

    def live_xml(self) -> str | None:
        """As it runs; None while it is off."""
        return self._definition.live_xml() if self._definition.running else None

    def definition(self) -> str | None:
        """What it starts with next time, with secrets; None of a transient one."""
        return self._definition.xml(secrets=True) if self._definition.persistent else None

    def job(self) -> str | None:
        """A migration, save or snapshot under way."""
        if not self._definition.running:
            return None
        try:
            return running_job(self._domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                return None  # a driver without jobs
            raise call_failed(error, self.name) from None

    def define(self, xml: str) -> None:
        """Replace what it starts with next time."""
        self._definition.define(xml)

    def write_metadata(self, element: str | None) -> None:
        """Replace our element of the running domain; None takes it out."""
        self._definition.write_metadata(element)

    def ask_statistics(self, seconds: int) -> None:
        """How often its balloon is asked for statistics; 0: never."""
        self._call(self._domain.setMemoryStatsPeriod, seconds, LIVE)

    def plug_channel(self, xml: str) -> None:
        """Plug a channel into the running domain."""
        self._call(self._domain.attachDeviceFlags, xml, LIVE)

    def unplug_channel(self, xml: str) -> None:
        """Unplug a channel from the running domain."""
        self._call(self._domain.detachDeviceFlags, xml, LIVE)

    def set_balloon(self, size_bytes: int) -> None:
        """Send its balloon a target."""
        self._call(self._domain.setMemoryFlags, size_bytes // KIB, LIVE)

    def actual_bytes(self) -> int:
        """RAM less what is in the balloon."""
        return int(self._call(self._domain.memoryStats).get("actual", 0)) * KIB

    def shown_bytes(self) -> int:
        """The same as libvirt shows it to others: what the balloon's driver was last heard of."""
        return int(self._call(self._domain.info)[2]) * KIB - self.virtio_mem_bytes()

    def memory_devices(self) -> int:
        """DIMMs and the like that are plugged."""
        root = ElementTree.fromstring(self._definition.live_xml())  # noqa: S314 # libvirt's own
        return len(root.findall("./devices/memory"))

    def ask_virtio_mem(self, size_bytes: int) -> None:
        """Ask its virtio-mem device for a size."""
        self._call(self._domain.updateDeviceFlags, resized(self._definition.live_xml(), size_bytes), LIVE)

    def virtio_mem_bytes(self) -> int:
        """What its virtio-mem device has plugged; 0 without one."""
        return read_domain(self._definition.live_xml()).virtio_mem_bytes
