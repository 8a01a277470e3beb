"""How a VM's kernel comes up: from power on or reset to its balloon driver, and on to its agent."""

import random
import uuid
from typing import TYPE_CHECKING, Final

from host_controller.core.model import RUNNING
from host_controller.simulator.agent import SimulatedAgent
from host_controller.simulator.memory import MEMMAP_SHARE

if TYPE_CHECKING:
    from host_controller.simulator.guest import SimulatedVm

TOUCHING_SHARE: Final = 0.25
"""Of its boot time, until it has touched that."""
BOOT_TOUCHES: Final = 0.8
"""Share of RAM that a booting kernel is taken to touch (fact: actual-survives-reset; 627 of 768 MiB)."""


class Boot:
    """Of one VM. Only time in which its vCPUs run brings it on."""

    def __init__(self, vm: "SimulatedVm", seed: int) -> None:
        self.count = 0
        """Grows with each boot and each power off: what was begun under another is void."""
        self.up_at = 0.0
        """When its driver came up last."""
        self._vm = vm
        self._rng = random.Random(f"{seed} {vm.spec.name}")
        self._ran_before = 0.0
        self._left = 0.0
        self._due = 0.0

    def begin(self) -> None:
        """A kernel starts."""
        vm = self._vm
        self.count += 1
        self._ran_before = vm.ran_seconds
        self._left = vm.spec.boot_seconds
        self._driver_in(self._left)
        if vm.behaviour.reboot_every:
            boot = self.count
            vm.agenda.after(vm.behaviour.reboot_every, lambda: self._reboot(boot))

    def power_on(self) -> None:
        """Its time is counted from here."""
        self._ran_before = 0.0

    def power_off(self) -> None:
        """Nothing of it goes on."""
        self.count += 1

    def halt(self) -> None:
        """The vCPUs stop: what is left is left for later."""
        self._left = max(0.0, self._due - self._vm.agenda.now)

    def go_on(self) -> None:
        """The vCPUs run again."""
        if not self._vm.balloon.alive:
            self._driver_in(self._left)

    @property
    def touched_bytes(self) -> int:
        """What the kernel that boots has touched so far."""
        vm = self._vm
        ran, until = vm.ran_seconds - self._ran_before, TOUCHING_SHARE * vm.spec.boot_seconds
        far = ran / until if ran < until else 1.0  # a kernel may take no time at all
        return int(far * BOOT_TOUCHES * vm.config.boot_ram_bytes)

    def _reboot(self, boot: int) -> None:
        vm = self._vm
        if boot == self.count and vm.state is RUNNING and vm.behaviour.reboot_every:
            vm.reset()

    def _driver_in(self, seconds: float) -> None:
        """So long it still boots, if nobody stops it."""
        vm, boot = self._vm, self.count
        self._due = vm.agenda.now + seconds
        vm.agenda.after(seconds, lambda: self._driver_up(boot))

    def _driver_up(self, boot: int) -> None:
        vm = self._vm
        if boot != self.count or vm.balloon.alive or vm.agenda.now < self._due:
            return
        if vm.state is not RUNNING:
            return  # its time begins anew when it goes on
        if vm.behaviour.hung:
            self._driver_in(1.0)
            return
        vm.memory.resident = float(vm.resident_bytes)
        vm.at = self.up_at = vm.agenda.now
        vm.balloon.come_up()
        vm.memory.memmap = vm.slots.plugged_bytes / MEMMAP_SHARE
        vm.balloon.announce()
        vm.virtio_mem.driver_up()
        if vm.spec.agent:
            vm.agenda.after(vm.spec.agent_seconds, lambda: self._agent_up(boot))
        vm.wake()

    def _agent_up(self, boot: int) -> None:
        vm = self._vm
        if boot != self.count or not vm.balloon.alive:
            return
        vm.advance()
        boot_id = str(uuid.UUID(int=self._rng.getrandbits(128)))
        vm.agent = SimulatedAgent(boot_id, vm.agenda.now, vm.say)
        vm.wake()
