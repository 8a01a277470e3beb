"""What a simulated VM is made of, and what its domain's XML would say."""

import uuid
from dataclasses import dataclass, field

from host_controller.core.model import MEMORY_BLOCK_BYTES, Growth, Limits, VmConfig
from host_controller.simulator.behaviours import IDEAL, Behaviour
from host_controller.simulator.memory import Speeds
from host_controller.simulator.workload import Workload
from host_controller.units import MIB, round_down


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """All about a VM that does not change while it runs."""

    name: str
    limits: Limits
    growth: Growth = Growth.HOTADD
    slots: int = 16
    workload: Workload = field(default_factory=Workload)
    behaviour: Behaviour = IDEAL
    speeds: Speeds = field(default_factory=Speeds)
    boot_seconds: float = 8.0
    agent_seconds: float = 3.0
    """From the driver to the agent; the agent comes with the services."""
    swap_bytes: int = 0
    overhead_bytes: int = 40 * MIB
    agent: bool = True
    reporting: bool = True
    """Free page reporting."""
    pinned: str | None = None
    boot_ram_bytes: int = 0
    """Of virtio-mem, where it boots with less than startup; 0: with all of it."""

    def config(self) -> VmConfig:
        """What the domain's XML would say."""
        boot = self.boot_ram_bytes or self.limits.startup_bytes
        if self.growth is Growth.BALLOON:
            boot = self.limits.maximum_bytes
        beyond = self.limits.maximum_bytes - boot
        return VmConfig(
            uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, self.name)),
            name=self.name,
            limits=self.limits,
            growth=self.growth,
            boot_ram_bytes=boot,
            slots=self.slots if self.growth is Growth.HOTADD else 0,
            virtio_mem_bytes=round_down(beyond, MEMORY_BLOCK_BYTES)
            if self.growth is Growth.VIRTIO_MEM
            else 0,
            pinned=self.pinned,
        )
