"""One pass over the VMs: donors give before takers are given to, and nothing is given on credit.

A raise is paid from headroom, and headroom is what the ledger leaves after everybody's charge: a donor's
memory counts only once it is observed to be free. What a pass cannot pay, a later one will.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from host_controller import ledger as books
from host_controller.hypervisor.interface import Command
from host_controller.intake import State
from host_controller.model import Dimm, Growth
from host_controller.operation import Plug, Unplug
from host_controller.policy import plan, virtio_mem
from host_controller.policy.balance import Claims, fill
from host_controller.policy.plan import Action, Decision
from host_controller.resize import Resize
from host_controller.units import MIB, round_down
from host_controller.vm import Phase, Vm

PAGE_BYTES = 4096
"""A balloon moves by pages."""
DEFLATED_BYTES = 8 * MIB
"""A balloon this close to empty is as good as empty: a DIMM may follow."""
OFFLINE_GRACE = 5.0
"""Seconds in which a DIMM that nobody waits for may still come online."""


@dataclass(slots=True)
class Pass:
    """The state of one pass."""

    state: State
    goals: dict[str, int]
    """Usable memory that the balance gives to each movable VM."""
    claims: Mapping[str, Claims]
    headroom_bytes: int
    waiting: bool
    """Somebody waits for memory that is not free yet."""
    now: float
    costs: dict[str, int] = field(default_factory=dict)
    """What the commands add to the charge of each VM."""

    def run(self, vms: Iterable[Vm]) -> tuple[list[Decision], list[Command]]:
        """Decisions for these VMs and the commands that carry them out."""
        decisions: list[Decision] = []
        commands: list[Command] = []
        takers: list[tuple[Vm, int]] = []
        for vm in vms:
            uuid = vm.config.uuid
            try:
                decision, sent = self._settle(vm, self.goals.get(uuid))
            except Exception as error:  # noqa: BLE001 # it harms no other VM
                self.state.isolate(vm, error, self.now)
                continue
            if decision is None:
                takers.append((vm, self.goals[uuid]))
                continue
            decisions.append(decision)
            commands += sent
        for vm, share in self._shares(takers):
            try:
                decision, sent = self._grow(vm, self.goals[vm.config.uuid], share)
            except Exception as error:  # noqa: BLE001 # it harms no other VM
                self.state.isolate(vm, error, self.now)
                continue
            decisions.append(decision)
            commands += sent
        return decisions, commands

    def _settle(self, vm: Vm, goal: int | None) -> tuple[Decision | None, list[Command]]:
        """The decision for a VM that is not to grow; None for one that is."""
        operation = self.state.operations.get(vm.config.uuid)
        if operation is not None:
            return self._say(vm, Action.WAIT, goal, operation.describe()), []
        # What the XML calls current memory misses DIMMs: a takeover waits for QEMU's own word.
        known = vm.target_bytes is not None or vm.resident_at >= vm.actual_at > vm.since
        if (vm.resend or vm.target_bytes is None) and known and plan.reachable(vm, self.now):
            return self._affirm(vm, goal)
        if (size := self._unfinished(vm)) is not None:
            reason = "its virtio-mem does not have the size that it should have"
            return self._resize(vm, goal, reason, Resize(self.state.ticket, size_bytes=size))
        if goal is None:
            return self._say(vm, Action.HOLD, goal, self._why_left_alone(vm)), []
        if (leaving := self._leaving_dimm(vm, goal) or self._leaving_blocks(vm, goal)) is not None:
            return leaving
        held = vm.assigned_bytes
        if goal > held + plan.grow_dead_band(held):
            return None, []
        if goal < held - self._shrink_dead_band(held):
            return self._shrink(vm, goal)
        return self._say(vm, Action.HOLD, goal, "it has what it should have"), []

    def _why_left_alone(self, vm: Vm) -> str:
        if (standstill := self.state.standstills.get(vm.config.uuid)) is not None:
            return standstill.describe(self.now)
        why_not = plan.immovable(vm, self.state.settings, self.now)
        if why_not is None and self.now < vm.stuck_until:
            why_not = "its balloon did not follow its target; it is asked again later"
        return why_not or "nothing is known of it yet"

    def _shrink_dead_band(self, held: int) -> int:
        scarce = self.waiting or self.headroom_bytes < 0
        return plan.grow_dead_band(held) if scarce else plan.shrink_dead_band(held)

    def _affirm(self, vm: Vm, goal: int | None) -> tuple[Decision, list[Command]]:
        """Say the target again: to take over, after QEMU changed it behind our back, or after an error."""
        taking_over = vm.target_bytes is None
        target = self._still_right(vm, vm.actual_bytes if vm.target_bytes is None else vm.target_bytes)
        self._pay(vm, self._cost(vm, target))
        reason = "its size is confirmed before anything else" if taking_over else "its target is sent again"
        command = vm.send_target(self.state.ticket(), target, self.now)
        return self._say(vm, Action.CORRECT, goal, reason, target_bytes=target), [command]

    def _still_right(self, vm: Vm, target: int) -> int:
        """An old target in the light of what is known now: the guest and the host may have changed since."""
        target = min(vm.ram_bytes, target)
        booting = vm.phase is Phase.STARTING and vm.facts is None and not vm.moved
        if booting:
            return target  # its kernel touches what it likes, and is charged with it
        present = vm.present_bytes
        heard = plan.heard_lately(vm, self.now)
        # `actual` may be forged: what the guest's kernel uses counts, too, or what the host sees.
        lowest = plan.lowest_target(vm, self.state.settings) if heard else plan.seen_bytes(vm)
        lowest = min(vm.ram_bytes, lowest)
        target, present = max(target, lowest), max(present, lowest)
        if target < present:
            return target if heard else present
        if self.headroom_bytes < 0:
            return present
        return target - max(0, self._cost(vm, target) - self.headroom_bytes)

    def _shrink(self, vm: Vm, goal: int) -> tuple[Decision, list[Command]]:
        # However short the budget, nobody is sent below what the guest cannot go without.
        lower = min(self.claims[vm.config.uuid].lower, vm.assigned_bytes)
        keeps = max(goal, lower)
        reason = "others need it" if self.waiting else "it has had more than it needs for a while"
        excess = vm.assigned_bytes - keeps
        if (size := virtio_mem.smaller(vm, excess, self.state.settings, self.now)) is not None:
            return self._resize(vm, goal, reason, Resize(self.state.ticket, size_bytes=size))
        # While virtio-mem stays, the balloon takes its place, but not the memory that a kernel boots with.
        aim = max(keeps + vm.offline_bytes - vm.virtio_mem.requested_bytes, vm.config.limits.minimum_bytes)
        target = plan.shrink_target(vm, aim, self.state.settings, self.now)
        if target is None:
            if vm.present_bytes > vm.entitled_bytes + MIB:
                return self._say(vm, Action.SHRINK, goal, f"{reason}; the last step is under way"), []
            floor = "the guest has nothing more to spare"
            stays = "the guest did not give its virtio-mem back; it is asked again later"
            held_back = floor if vm.entitled_bytes > aim else stays
            return self._say(vm, Action.WAIT, goal, reason, held_back=held_back), []
        command = vm.send_target(self.state.ticket(), target, self.now)
        return self._say(vm, Action.SHRINK, goal, reason, target_bytes=target), [command]

    def _shares(self, takers: list[tuple[Vm, int]]) -> list[tuple[Vm, int]]:
        """Usable memory that each taker can be given now: the balance's fairness on what is there."""
        if not takers:
            return []
        held = [vm.assigned_bytes for vm, _ in takers]
        wanted = [max(goal, now) for (_, goal), now in zip(takers, held, strict=True)]
        weights = [vm.config.limits.weight for vm, _ in takers]
        budget = sum(held) + max(0, self.headroom_bytes)
        shares = fill(weights, held, wanted, budget)
        order = sorted(range(len(takers)), key=lambda i: (held[i] / weights[i], takers[i][0].config.uuid))
        return [(takers[i][0], shares[i]) for i in order]

    def _grow(self, vm: Vm, goal: int, share: int) -> tuple[Decision, list[Command]]:
        reason = "it needs more"
        ceiling, entitled = vm.ram_bytes, vm.entitled_bytes
        if entitled >= ceiling:
            if vm.config.growth is Growth.VIRTIO_MEM:
                return self._enlarge(vm, goal, share, reason)
            return self._plug(vm, goal, reason)
        if self.headroom_bytes < 0:
            return self._say(vm, Action.WAIT, goal, reason, held_back="the host is overdrawn"), []
        aside = vm.offline_bytes - vm.virtio_mem.requested_bytes
        wanted = min(ceiling, goal + aside)
        # What is charged already, such as a balloon that has not yet given up its pages, costs nothing.
        charged = books.guest_charge(vm)
        payable = charged + self.headroom_bytes
        if payable >= ceiling and wanted >= ceiling - plan.grow_dead_band(ceiling):
            target = ceiling
        else:
            fair = min(ceiling, share + aside)
            target = round_down(min(max(fair, min(wanted, charged)), payable), PAGE_BYTES)
        short = wanted - target
        held_back = "the rest is not free yet" if short > MIB else None
        if target <= entitled + (0 if short <= 0 else plan.grow_dead_band(entitled)):
            return self._say(vm, Action.WAIT, goal, reason, held_back=held_back or "too little is free"), []
        self._pay(vm, max(0, target - charged))
        command = vm.send_target(self.state.ticket(), target, self.now)
        return self._say(vm, Action.GROW, goal, reason, target_bytes=target, held_back=held_back), [command]

    def _plug(self, vm: Vm, goal: int, reason: str) -> tuple[Decision, list[Command]]:
        def wait(held_back: str) -> tuple[Decision, list[Command]]:
            return self._say(vm, Action.WAIT, goal, reason, held_back=held_back), []

        if vm.present_bytes < vm.ram_bytes - DEFLATED_BYTES:
            return wait("its balloon deflates first")
        if self.now < vm.plug_refused_until:
            return wait(f"hot add failed; it is tried again in {vm.plug_refused_until - self.now:.0f} s")
        if vm.offline_bytes:
            return wait("a DIMM that is plugged is not online yet")
        if vm.sent:
            return wait("its last balloon target is not answered yet")
        wanted = goal - (vm.ram_bytes + vm.virtio_mem.requested_bytes - vm.offline_bytes)
        size, why_not = plan.next_dimm(vm, wanted, self.headroom_bytes)
        if why_not is not None:
            return wait(why_not)
        self._pay(vm, size)
        zone = plan.zone_for(vm, size)
        operation = Plug(self.state.ticket, size_bytes=size, zone=zone)
        self.state.operations[vm.config.uuid] = operation
        # Paid from now on, though the command follows only when the agent has set the zone.
        vm.pending_plug_bytes = size
        agent = vm.has_agent(self.now, self.state.settings.stale_seconds)
        sent = operation.advance(vm, self.now, agent)
        return self._say(vm, Action.PLUG, goal, reason, dimm=operation), sent

    def _enlarge(self, vm: Vm, goal: int, share: int, reason: str) -> tuple[Decision, list[Command]]:
        """As `_plug`, from the virtio-mem device: in its own small blocks, so that shares can be exact."""

        def wait(held_back: str) -> tuple[Decision, list[Command]]:
            return self._say(vm, Action.WAIT, goal, reason, held_back=held_back), []

        device = vm.virtio_mem
        if vm.present_bytes < vm.ram_bytes - DEFLATED_BYTES:
            return wait("its balloon deflates first")
        if self.now < vm.plug_refused_until:
            return wait(f"the last growth failed; next try in {vm.plug_refused_until - self.now:.0f} s")
        if vm.offline_bytes:
            return wait("memory that is plugged is not online yet")
        if vm.sent:
            return wait("its last balloon target is not answered yet")
        # What it may come to already, such as blocks that it has not given back yet, costs nothing.
        paid = device.may_hold_bytes - device.requested_bytes
        payable = max(paid, min(share - vm.assigned_bytes, self.headroom_bytes + paid))
        size, why_not = virtio_mem.larger(vm, goal - vm.assigned_bytes, payable)
        if why_not is not None:
            return wait(why_not)
        self._pay(vm, max(0, size - device.may_hold_bytes))
        # Paid from now on, though the command follows only when the agent has set the zone.
        device.promise(size)
        zone = plan.zone_for(vm, size - device.requested_bytes)
        return self._resize(vm, goal, reason, Resize(self.state.ticket, size_bytes=size, zone=zone))

    def _resize(
        self, vm: Vm, goal: int | None, reason: str, operation: Resize
    ) -> tuple[Decision, list[Command]]:
        before = vm.virtio_mem.requested_bytes
        self.state.operations[vm.config.uuid] = operation
        agent = vm.has_agent(self.now, self.state.settings.stale_seconds)
        sent = operation.advance(vm, self.now, agent)
        if operation.size_bytes == before:
            action = Action.CORRECT
        else:
            action = Action.PLUG if operation.size_bytes > before else Action.UNPLUG
        return self._say(vm, action, goal, reason, size_bytes=abs(operation.size_bytes - before)), sent

    def _unfinished(self, vm: Vm) -> int | None:
        ours = vm.config.growth is Growth.VIRTIO_MEM and plan.reachable(vm, self.now)
        return virtio_mem.unfinished(vm, self.now) if ours else None

    def _leaving_blocks(self, vm: Vm, goal: int) -> tuple[Decision, list[Command]] | None:
        """Take back virtio-mem that nobody brought online, or that stands in where the balloon would do."""
        if vm.config.growth is not Growth.VIRTIO_MEM or vm.sent:
            return None
        if (size := virtio_mem.unused(vm, self.now)) is not None:
            operation = Resize(self.state.ticket, size_bytes=size)
            return self._resize(vm, goal, "the guest does not use all that it has plugged", operation)
        exchange = virtio_mem.exchange(vm, self.now)
        if exchange is None or goal > vm.assigned_bytes + plan.grow_dead_band(vm.assigned_bytes):
            return None
        size, raise_to = exchange
        if self._cost(vm, raise_to) > max(0, self.headroom_bytes):
            return None
        self._pay(vm, self._cost(vm, raise_to))
        operation = Resize(self.state.ticket, size_bytes=size, raise_to_bytes=raise_to)
        return self._resize(vm, goal, "what its balloon holds it can give back for good", operation)

    def _leaving_dimm(self, vm: Vm, goal: int) -> tuple[Decision, list[Command]] | None:
        """Take out a DIMM that nobody brought online, or that has been of no use for long."""
        if not vm.dimms or vm.config.growth is not Growth.HOTADD or self.now < vm.unplug_refused_until:
            return None
        dimm = vm.dimms[-1]
        uuid = vm.config.uuid
        offline = vm.offline_bytes >= dimm.size_bytes
        # What survived a reset nobody waits for: it goes while it is offline, before anything is taken.
        survived = offline and dimm.alias in vm.survivors
        if vm.sent:
            why = "a DIMM that survived the reset goes first"
            return (self._say(vm, Action.WAIT, goal, why), []) if survived else None
        if offline and (survived or self.now - max(vm.dimms_changed_at, vm.since) >= OFFLINE_GRACE):
            operation = Unplug(self.state.ticket, alias=dimm.alias)
            reason = "the guest does not use its last DIMM"
        else:
            raise_to = plan.unplug_raise(vm, dimm.size_bytes, goal)
            if raise_to is None:
                vm.roomy_since = math.inf
                return None
            vm.roomy_since = min(vm.roomy_since, self.now)
            if self.now - vm.roomy_since < self.state.settings.unplug_after_seconds:
                return None
            if self._cost(vm, raise_to) > max(0, self.headroom_bytes):
                return None
            self._pay(vm, self._cost(vm, raise_to))
            operation = Unplug(self.state.ticket, alias=dimm.alias, raise_to_bytes=raise_to)
            reason = "it has not needed its last DIMM for long"
        self.state.operations[uuid] = operation
        agent = vm.has_agent(self.now, self.state.settings.stale_seconds)
        sent = operation.advance(vm, self.now, agent)
        return self._say(vm, Action.UNPLUG, goal, reason, dimm=dimm), sent

    def _cost(self, vm: Vm, target: int) -> int:
        """What raising the target adds to the VM's charge."""
        return max(0, target - books.guest_charge(vm))

    def _pay(self, vm: Vm, cost: int) -> None:
        self.headroom_bytes -= cost
        self.costs[vm.config.uuid] = cost

    def _say(
        self,
        vm: Vm,
        action: Action,
        goal: int | None,
        reason: str,
        *,
        target_bytes: int | None = None,
        dimm: Dimm | Plug | None = None,
        size_bytes: int | None = None,
        held_back: str | None = None,
    ) -> Decision:
        return Decision(
            at=self.now,
            vm=vm.config.uuid,
            action=action,
            reason=reason,
            held_bytes=vm.assigned_bytes,
            goal_bytes=goal,
            target_bytes=target_bytes,
            size_bytes=dimm.size_bytes if dimm is not None else size_bytes,
            zone=dimm.zone if isinstance(dimm, Plug) else None,
            alias=dimm.alias if isinstance(dimm, Dimm) else None,
            held_back=held_back,
            estimate=vm.estimate,
        )
