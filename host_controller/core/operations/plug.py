"""Hot add of one DIMM."""

from dataclasses import dataclass

from agent import wire
from host_controller.core.interface import AttachDimm, Command
from host_controller.core.operations.operation import ONLINE_LIMIT, Steps
from host_controller.core.policy.plan import bearable_dimm
from host_controller.core.vm.record import Vm


@dataclass(slots=True)
class Plug(Steps):
    """Hot-add one DIMM: name the zone, attach, wait until the guest has it online."""

    zone: wire.Zone | None = "movable"
    size_bytes: int = 0
    _late: bool = False
    _online_before: int = 0
    _total_before: int = 0

    @property
    def unanswered(self) -> bool:
        """The DIMM may come at any moment."""
        return self.stage == "attaching"

    def describe(self) -> str:
        """For people."""
        return f"hot add of a DIMM ({self.stage})"

    def advance(self, vm: Vm, now: float, agent: bool) -> list[Command]:
        """The commands of the next step. `agent`: the guest has one that lately reported."""
        self._go_on(now)
        if self.stage == "new":
            return self._attach(vm) if self._may_grow_unasked(vm, agent) else self._name_zone(vm, now)
        if self.stage == "naming the zone" and now > self.deadline:
            return self._fail("the agent did not confirm the zone of the next DIMM")
        if self.stage == "zone named":
            return self._attach(vm)
        if self.stage == "attached":
            self._go("waiting until it is online", now + ONLINE_LIMIT)
        if self.stage == "waiting until it is online":
            if self._is_online(vm):
                return self._succeed("the guest uses the new DIMM")
            if now > self.deadline:
                return self._fail("the guest did not bring the new DIMM online")
        return []

    def done(self, vm: Vm, ticket: int, error: str | None, timed_out: bool, now: float) -> None:
        """The hypervisor answered. After a time-out the DIMM may still come, so it stays paid for."""
        if ticket != self.ticket or self.stage != "attaching":
            return
        if error is None:
            self.stage = "attached"
        elif timed_out:
            self._late = True
        else:
            vm.pending_plug_bytes = 0
            # A job that began a moment before the command is nobody's fault.
            (self._drop if vm.job else self._fail)(f"hot add was refused: {error}")

    def dimms_changed(self, vm: Vm, added: bool) -> None:
        """The DIMM is there: from now on the model counts it. Or a command that was late has plugged none."""
        if self.stage == "attaching" and (added or self._late):
            vm.pending_plug_bytes = 0
            self.stage = "attached"
            if not added:
                self._fail("the hypervisor took too long, and plugged nothing")

    def refused(self, alias: str, now: float) -> None:
        """Not about a plug."""

    def _attach(self, vm: Vm) -> list[Command]:
        facts = vm.facts
        # The guest may have less free than when the DIMM was planned.
        self.size_bytes = 0 if facts is None else min(self.size_bytes, bearable_dimm(vm))
        if self.size_bytes == 0:
            return self._drop("the guest had no room for a DIMM any more")
        if facts is not None:
            self._online_before, self._total_before = facts.online_bytes, facts.total_bytes
        vm.pending_plug_bytes = self.size_bytes
        self.ticket = self.tickets()
        self._go("attaching", 0.0)
        return [AttachDimm(vm.config.uuid, self.ticket, self.size_bytes)]

    def _is_online(self, vm: Vm) -> bool:
        facts = vm.facts
        if facts is None:
            return False
        if facts.from_agent:
            return facts.online_bytes >= self._online_before + self.size_bytes
        return facts.total_bytes >= self._total_before + self.size_bytes * 3 // 4
