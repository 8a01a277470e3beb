"""A running domain as libvirt keeps it, as far as adopting goes: XML that changes with each call."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

from host_controller.adoption.facts import Facts
from host_controller.core.model import VIRTIO_MEM_BLOCK_BYTES as BLOCK
from host_controller.core.model import Growth
from host_controller.domain_xml.ours import NAMESPACE
from host_controller.domain_xml.read import read_domain
from host_controller.errors import CallFailed
from host_controller.units import KIB
from tests.support.others import inactive

OURS = re.compile(r"<dynmem:vm [^>]*/>|<dynmem:vm .*?</dynmem:vm>", re.DOTALL)
DIMM_KIB = 131072
DIMM = f"<memory model='dimm'><target><size unit='KiB'>{DIMM_KIB}</size><node>0</node></target></memory>"


class LibvirtDomain:
    """`fail_at`: the number of the call, from 1 on, that fails; `stuck`: its balloon does not move."""

    def __init__(self, live: str, *, persistent: bool = True) -> None:
        self.live: str | None = live
        self.defined = inactive(live) if persistent else None
        self.calls: list[str] = []
        self.fail_at = 0
        self.now = 0.0
        self.stuck = False
        self.later: list[tuple[float, Callable[[], None]]] = []
        """What happens to it, and when: in order."""
        self._stale_bytes = 0
        """How far what libvirt shows is above where its balloon is."""

    def facts(self, job: str | None = None) -> Facts:
        live = self.live
        view = read_domain(live or self.defined or "")
        return Facts(view.name, view.uuid, live, self.defined, job)

    # --- what a plan does ---

    def live_xml(self) -> str | None:
        return self.live

    def definition(self) -> str | None:
        return self.defined

    def define(self, xml: str) -> None:
        self._call("define")
        self.defined = xml

    def write_metadata(self, element: str | None) -> None:
        self._call("metadata")
        live = self._running()
        live = OURS.sub("", live)
        live = re.sub(r"<metadata>\s*</metadata>", "", live)
        if element is not None:
            root = ElementTree.fromstring(element)
            for one in root.iter():  # as virDomainSetMetadata does
                one.tag = f"{{{NAMESPACE}}}{one.tag}"
            ElementTree.register_namespace("dynmem", NAMESPACE)
            text = ElementTree.tostring(root, encoding="unicode")
            where = "</metadata>" if "</metadata>" in live else "<memory unit"
            text = text if where == "</metadata>" else f"<metadata>{text}</metadata>\n  "
            live = live.replace(where, text + where, 1)
        self.live = live

    def ask_statistics(self, seconds: int) -> None:
        self._call(f"statistics {seconds}")
        live = re.sub(r"<stats period='\d+'/>\s*", "", self._running())
        stats = f"<stats period='{seconds}'/>\n      " if seconds else ""
        self.live = live.replace("<alias name='balloon0'/>", stats + "<alias name='balloon0'/>")

    def plug_channel(self, xml: str) -> None:
        self._call("plug")
        named = "<alias name='channel9'/><address type='virtio-serial' controller='0' bus='0' port='9'/>"
        plugged = xml.replace("</channel>", f"{named}</channel>")
        self.live = self._running().replace("<memballoon", plugged + "<memballoon")

    def unplug_channel(self, xml: str) -> None:
        self._call("unplug")
        self.live = re.sub(r"<channel type='unix'><target[^>]*dynmem.*?</channel>", "", self._running())

    def set_balloon(self, size_bytes: int) -> None:
        self._call("balloon")
        if not self.stuck and size_bytes != self.actual_bytes():
            self._stale_bytes = 0  # it moves, and tells of it
            self.has(size_bytes + self.virtio_mem_bytes())

    def actual_bytes(self) -> int:
        return self.shown_bytes() - self._stale_bytes

    def shown_bytes(self) -> int:
        shown = re.search(r"<currentMemory unit='KiB'>(\d+)", self._running())
        assert shown is not None
        return int(shown[1]) * KIB - self.virtio_mem_bytes()

    def memory_devices(self) -> int:
        return self._running().count("<memory model")

    def ask_virtio_mem(self, size_bytes: int) -> None:
        self._call("virtio-mem")
        self.asked(size_bytes)
        if not self.stuck:
            self.plugged(size_bytes)

    def virtio_mem_bytes(self) -> int:
        return read_domain(self._running()).virtio_mem_bytes

    # --- what others do ---

    def asked(self, size_bytes: int) -> None:
        """Somebody asks its virtio-mem device for that."""
        self._device("requested", size_bytes)

    def plugged(self, size_bytes: int) -> None:
        """Its guest has taken that; libvirt counts it in currentMemory."""
        actual = self.actual_bytes()
        self._device("current", size_bytes)
        self.has(actual + size_bytes)

    def _device(self, tag: str, size_bytes: int) -> None:
        self.live = re.sub(rf"(<{tag} unit='KiB'>)\d+", rf"\g<1>{size_bytes // KIB}", self._running())

    def has(self, size_bytes: int) -> None:
        """Its balloon is there now; what virtio-mem has plugged counts, too."""
        live = self._running()
        self.live = re.sub(r"(<currentMemory unit='KiB'>)\d+", rf"\g<1>{size_bytes // KIB}", live, count=1)

    def shows(self, size_bytes: int) -> None:
        """QEMU tells late of a move of its balloon, which was before a DIMM left."""
        self._stale_bytes = size_bytes - self.actual_bytes()
        self.has(size_bytes)

    def plug(self, dimms: int) -> None:
        """So many DIMMs come, or go."""
        there = self.memory_devices() + dimms
        live = self._running().replace(DIMM, "").replace("<memballoon", DIMM * there + "<memballoon")
        ram = re.search(r"<memory unit='KiB'>(\d+)", live)
        assert ram is not None
        self.live = live.replace(ram[0], f"<memory unit='KiB'>{int(ram[1]) + dimms * DIMM_KIB}", 1)

    def sleep(self, seconds: float) -> None:
        """Time passes, in which a controller gives it what it is owed."""
        self.now += seconds
        while self.later and self.later[0][0] <= self.now:
            self.later.pop(0)[1]()
        config = read_domain(self._running(), self.defined).config
        if config is None or self.stuck:
            return
        owed = config.limits.minimum_bytes - KIB
        if config.growth is Growth.VIRTIO_MEM:
            self.asked(max(0, owed - config.boot_ram_bytes) // BLOCK * BLOCK)
            self.plugged(max(0, owed - config.boot_ram_bytes) // BLOCK * BLOCK)
            owed = min(owed, config.boot_ram_bytes)
        self.has(max(self.actual_bytes(), owed) + self.virtio_mem_bytes())

    def stop(self) -> None:
        """The guest shuts down."""
        self.live = None

    def _running(self) -> str:
        if self.live is None:
            raise CallFailed("domain is not running")
        return self.live

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if len(self.calls) == self.fail_at:
            raise CallFailed("no answer")
        if what != "define":
            self._running()
