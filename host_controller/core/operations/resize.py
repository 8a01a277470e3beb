"""Another size for a virtio-mem device: asked for in one command, reached by the guest as far as it can.

Where the guest stops short, what it has is what is asked for from then on. A driver would try for ever
otherwise, memory that never came would stay charged, and memory that cannot leave would count as gone.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from host_controller.core.interface import Command
from host_controller.core.operations.baseline import NOTHING, Baseline
from host_controller.core.operations.operation import (
    NAMING_LIMITS,
    NAMING_THE_ZONE,
    ONLINE_LIMIT,
    RAISE_LIMIT,
    Steps,
)
from host_controller.core.operations.stages import Heard, Stage, Table, done, dropped, failed, go
from host_controller.core.policy.spare import at_its_end, heard_lately, spare_bytes
from host_controller.core.policy.virtio_mem_plan import bearable, idle_bytes, kernels_bytes, without_idle
from host_controller.core.vm.record import Vm
from host_controller.core.vm.virtio_mem import LATE_SECONDS, PATIENCE
from host_controller.units import format_size

ANSWER_LIMIT: Final = 60.0
"""Seconds for a command that the hypervisor has not answered: the adapter says much sooner that it timed
out."""
TURNED_BACK_SECONDS: Final = 5.0
"""What a guest had to spare and came to need within a second or two it is not asked for again at once."""

_NO_ROOM: Final = dropped("the guest had no room for more memory any more")
_OVERTAKEN: Final = dropped("somebody else asked for another size of its virtio-mem")
_NEEDED: Final = dropped("the guest needs its virtio-mem after all")
_NO_ANSWER: Final = failed("the hypervisor did not answer")
_REFUSED: Final = failed("another size of virtio-mem was refused: ")
_OUTRUN: Final = dropped("another size of virtio-mem was refused: ")
_NOT_ONLINE: Final = "the guest did not bring the new memory online"


@dataclass(slots=True)
class Resize(Steps):
    """Growing: name the zone, ask, wait until the guest has it online. Shrinking: deflate, ask, wait.

    After an error nobody knows which size is asked for: the policy asks again later.
    """

    TABLE: ClassVar[Table] = {
        **NAMING_THE_ZONE,
        (Stage.NEW, Heard.CRAMPED): go(Stage.DEFLATING),
        (Stage.NEW, Heard.READY): go(Stage.ASKING),
        (Stage.NEW, Heard.CROWDED): _NO_ROOM,
        (Stage.NAMED, Heard.READY): go(Stage.ASKING),
        (Stage.NAMED, Heard.CROWDED): _NO_ROOM,
        (Stage.NAMED, Heard.OVERTAKEN): _OVERTAKEN,
        (Stage.DEFLATING, Heard.READY): go(Stage.ASKING),
        (Stage.DEFLATING, Heard.NEEDED): _NEEDED,
        (Stage.DEFLATING, Heard.OVERTAKEN): _OVERTAKEN,
        (Stage.DEFLATING, Heard.UNCONFIRMED): failed("the balloon's target was not confirmed"),
        (Stage.DEFLATING, Heard.LATE): failed("the balloon did not make room for virtio-mem to shrink"),
        (Stage.ASKING, Heard.CARRIED_OUT): go(Stage.FOLLOWING),
        (Stage.ASKING, Heard.REFUSED): _REFUSED,
        (Stage.ASKING, Heard.OUTRUN): _OUTRUN,
        (Stage.ASKING, Heard.LATE): _NO_ANSWER,
        (Stage.FOLLOWING, Heard.ARRIVED): done(),
        (Stage.FOLLOWING, Heard.MOVED): go(Stage.FOLLOWING),
        (Stage.FOLLOWING, Heard.WHOLE): go(Stage.COMING_ONLINE),
        (Stage.FOLLOWING, Heard.FURTHER): go(Stage.ASKING),
        (Stage.FOLLOWING, Heard.NEEDED): go(Stage.TURNING_BACK),
        (Stage.FOLLOWING, Heard.OVERTAKEN): _OVERTAKEN,
        (Stage.FOLLOWING, Heard.LATE): go(Stage.SETTLING),
        (Stage.COMING_ONLINE, Heard.ARRIVED): done(),
        (Stage.COMING_ONLINE, Heard.MOVED): go(Stage.FOLLOWING),
        (Stage.COMING_ONLINE, Heard.OVERTAKEN): _OVERTAKEN,
        (Stage.COMING_ONLINE, Heard.IDLE): go(Stage.SETTLING, _NOT_ONLINE),
        (Stage.COMING_ONLINE, Heard.LATE): failed(_NOT_ONLINE),
        (Stage.TURNING_BACK, Heard.CARRIED_OUT): _NEEDED,
        (Stage.TURNING_BACK, Heard.REFUSED): _REFUSED,
        (Stage.TURNING_BACK, Heard.OUTRUN): _OUTRUN,
        (Stage.TURNING_BACK, Heard.LATE): _NO_ANSWER,
        (Stage.SETTLING, Heard.CARRIED_OUT): failed(),
        (Stage.SETTLING, Heard.REFUSED): _REFUSED,
        (Stage.SETTLING, Heard.OUTRUN): _OUTRUN,
        (Stage.SETTLING, Heard.LATE): _NO_ANSWER,
    }
    LIMITS: ClassVar = {
        **NAMING_LIMITS,
        Stage.DEFLATING: RAISE_LIMIT,
        Stage.ASKING: ANSWER_LIMIT,
        Stage.FOLLOWING: PATIENCE,
        Stage.COMING_ONLINE: ONLINE_LIMIT,
        Stage.TURNING_BACK: ANSWER_LIMIT,
        Stage.SETTLING: ANSWER_LIMIT,
    }

    size_bytes: int = 0
    """Of the device, when all goes well."""
    _before: Baseline = NOTHING
    _seen_bytes: int = -1
    """The device's size at the last look; -1 before the first."""
    _spares: bool = False
    """It shrinks, and the guest had to spare what was asked for: it is not squeezed."""
    _left_at: float = math.inf
    """When its kernel had shown that all that was asked for has left."""

    @property
    def grows(self) -> bool:
        """The guest is given memory."""
        return self.zone is not None

    @property
    def _less_bytes(self) -> int:
        """What leaves when all goes well, of what had come; negative where it grows."""
        return self._before.came_bytes - self.size_bytes

    def describe(self) -> str:
        """For people."""
        return f"virtio-mem to {format_size(self.size_bytes)} ({self.stage})"

    def has_left(self, vm: Vm) -> bool:
        """Whether all that was asked for has left, which QEMU may tell a second later."""
        following = self.stage is Stage.FOLLOWING and not self._overtaken(vm, self.size_bytes)
        return following and self._left_at < math.inf

    @property
    def awaits_report(self) -> bool:
        """Whether the guest's next report may show that all that was asked for has left."""
        return self.stage is Stage.FOLLOWING and self._spares

    def further(self, vm: Vm, size_bytes: int, now: float) -> list[Command]:
        """Ask for less still, where what was asked for before `has_left`."""
        vm.virtio_mem.gave_back(self._less_bytes, self._left_at)
        self._hear(vm, Heard.FURTHER)
        self._before = self._before.further(vm, self.size_bytes, now)
        self.size_bytes = size_bytes
        return self._enter(vm, now)

    def _look(self, vm: Vm, now: float, agent: bool) -> Heard | None:
        match self.stage:
            case Stage.NEW:
                return self._begin(vm, now, agent)
            case Stage.NAMED | Stage.DEFLATING if self._overtaken(vm, self._before.requested_bytes):
                return Heard.OVERTAKEN
            case Stage.NAMED:
                return self._room(vm, now)
            case Stage.DEFLATING:
                found = self._raised(vm)
                return Heard.NEEDED if found is Heard.READY and not self._may_leave(vm, now) else found
            case Stage.FOLLOWING | Stage.COMING_ONLINE if self._overtaken(vm, self.size_bytes):
                return Heard.OVERTAKEN
            case Stage.FOLLOWING:
                if self._left_at == math.inf and self._shown_to_have_left(vm, now):
                    self._left_at = vm.guest.reported_at
                return self._progress(vm, now) or self._needed(vm, now)
            case Stage.COMING_ONLINE:
                return self._progress(vm, now)
        return None

    def _enter(self, vm: Vm, now: float) -> list[Command]:
        match self.stage:
            case Stage.NAMING | Stage.NAMING_AGAIN:
                return self._name_zone(vm)
            case Stage.DEFLATING:
                return self._raise(vm, now)
            case Stage.ASKING:
                return self._ask(vm, now)
            case Stage.FOLLOWING:
                self._seen_bytes = vm.virtio_mem.current_bytes
            case Stage.TURNING_BACK:
                vm.unplug_rest.hold(max(vm.unplug_rest.until, now + TURNED_BACK_SECONDS))
                return self._send(vm, self._still_there(vm, now), now)
            case Stage.SETTLING:
                return self._settle(vm, now)
        return []

    def _begin(self, vm: Vm, now: float, agent: bool) -> Heard:
        there = min(vm.virtio_mem.requested_bytes, vm.virtio_mem.current_bytes) - idle_bytes(vm)
        self._before = Baseline.of(vm, there, now)
        if self.grows and not self._may_grow_unasked(vm, agent):
            return Heard.UNNAMED
        return Heard.CRAMPED if self.raise_to_bytes is not None else self._room(vm, now)

    def _room(self, vm: Vm, now: float) -> Heard:
        crowded = self.grows and self._bearable(vm, now) <= self._before.requested_bytes
        return Heard.CROWDED if crowded else Heard.READY

    @staticmethod
    def _overtaken(vm: Vm, asked_bytes: int) -> bool:
        """Whether somebody else asked for a size: what this one began with or asked for is out of force."""
        return vm.virtio_mem.unsure or vm.virtio_mem.requested_bytes != asked_bytes

    def _may_leave(self, vm: Vm, now: float) -> bool:
        return self._spared(vm, now) and not self._is_too_little(vm, vm.assigned_bytes - self._less_bytes)

    def _spared(self, vm: Vm, now: float) -> bool:
        """The guest can do without what leaves."""
        return heard_lately(vm, now) and spare_bytes(vm) >= self._less_bytes

    def _bearable(self, vm: Vm, now: float) -> int:
        """The guest may have less free than when the size was planned."""
        return min(self.size_bytes, self._before.requested_bytes + bearable(vm, now))

    def _ask(self, vm: Vm, now: float) -> list[Command]:
        if self.grows:
            self.size_bytes = self._bearable(vm, now)
        else:
            self._spares, self._left_at = self._spared(vm, now), math.inf
        vm.memory_moves(now, grows=self.grows)
        return self._send(vm, self.size_bytes, now)

    def _settle(self, vm: Vm, now: float) -> list[Command]:
        """Ask for what the guest has, or uses."""
        current = vm.virtio_mem.current_bytes
        if current == self.size_bytes:
            return self._send(vm, self._without_idle(vm, now), now)
        if not self.grows and current <= kernels_bytes(vm):
            self.kept_bytes = current
        gap = format_size(abs(current - self.size_bytes))
        self.note = (
            f"its virtio-mem stays at {format_size(current)}: "
            f"the guest did not {'take' if self.grows else 'give back'} {gap} more"
        )
        return self._send(vm, current, now)

    def _send(self, vm: Vm, size_bytes: int, now: float) -> list[Command]:
        self.ticket = self.tickets()
        return [vm.virtio_mem.ask(vm.config.uuid, self.ticket, size_bytes, now)]

    def _progress(self, vm: Vm, now: float) -> Heard | None:
        current = vm.virtio_mem.current_bytes
        if self._arrived(vm, now):
            return Heard.ARRIVED
        if current != self.size_bytes:
            moved = self.stage is Stage.COMING_ONLINE or current != self._seen_bytes
            return Heard.MOVED if moved else None
        if self.stage is Stage.FOLLOWING:
            return Heard.WHOLE
        return Heard.IDLE if self._is_late(now) and self._without_idle(vm, now) < self.size_bytes else None

    def _shown_to_have_left(self, vm: Vm, now: float) -> bool:
        """Of a guest that is squeezed it is not asked: that is followed for its full time."""
        return self._spares and self._before.has_left(vm, self.size_bytes, now)

    def _needed(self, vm: Vm, now: float) -> Heard | None:
        """Whether it has come to need what it has not given back yet."""
        if not self._spares or not at_its_end(vm):
            return None
        return Heard.NEEDED if self._still_there(vm, now) > self.size_bytes else None

    def _still_there(self, vm: Vm, now: float) -> int:
        return self._before.still_there(vm, self.size_bytes, now)

    def _arrived(self, vm: Vm, now: float) -> bool:
        """The guest's own kernel shows new memory sooner than QEMU tells the device's size.

        So a growth may be done while QEMU's last word is of less than the guest has. By that word a shrink
        after it would be done before it began, and the next one would add to it (rule: small-steps).
        """
        device, facts = vm.virtio_mem, vm.guest.facts
        told = device.moved_at > device.asked_at or now - device.asked_at > LATE_SECONDS
        if not self.grows:
            if not told or device.current_bytes > self.size_bytes:
                return False
            if self._less_bytes > 0:
                device.gave_back(self._less_bytes, min(self._left_at, device.moved_at))
            return True
        if facts is None:
            return False
        plugged = device.current_bytes == self.size_bytes and (told or self._before.settled)
        if plugged and facts.from_agent and facts.at >= device.moved_at:
            return facts.offline_bytes == 0
        added = self.size_bytes - self._before.requested_bytes
        return facts.total_bytes >= self._before.total_bytes + added * 3 // 4

    def _without_idle(self, vm: Vm, now: float) -> int:
        return without_idle(vm, self._before.requested_bytes, self.size_bytes, now)
