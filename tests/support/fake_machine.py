"""A machine in virtual time for `dynmem verify`'s checks, with defects of hosts as they are."""

from dataclasses import dataclass

from host_controller.verify.burn_in.machine import MIB, InGuest
from host_controller.verify.errors import WorkloadError


@dataclass(frozen=True)
class Defects:
    boots: bool = True
    has_agent: bool = True
    onlines: bool = True
    dimm_leaves_until: int = 1 << 30
    """So many DIMMs come out, the next one never does."""
    virtio_mem_works_until: int = 1 << 30
    """So many resizes are followed; then the guest's worker is dead."""
    balloon_lies: bool = False
    balloon_moves: bool = True
    kills_when_short: bool = False
    stays_dead_after_reset: bool = False
    hides_unbound_driver: bool = False


SOUND = Defects()


class FakeMachine:
    ram_bytes = 512 * MIB
    block_bytes = 128 * MIB

    def __init__(self, defects: Defects = SOUND) -> None:
        self.defects = defects
        self.now = 0.0
        self._target = self._actual = self.ram_bytes
        self._held = self.ram_bytes
        """What the guest really has of it."""
        self._resident = 150 * MIB
        self._plugged: dict[str, bool] = {}
        self._count = self._left = self._resizes = 0
        self._virtio_mem = 0
        self._bound = True
        self._agent = False
        self._kills = 0

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        step = int(400 * MIB * seconds)
        if not self._bound or not self.defects.balloon_moves:
            return
        difference = self._target - self._actual
        self._actual += max(-step, min(step, difference))
        if not self.defects.balloon_lies:
            self._held = self._actual
            self._resident = min(self._resident, self._held)

    def boot(self) -> None:
        self.wait(5)
        if not self.defects.boots:
            raise WorkloadError("no answer within 120 s")
        self._agent = self.defects.has_agent

    def reset(self) -> None:
        self.wait(5)
        self._virtio_mem = 0
        self._plugged = dict.fromkeys(self._plugged, False)
        self._agent = self.defects.has_agent and not self.defects.stays_dead_after_reset

    def hears_agent(self, limit: float) -> bool:
        self.now += 1 if self._agent else limit
        return self._agent

    def set_balloon(self, target: int) -> None:
        self._target = target

    def actual(self) -> int:
        return self._actual

    def resident(self) -> int:
        return self._resident

    def plug(self) -> str:
        self._count += 1
        alias = f"dimm{self._count}"
        self._plugged[alias] = self.defects.onlines
        self._add(self.block_bytes)
        return alias

    def offline(self, alias: str) -> bool:
        self._plugged[alias] = False
        return True

    def unplug(self, alias: str) -> None:
        if self._left < self.defects.dimm_leaves_until and not self._plugged[alias]:
            self._left += 1
            del self._plugged[alias]
            self._add(-self.block_bytes)

    def _add(self, size: int) -> None:
        self._actual += size
        self._target += size
        self._held += size

    def dimms(self) -> tuple[str, ...]:
        return tuple(self._plugged)

    def resize(self, requested: int) -> None:
        self._resizes += 1
        if self._resizes <= self.defects.virtio_mem_works_until:
            self._virtio_mem = requested

    def virtio_mem(self) -> int:
        return self._virtio_mem

    def inside(self) -> InGuest:
        offline = sum(self.block_bytes for online in self._plugged.values() if not online)
        total = self._held - 80 * MIB - offline
        return InGuest(total, total - 60 * MIB, self._kills)

    def touch(self, mib: int) -> None:
        self.now += 1
        self._resident = min(self._held, self._resident + mib * MIB)

    def begin_allocation(self, mib: int, rate: float) -> None:
        self._kills += self.defects.kills_when_short

    def allocation_survives(self, limit: float) -> bool:
        self.wait(2)
        return not self.defects.kills_when_short

    def forge_actual(self, mib: int) -> None:
        self._actual = self._target = self.ram_bytes + len(self._plugged) * self.block_bytes - mib * MIB

    def unbind_balloon(self) -> None:
        self._bound = False
        self._held = self.ram_bytes + len(self._plugged) * self.block_bytes
        if not self.defects.hides_unbound_driver:
            self._actual = self._held

    def bind_balloon(self) -> None:
        self._bound = True
