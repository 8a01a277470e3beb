"""Brings a VM to the size that a law wants, in the VM's own way of growing.

A law says one figure for each VM: how much it is to have. The same hands carry that out for every law:

- balloon: the balloon's target.
- hot add: DIMMs until RAM holds the size, and the balloon for the rest. DIMMs stay; who is to have less gets
  a larger balloon. A DIMM is as large as is wanted now, but never so small that the slots would run out
  before maximum, nor larger than the guest can describe with half of what it has free.
- virtio-mem: memory comes from the balloon first, and leaves from the device first.

All of it is in the law's favour: the zone is named at once, and what a guest is up to is known without delay.
"""

from collections.abc import Iterator
from typing import Final

from host_controller.core.interface import AttachDimm, Command, ResizeVirtioMem, SetTarget
from host_controller.core.model import MEMORY_BLOCK_BYTES, Growth
from host_controller.simulator.guest import SimulatedVm
from host_controller.simulator.memory import MEMMAP_SHARE
from host_controller.units import round_down, round_up

PAGE_BYTES: Final = 1 << 12
FREE_SHARE: Final = 2
"""One part of so many of what is free may go into page structures."""


def size_bytes(vm: SimulatedVm) -> int:
    """What its guest can work with: RAM and device, less what is ballooned or not online."""
    return vm.actual_bytes - vm.slots.offline_bytes + vm.virtio_mem.online


def charged_bytes(vm: SimulatedVm) -> int:
    """What has been given to it, online or not."""
    return vm.actual_bytes + vm.virtio_mem.current


class Sizing:
    """One VM, and the size that it is to have. It acts on what it sees; nothing has to be kept in step."""

    def __init__(self, vm: SimulatedVm) -> None:
        self.vm = vm
        self.wanted_bytes: int | None = None
        """None until the law has said something."""
        self._sent: int | None = None
        """The wanted size that has been asked for in full."""
        self._aimed: tuple[int, int] | None = None
        """The last balloon target, and the RAM that it was meant for."""

    def want(self, size: float) -> None:
        """The law has spoken; bytes."""
        limits = self.vm.config.limits
        self.wanted_bytes = min(round_up(int(size), PAGE_BYTES), limits.maximum_bytes)

    @property
    def finished(self) -> bool:
        """Nothing more has to be sent: what was asked for is done, or is being done by the guest."""
        vm = self.vm
        if self.wanted_bytes is None:
            return True
        growing = vm.config.growth is Growth.HOTADD and self.wanted_bytes > size_bytes(vm)
        waits = growing and (bool(vm.slots.offline_bytes) or bool(self._next_dimm()))
        return not waits and self._sent == self.wanted_bytes

    @property
    def _onlines(self) -> bool:
        """Its agent is there and knows its zone: before that, new memory would stay offline for good."""
        agent = self.vm.agent
        return self.vm.config.growth is Growth.BALLOON or (agent is not None and agent.zone is not None)

    def commands(self, ticket: int) -> Iterator[Command]:
        """What brings it nearer now; each takes the next ticket."""
        if self.wanted_bytes is None or not self._onlines:
            return
        vm = self.vm
        growth = vm.config.growth
        if growth is Growth.VIRTIO_MEM:
            beyond = max(0, self.wanted_bytes - vm.config.boot_ram_bytes)
            device = min(round_up(beyond, vm.config.virtio_mem_block_bytes), vm.config.virtio_mem_bytes)
            if device != vm.virtio_mem.requested:
                yield ResizeVirtioMem(vm.uuid, ticket, device)
                ticket += 1
        elif growth is Growth.HOTADD and self.wanted_bytes > vm.ram_bytes - vm.slots.offline_bytes:
            if vm.slots.offline_bytes:
                return  # it is on its way, and the balloon's target depends on it
            if dimm := self._next_dimm():
                yield AttachDimm(vm.uuid, ticket, dimm)
                return
        self._sent = self.wanted_bytes
        ram = vm.ram_bytes
        target = min(self.wanted_bytes + vm.slots.offline_bytes, ram)
        if self._aimed != (target, ram):
            self._aimed = target, ram
            yield SetTarget(vm.uuid, ticket, target)

    def _next_dimm(self) -> int:
        """Bytes; 0 when none is wanted, or the one before is not online yet."""
        vm = self.vm
        slots = vm.config.slots - len(vm.slots.dimms)
        room = round_down(vm.config.limits.maximum_bytes - vm.ram_bytes, MEMORY_BLOCK_BYTES)
        missing = (self.wanted_bytes or 0) - vm.ram_bytes
        if missing <= 0 or room <= 0 or slots <= 0 or vm.slots.offline_bytes:
            return 0
        least = round_up(room // slots, MEMORY_BLOCK_BYTES)
        wanted = min(room, max(least, round_up(missing, MEMORY_BLOCK_BYTES)))
        free = vm.memory.free + vm.memory.droppable
        bearable = round_down(int(free / FREE_SHARE * MEMMAP_SHARE), MEMORY_BLOCK_BYTES)
        return min(wanted, max(MEMORY_BLOCK_BYTES, bearable))
