"""A simulated VM's virtio-mem device and the guest's driver for it.

The driver goes for the requested size by itself, in both directions, as far as it can, and tries again later
what it could not. A reset unplugs all and leaves the request, so that a new kernel takes it all again. QEMU
tells the plugged size once a second at most.
"""

from typing import TYPE_CHECKING, Final

from host_controller.core import interface as hv
from host_controller.core.model import MEMORY_BLOCK_BYTES, OFF
from host_controller.simulator.behaviours import HotAdd, Unplug
from host_controller.simulator.memory import MEMMAP_SHARE
from host_controller.units import round_down

if TYPE_CHECKING:
    from agent import wire
    from host_controller.simulator.guest import SimulatedVm

EVENT_SECONDS: Final = 1.0
PLUG_SECONDS: Final = 0.16
"""From the request to MemTotal, one memory block."""
UNPLUG_SECONDS: Final = 0.3
"""One memory block whose pages are moved away."""
RETRY_SECONDS: Final = 5.0


class VirtioMem:
    """Of one VM. Sizes are bytes."""

    def __init__(self, vm: "SimulatedVm") -> None:
        self.requested = 0
        self.movable = 0
        """Plugged and online, in each zone."""
        self.kernel = 0
        self.offline = 0
        """Plugged, and nobody brought it online."""
        self._vm = vm
        self._told = 0
        self._told_at = -EVENT_SECONDS
        self._tell_due = False
        self._works = 0
        self._busy_until = 0.0

    @property
    def current(self) -> int:
        """What is plugged, bytes."""
        return self.movable + self.kernel + self.offline

    @property
    def online(self) -> int:
        """Of that, in MemTotal."""
        return self.movable + self.kernel

    def request(self, size_bytes: int) -> str | None:
        """QEMU's command; the reason if it refuses."""
        config = self._vm.config
        if size_bytes > config.virtio_mem_bytes or size_bytes % config.virtio_mem_block_bytes:
            return "the size is larger than the device, or no multiple of its block"
        if self._vm.behaviour.hot_add is HotAdd.REFUSED and size_bytes > self.requested:
            return "the device refuses to be resized"
        self.requested = size_bytes
        # What it gives back its driver ends first, and then looks at another size. (A size that grows in many
        # steps still comes sooner than from a real one.)
        self._go_on(max(0.0, self._busy_until - self._vm.agenda.now))
        return None

    def reset(self, *, powered_off: bool = False) -> None:
        """QEMU unplugs all; what was requested stays, but for a new start."""
        self.movable = self.kernel = self.offline = 0
        if powered_off:
            self.requested = self._told = 0
        else:
            self._tell()

    def driver_up(self) -> None:
        """The driver of a new kernel looks at what is requested."""
        self._go_on(0.0)

    def _go_on(self, seconds: float) -> None:
        self._works += 1
        mine, boot = self._works, self._vm.boots
        self._vm.agenda.after(seconds, lambda: self._work(mine, boot))

    def _work(self, mine: int, boot: int) -> None:
        """One memory block's worth."""
        vm = self._vm
        if mine != self._works or boot != vm.boots or self.requested == self.current:
            return
        if not vm.up:
            self._go_on(1.0)
            return
        vm.advance()
        if self._sets_aside():
            return
        if self.requested > self.current:
            moved, pause = self._plug(), PLUG_SECONDS
        else:
            moved = self._unplug()
            pause = 0.0 if vm.behaviour.sets_aside else UNPLUG_SECONDS
            self._busy_until = vm.agenda.now + pause if moved else 0.0
        if moved:
            self._tell()
            if vm.agent is not None:
                vm.agent.reporter.force("hotplug", vm.agenda.now)
            vm.wake()
        self._go_on(pause if moved else RETRY_SECONDS)

    def _sets_aside(self) -> bool:
        """Whether a whole block begins to leave: it is gone at the next look. (What is less goes at once.)"""
        vm, memory = self._vm, self._vm.memory
        begun, memory.aside = memory.aside, 0.0
        leaves = min(self.current - self.requested, self.movable) >= MEMORY_BLOCK_BYTES and not self.offline
        if begun or not leaves or not vm.behaviour.sets_aside:
            return False
        memory.set_aside(float(MEMORY_BLOCK_BYTES))
        if not memory.aside:
            return False
        self._busy_until = vm.agenda.now + UNPLUG_SECONDS
        vm.wake()
        self._go_on(UNPLUG_SECONDS)
        return True

    def _plug(self) -> int:
        vm, memory = self._vm, self._vm.memory
        size = min(self.requested - self.current, MEMORY_BLOCK_BYTES)
        if vm.behaviour.hot_add is HotAdd.IGNORED or not memory.describe_more(size):
            return 0
        zone: wire.Zone | None = vm.agent.zone if vm.agent is not None else None
        stays_offline = zone is None or vm.behaviour.hot_add is HotAdd.NEVER_ONLINE
        # What is plugged in a memory block that is online is online at once, whatever the agent does.
        begun = -self.online % MEMORY_BLOCK_BYTES
        idle = max(0, size - begun) if stays_offline else 0
        comes = size - idle
        self.offline += idle
        memory.online += comes
        if zone == "movable" or (zone is None and self.movable):
            self.movable += comes
            memory.movable += comes
        else:
            self.kernel += comes
        return size

    def _unplug(self) -> int:
        """Offline blocks first; of online ones those whose pages can be moved away."""
        vm, memory = self._vm, self._vm.memory
        block = vm.config.virtio_mem_block_bytes
        if vm.behaviour.unplug in (Unplug.REFUSED, Unplug.IGNORED):
            return 0
        excess = min(self.current - self.requested, MEMORY_BLOCK_BYTES)
        idle = min(excess, self.offline)
        self.offline -= idle
        size = min(excess - idle, self.movable)
        if vm.behaviour.unplug is Unplug.IN_PART:
            size = round_down(size // 2, block)
        room = memory.free + memory.droppable - memory.min_mark
        size = max(0, min(size, round_down(int(max(0.0, room)), block)))
        if size and memory.take_out(size, movable=True):
            self.movable -= size
        else:
            size = 0
        memory.memmap = max(0.0, memory.memmap - (idle + size) / MEMMAP_SHARE)
        return idle + size

    def look(self) -> None:
        """Somebody looks at the VM: what is plugged and what is asked for are told as they are."""
        vm = self._vm
        if vm.state is not OFF:
            self._told = self.current
            vm.emit(hv.VirtioMemChanged(vm.uuid, self.current, self.requested))

    def _tell(self) -> None:
        """QEMU's event, as soon as another is allowed."""
        vm = self._vm
        if self._tell_due:
            return
        wait = self._told_at + EVENT_SECONDS - vm.agenda.now
        if wait <= 0.0:
            self._send()
        else:
            self._tell_due = True
            vm.agenda.after(wait, self._send)

    def _send(self) -> None:
        self._tell_due = False
        vm = self._vm
        if vm.state is OFF or self._told == self.current:
            return
        self._told, self._told_at = self.current, vm.agenda.now
        vm.emit(hv.VirtioMemChanged(vm.uuid, self.current, self.requested))
