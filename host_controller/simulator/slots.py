"""A VM's DIMM slots, and what its guest does with the DIMMs in them (docs/facts.md, DIMMs)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent import wire
from agent.report import Blocks
from host_controller.core import interface as hv
from host_controller.core.model import MEMORY_BLOCK_BYTES, PAUSED, Dimm
from host_controller.simulator.behaviours import HotAdd, Unplug
from host_controller.simulator.memory import MEMMAP_SHARE
from host_controller.units import GIB, round_down, round_up

if TYPE_CHECKING:
    from host_controller.simulator.guest import SimulatedVm

DISCOVER_SECONDS: Final = 0.02
ONLINE_SECONDS: Final = 0.16
"""From plugged to in MemTotal (fact: hot-add-times)."""
OFFLINE_SECONDS: Final = 0.5
UNPLUG_OFFLINE_SECONDS: Final = 0.2
UNPLUG_ONLINE_SECONDS: Final = 2.0
STARVED_SECONDS: Final = 25.0
"""What a guest does without for want of memory for the page structures of a DIMM
(fact: page-structures-need-memory)."""
PATIENCE_SECONDS: Final = 1.0
"""How often a guest that stands still is looked at again."""
FIRST_BASE: Final = 4 * GIB


@dataclass(slots=True)
class SimulatedDimm:
    """A plugged DIMM and what the guest does with it."""

    dimm: Dimm
    zone: wire.Zone | None = None
    """None: offline."""
    gone_bytes: int = 0
    """Of an online one: blocks that were taken offline when the rest would not go."""
    announced: bool = False
    """The guest's kernel has taken QEMU's plug event; until it has, the event is all that is heard."""


class Slots:
    """One VM's DIMM slots, and what the guest does with the DIMMs in them."""

    def __init__(self, vm: "SimulatedVm") -> None:
        self.dimms: list[SimulatedDimm] = []
        self.plugged_bytes = 0
        """The sum of them."""
        self._vm = vm
        self._made = 0

    def clear(self) -> None:
        """QEMU starts anew: without any."""
        self.dimms.clear()
        self.plugged_bytes = 0

    @property
    def offline_bytes(self) -> int:
        """Plugged and not onlined."""
        return sum(d.dimm.size_bytes if d.zone is None else d.gone_bytes for d in self.dimms)

    def blocks(self) -> Blocks:
        """What the agent reads in /sys/devices/system/memory; a block that is there in part counts whole."""
        memory, device = self._vm.memory, self._vm.virtio_mem
        movable, kernel = (round_up(size, MEMORY_BLOCK_BYTES) for size in (device.movable, device.kernel))
        boot = round_up(int(memory.boot), MEMORY_BLOCK_BYTES)
        online = boot + int(memory.online) - device.online + movable + kernel
        offline = self.offline_bytes + round_up(device.offline, MEMORY_BLOCK_BYTES)
        return Blocks(online, offline, int(memory.movable) - device.movable + movable)

    def plug(self, size_bytes: int) -> str | None:
        """Hot-add a DIMM; the reason if QEMU refuses it."""
        vm = self._vm
        if vm.behaviour.hot_add is HotAdd.REFUSED:
            return "memory hot add failed"
        if len(self.dimms) >= vm.config.slots:
            return "no free memory slot"
        if vm.ram_bytes + size_bytes > vm.config.limits.maximum_bytes:
            return "exceeds the domain's maxMemory"
        if size_bytes <= 0 or size_bytes % MEMORY_BLOCK_BYTES:
            return "not a multiple of the memory block"
        ends = [(d.dimm.base_bytes or 0) + d.dimm.size_bytes for d in self.dimms]
        dimm = Dimm(f"dimm{self._made}", size_bytes, max(FIRST_BASE, *ends, 0))
        self._made += 1
        self.dimms.append(SimulatedDimm(dimm))
        self.plugged_bytes += size_bytes
        self._changed()
        boot = vm.boots
        self._later(DISCOVER_SECONDS, lambda: self._discover(dimm.alias, boot))
        return None

    def unplug(self, alias: str) -> str | None:
        """Ask for a DIMM back; the reason if there is no such DIMM."""
        vm = self._vm
        found = self._find(alias)
        if found is None:
            return f"no DIMM {alias}"
        if not found.announced:
            found.announced = True
            return None
        seconds = UNPLUG_OFFLINE_SECONDS if found.zone is None else UNPLUG_ONLINE_SECONDS
        if vm.behaviour.unplug is not Unplug.IGNORED:
            self._later(seconds, lambda: self._eject(alias))
        return None

    def change(self, request: wire.Offline | wire.Online, zone: wire.Zone | None) -> None:
        """The agent takes a named range on- or offline; only whole DIMMs are named here."""
        vm = self._vm
        if vm.agent is None or not vm.up:
            return
        vm.advance()
        changed = 0
        detail = ""
        for found in self.dimms:
            base = found.dimm.base_bytes or 0
            if not request.start_bytes <= base < request.start_bytes + request.size_bytes:
                continue
            if zone is None and found.zone is not None:
                if vm.behaviour.unplug is Unplug.WORKS and self._take_offline(found):
                    changed += found.dimm.size_bytes
                else:
                    changed += self._take_half(found)
                    detail = "the rest is still online"
            elif zone is not None and found.gone_bytes:
                changed += self._bring_back(found)
            elif zone is not None and found.zone is None and vm.behaviour.hot_add is HotAdd.WORKS:
                self._online(found.dimm.alias, zone, vm.boots)
                changed += found.dimm.size_bytes
        vm.agent.acknowledge(request.request_id, changed, detail)
        self._noticed()

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        """The guest does it, or once its vCPUs run again: what it was told waits in its devices."""
        vm = self._vm

        def act() -> None:
            if vm.state is PAUSED or vm.is_away:
                self._later(PATIENCE_SECONDS, what)
            else:
                what()

        vm.agenda.after(seconds, act)

    def _find(self, alias: str) -> SimulatedDimm | None:
        return next((d for d in self.dimms if d.dimm.alias == alias), None)

    def _discover(self, alias: str, boot: int) -> None:
        """The guest's kernel finds a new DIMM: its page structures come out of what is free."""
        vm = self._vm
        found = self._find(alias)
        if found is None or boot != vm.boots or not vm.up:
            return
        found.announced = True
        vm.advance()
        if not vm.memory.describe_more(found.dimm.size_bytes):
            vm.starve(STARVED_SECONDS)
            return
        if vm.behaviour.hot_add is HotAdd.WORKS and vm.agent is not None and vm.agent.zone:
            zone = vm.agent.zone
            self._later(ONLINE_SECONDS, lambda: self._online(alias, zone, boot))
        self._noticed()

    def _online(self, alias: str, zone: wire.Zone, boot: int) -> None:
        vm = self._vm
        found = self._find(alias)
        if found is None or boot != vm.boots or found.zone is not None or not vm.up:
            return
        vm.advance()
        found.zone = zone
        vm.memory.online += found.dimm.size_bytes
        if zone == "movable":
            vm.memory.movable += found.dimm.size_bytes
        self._noticed()

    def _eject(self, alias: str) -> None:
        vm = self._vm
        found = self._find(alias)
        if found is None or not vm.up:
            return  # nobody is there who would answer
        vm.advance()
        stays = vm.behaviour.unplug in (Unplug.REFUSED, Unplug.IN_PART)
        if stays or not self._take_offline(found):
            vm.emit(hv.DimmRefused(vm.uuid, alias))
            return
        self.dimms.remove(found)
        self.plugged_bytes -= found.dimm.size_bytes
        vm.memory.memmap = max(0.0, vm.memory.memmap - found.dimm.size_bytes / MEMMAP_SHARE)
        self._changed()
        vm.balloon.announce()
        self._noticed()

    def _take_offline(self, found: SimulatedDimm) -> bool:
        if found.zone is None:
            return True
        left = found.dimm.size_bytes - found.gone_bytes
        if found.zone == "kernel" or not self._vm.memory.take_out(left, movable=True):
            return False
        found.zone, found.gone_bytes = None, 0
        return True

    def _take_half(self, found: SimulatedDimm) -> int:
        """Some blocks go offline before one is met that does not."""
        half = round_down(found.dimm.size_bytes // 2, MEMORY_BLOCK_BYTES) - found.gone_bytes
        movable = found.zone == "movable"
        if self._vm.behaviour.unplug is not Unplug.IN_PART or half <= 0 or not movable:
            return 0
        if not self._vm.memory.take_out(half, movable=True):
            return 0
        found.gone_bytes += half
        return half

    def _bring_back(self, found: SimulatedDimm) -> int:
        back, found.gone_bytes = found.gone_bytes, 0
        self._vm.memory.online += back
        self._vm.memory.movable += back
        return back

    def _changed(self) -> None:
        self._vm.emit(hv.DimmsChanged(self._vm.uuid, self._vm.dimm_list()))

    def _noticed(self) -> None:
        if self._vm.agent is not None:
            self._vm.agent.reporter.force("hotplug", self._vm.agenda.now)
        self._vm.wake()
