"""Another size for a virtio-mem device: asked for in one command, reached by the guest as far as it can.

Where the guest stops short, what it has is what is asked for from then on. A driver would try for ever
otherwise, memory that never came would stay charged, and memory that cannot leave would count as gone.
"""

from dataclasses import dataclass
from typing import Final

from host_controller.core.interface import Command
from host_controller.core.operations.operation import ONLINE_LIMIT, RAISE_LIMIT, Outcome, Steps
from host_controller.core.policy.plan import heard_lately, spare_bytes
from host_controller.core.policy.virtio_mem_plan import bearable, idle_bytes
from host_controller.core.vm.record import Vm
from host_controller.units import format_size, round_down

PATIENCE: Final = 5.0
"""Seconds without a change after which the guest has given or taken what it can: moving the pages of a
memory block takes up to 4 s under TCG, and QEMU tells sizes once a second."""
ANSWER_LIMIT: Final = 60.0
"""For a command that the hypervisor has not answered: the adapter says much sooner that it timed out."""


@dataclass(slots=True)
class Resize(Steps):
    """Growing: name the zone, ask, wait until the guest has it online. Shrinking: deflate, ask, wait."""

    size_bytes: int = 0
    """Of the device, when all goes well."""
    raise_to_bytes: int | None = None
    """The balloon's target under which the guest can do without what leaves, in QEMU's terms."""
    _from_bytes: int = 0
    _total_before: int = 0
    _seen_bytes: int = 0

    @property
    def grows(self) -> bool:
        """The guest is given memory."""
        return self.zone is not None

    def describe(self) -> str:
        """For people."""
        return f"virtio-mem to {format_size(self.size_bytes)} ({self.stage})"

    def advance(self, vm: Vm, now: float, agent: bool) -> list[Command]:
        """The commands of the next step."""
        self._go_on(now)
        late = now > self.deadline
        match self.stage:
            case "new":
                return self._begin(vm, now, agent)
            case "naming the zone" if late:
                return self._fail("the agent did not confirm the zone of new memory")
            case "zone named":
                return self._ask(vm, now)
            case "deflating" if vm.actual_bytes >= (self.raise_to_bytes or 0):
                if not heard_lately(vm, now) or spare_bytes(vm) < self._from_bytes - self.size_bytes:
                    return self._drop("the guest needs its virtio-mem after all")
                return self._ask(vm, now)
            case "deflating" if late:
                return self._fail("the balloon did not make room for virtio-mem to shrink")
            case "asking" | "settling" if late:
                return self._fail("the hypervisor did not answer")
            case "asked" | "following" | "coming online":
                return self._follow(vm, now)
        return []

    def done(self, vm: Vm, ticket: int, error: str | None, timed_out: bool, now: float) -> None:
        """The hypervisor answered. After an error nobody knows what is asked for: it is asked again later."""
        if ticket != self.ticket:
            return
        if error is not None:
            # A job that began a moment before the command is nobody's fault.
            (self._drop if vm.job else self._fail)(f"another size of virtio-mem was refused: {error}")
        elif self.stage == "settling":
            self._fail(self.note)
        else:
            self.stage = "asked"

    def dimms_changed(self, vm: Vm, added: bool) -> None:
        """Not about DIMMs."""

    def refused(self, alias: str, now: float) -> None:
        """Not about DIMMs."""

    def _begin(self, vm: Vm, now: float, agent: bool) -> list[Command]:
        self._from_bytes = vm.virtio_mem.requested_bytes
        self._total_before = 0 if vm.facts is None else vm.facts.total_bytes
        if self.grows and not self._may_grow_unasked(vm, agent):
            return self._name_zone(vm, now)
        if self.raise_to_bytes is not None:
            self._go("deflating", now + RAISE_LIMIT)
            return [vm.send_target(self.tickets(), self.raise_to_bytes, now)]
        return self._ask(vm, now)

    def _ask(self, vm: Vm, now: float) -> list[Command]:
        if self.grows:
            # The guest may have less free than when the size was planned.
            self.size_bytes = min(self.size_bytes, self._from_bytes + bearable(vm))
            if self.size_bytes <= self._from_bytes:
                return self._drop("the guest had no room for more memory any more")
            vm.grown_at = now
        vm.sent_at = now  # from here on the guest must be heard anew before it is shrunk
        return self._send(vm, "asking", self.size_bytes, now)

    def _send(self, vm: Vm, stage: str, size_bytes: int, now: float) -> list[Command]:
        self.ticket = self.tickets()
        self._go(stage, now + ANSWER_LIMIT)
        return [vm.virtio_mem.ask(vm.config.uuid, self.ticket, size_bytes, now)]

    def _follow(self, vm: Vm, now: float) -> list[Command]:
        current = vm.virtio_mem.current_bytes
        if self._arrived(vm):
            self.outcome = Outcome.DONE
            return []
        if current == self.size_bytes:
            if self.stage != "coming online":
                self._go("coming online", now + ONLINE_LIMIT)
            elif now > self.deadline:
                self.note = "the guest did not bring the new memory online"
                less = self._without_idle(vm, now)
                return (
                    self._send(vm, "settling", less, now) if less < self.size_bytes else self._fail(self.note)
                )
        elif self.stage != "following" or current != self._seen_bytes:
            self._seen_bytes = current
            self._go("following", now + PATIENCE)
        elif now > self.deadline:
            gap = format_size(abs(current - self.size_bytes))
            self.note = (
                f"its virtio-mem stays at {format_size(current)}: "
                f"the guest did not {'take' if self.grows else 'give back'} {gap} more"
            )
            return self._send(vm, "settling", current, now)
        return []

    def _arrived(self, vm: Vm) -> bool:
        """The guest's own kernel shows new memory sooner than QEMU tells the device's size."""
        device, facts = vm.virtio_mem, vm.facts
        if not self.grows:
            return device.current_bytes <= self.size_bytes
        if facts is None:
            return False
        if facts.from_agent and device.current_bytes == self.size_bytes and facts.at >= device.moved_at:
            return facts.offline_bytes == 0
        added = self.size_bytes - self._from_bytes
        return facts.total_bytes >= self._total_before + added * 3 // 4

    def _without_idle(self, vm: Vm, now: float) -> int:
        """The size without what nobody brought online. Without an agent that is a guess, so what it can spare
        goes with it; from one that is not heard nothing is taken (rule: fresh-or-still).
        """
        facts = vm.facts
        if facts is None or not heard_lately(vm, now):
            return self.size_bytes
        idle = idle_bytes(vm) + (0 if facts.from_agent else max(0, spare_bytes(vm)))
        least = self.size_bytes - round_down(idle, vm.config.virtio_mem_block_bytes)
        return max(self._from_bytes, least)
