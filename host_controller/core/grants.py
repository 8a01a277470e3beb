"""One pass over the VMs: donors give before takers are given to, and nothing is given on credit.

A raise is paid from headroom, and headroom is what the ledger leaves after everybody's charge: a donor's
memory counts only once it is observed to be free. What a pass cannot pay, a later one will.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent import wire
from host_controller.core.accounts import Account
from host_controller.core.interface import Command
from host_controller.core.model import HOTADD, VIRTIO_MEM
from host_controller.core.operations import Operation, Plug, Unplug
from host_controller.core.operations.resize import Resize
from host_controller.core.policy import plan
from host_controller.core.policy import virtio_mem_plan as virtio_mem
from host_controller.core.policy.balance import fill
from host_controller.core.policy.plan import CORRECT, GROW, HOLD, PLUG, SHRINK, UNPLUG, WAIT, Action, Decision
from host_controller.core.state import State
from host_controller.core.vm.record import STARTING, Vm
from host_controller.units import MIB, round_down

PAGE_BYTES = 4096
"""A balloon moves by pages."""
DEFLATED_BYTES = 8 * MIB
"""A balloon this close to empty is as good as empty: a DIMM may follow."""
OFFLINE_GRACE = 5.0
"""Seconds in which a DIMM that nobody waits for may still come online."""


@dataclass(slots=True)
class Pass:
    """The state of one pass, and what came of it."""

    state: State
    goals: dict[str, int]
    """Usable memory that the balance gives to each movable VM."""
    accounts: Mapping[str, Account]
    """As they were weighed in this step, or when something last happened to the VM."""
    headroom_bytes: int
    waiting: bool
    """Somebody waits for memory that is not free yet."""
    now: float
    decisions: dict[str, Decision] = field(default_factory=dict)
    """By UUID."""
    commands: list[Command] = field(default_factory=list)
    """What carries the decisions out."""
    costs: dict[str, int] = field(default_factory=dict)
    """What the commands add to the charge of each VM."""
    takers: list[tuple[Vm, Account, int]] = field(default_factory=list)
    """Who is to grow once all donors have given, and its goal."""

    def run(self, vms: Iterable[Vm]) -> None:
        """Decide for these VMs."""
        for vm in vms:
            try:
                self._settle(vm, self.goals.get(vm.config.uuid))
            except Exception as error:  # noqa: BLE001 # it harms no other VM
                self.state.isolate(vm, error, self.now)
        for vm, account, goal, share in self._shares():
            try:
                self._grow(vm, account, goal, share)
            except Exception as error:  # noqa: BLE001 # it harms no other VM
                self.state.isolate(vm, error, self.now)

    def _settle(self, vm: Vm, goal: int | None) -> None:
        """Decide for a VM that is not to grow; one that is becomes a taker."""
        operation = self.state.operations.get(vm.config.uuid)
        if operation is not None:
            return self._say(vm, WAIT, goal, operation.describe())
        # What the XML calls current memory misses DIMMs: a takeover waits for QEMU's own word.
        unsaid = vm.resend if vm.target_bytes is not None else vm.resident_at >= vm.actual_at > vm.since
        if unsaid and plan.reachable(vm, self.now):
            return self._affirm(vm, goal)
        growth = vm.config.growth
        if growth is VIRTIO_MEM and (size := self._unfinished(vm)) is not None:
            reason = "its virtio-mem does not have the size that it should have"
            return self._resize(vm, goal, reason, Resize(self.state.ticket, size_bytes=size))
        if goal is None:
            return self._say(vm, HOLD, goal, self._why_left_alone(vm))
        if growth is HOTADD and vm.dimms and self._take_dimm(vm, goal):
            return None
        if growth is VIRTIO_MEM and self._take_blocks(vm, goal):
            return None
        account = self.accounts[vm.config.uuid]
        held = account.held
        dead_band = plan.grow_dead_band(held)
        if goal > held + dead_band:
            return self.takers.append((vm, account, goal))
        if not self.waiting and self.headroom_bytes >= 0:
            dead_band = plan.shrink_dead_band(held)
        if goal < held - dead_band:
            return self._shrink(vm, account, goal)
        return self._say(vm, HOLD, goal, "it has what it should have")

    def _why_left_alone(self, vm: Vm) -> str:
        if (standstill := self.state.standstills.get(vm.config.uuid)) is not None:
            return standstill.describe(self.now)
        why_not = plan.immovable(vm, self.state.settings, self.now)
        if why_not is None and self.now < vm.stuck_until:
            why_not = "its balloon did not follow its target; it is asked again later"
        return why_not or "nothing is known of it yet"

    def _affirm(self, vm: Vm, goal: int | None) -> None:
        """Say the target again: to take over, after QEMU changed it behind our back, or after an error."""
        taking_over = vm.target_bytes is None
        target = self._still_right(vm, vm.actual_bytes if vm.target_bytes is None else vm.target_bytes)
        self._pay(vm, self._cost(vm, target))
        reason = "its size is confirmed before anything else" if taking_over else "its target is sent again"
        self._send(vm, target)
        self._say(vm, CORRECT, goal, reason, target_bytes=target)

    def _still_right(self, vm: Vm, target: int) -> int:
        """An old target in the light of what is known now: the guest and the host may have changed since."""
        target = min(vm.ram_bytes, target)
        booting = vm.phase is STARTING and vm.facts is None and not vm.moved
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
            return min(present, self.accounts[vm.config.uuid].guest_charge)
        return target - max(0, self._cost(vm, target) - self.headroom_bytes)

    def _shrink(self, vm: Vm, account: Account, goal: int) -> None:
        assert account.claims is not None
        # However short the budget, nobody is sent below what the guest cannot go without.
        keeps = max(goal, min(account.claims.lower, account.held))
        reason = "others need it" if self.waiting else "it has had more than it needs for a while"
        size = virtio_mem.smaller(vm, account.held - keeps, self.state.settings, self.now)
        if size is not None:
            return self._resize(vm, goal, reason, Resize(self.state.ticket, size_bytes=size))
        # While virtio-mem stays, the balloon takes its place, but not the memory that a kernel boots with.
        aim = max(keeps + vm.offline_bytes - vm.virtio_mem.requested_bytes, vm.config.limits.minimum_bytes)
        target = plan.shrink_target(vm, aim, self.state.settings, self.now)
        if target is None:
            if vm.present_bytes > vm.entitled_bytes + MIB:
                return self._say(vm, SHRINK, goal, f"{reason}; the last step is under way")
            floor = "the guest has nothing more to spare"
            stays = "the guest did not give its virtio-mem back; it is asked again later"
            held_back = floor if vm.entitled_bytes > aim else stays
            return self._say(vm, WAIT, goal, reason, held_back=held_back)
        self._send(vm, target)
        return self._say(vm, SHRINK, goal, reason, target_bytes=target)

    def _shares(self) -> list[tuple[Vm, Account, int, int]]:
        """Takers with what they can be given now: the balance's fairness on what is there."""
        if not self.takers:
            return []
        weights = [vm.config.limits.weight for vm, _, _ in self.takers]
        held = [account.held for _, account, _ in self.takers]
        goals = [goal for _, _, goal in self.takers]
        shares = fill(weights, held, goals, sum(held) + max(0, self.headroom_bytes))
        order = sorted(range(len(held)), key=lambda i: (held[i] / weights[i], self.takers[i][0].config.uuid))
        return [(*self.takers[i], shares[i]) for i in order]

    def _grow(self, vm: Vm, account: Account, goal: int, share: int) -> None:
        reason = "it needs more"
        ceiling, entitled = vm.ram_bytes, vm.entitled_bytes
        if self.headroom_bytes < 0:
            return self._say(vm, WAIT, goal, reason, held_back="the host is overdrawn")
        if entitled >= ceiling:
            if vm.config.growth is VIRTIO_MEM:
                return self._enlarge(vm, goal, share, reason)
            return self._plug(vm, goal, reason)
        aside = vm.offline_bytes - vm.virtio_mem.requested_bytes
        wanted = min(ceiling, goal + aside)
        # What is charged already, such as a balloon that has not yet given up its pages, costs nothing.
        charged = account.guest_charge
        payable = charged + self.headroom_bytes
        if payable >= ceiling and wanted >= ceiling - plan.grow_dead_band(ceiling):
            target = ceiling
        else:
            fair = min(ceiling, share + aside)
            target = round_down(min(max(fair, min(wanted, charged)), payable), PAGE_BYTES)
        short = wanted - target
        held_back = "the rest is not free yet" if short > MIB else None
        if target <= entitled + (0 if short <= 0 else plan.grow_dead_band(entitled)):
            return self._say(vm, WAIT, goal, reason, held_back=held_back or "too little is free")
        self._pay(vm, max(0, target - charged))
        self._send(vm, target)
        return self._say(vm, GROW, goal, reason, target_bytes=target, held_back=held_back)

    def _plug(self, vm: Vm, goal: int, reason: str) -> None:
        def wait(held_back: str) -> None:
            self._say(vm, WAIT, goal, reason, held_back=held_back)

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
        self._begin(vm, operation)
        return self._say(vm, PLUG, goal, reason, size_bytes=operation.size_bytes, zone=zone)

    def _enlarge(self, vm: Vm, goal: int, share: int, reason: str) -> None:
        """As `_plug`, from the virtio-mem device: in its own small blocks, so that shares can be exact."""

        def wait(held_back: str) -> None:
            self._say(vm, WAIT, goal, reason, held_back=held_back)

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

    def _resize(self, vm: Vm, goal: int | None, reason: str, operation: Resize) -> None:
        before = vm.virtio_mem.requested_bytes
        self._begin(vm, operation)
        if operation.size_bytes == before:
            action = CORRECT
        else:
            action = PLUG if operation.size_bytes > before else UNPLUG
        self._say(vm, action, goal, reason, size_bytes=abs(operation.size_bytes - before))

    def _unfinished(self, vm: Vm) -> int | None:
        return virtio_mem.unfinished(vm, self.now) if plan.reachable(vm, self.now) else None

    def _take_blocks(self, vm: Vm, goal: int) -> bool:
        """Take back virtio-mem that nobody brought online, or that stands in where the balloon would do."""
        if vm.sent:
            return False
        if (size := virtio_mem.unused(vm, self.now)) is not None:
            operation = Resize(self.state.ticket, size_bytes=size)
            self._resize(vm, goal, "the guest does not use all that it has plugged", operation)
            return True
        exchange = virtio_mem.exchange(vm, self.now)
        if exchange is None or goal > vm.assigned_bytes + plan.grow_dead_band(vm.assigned_bytes):
            return False
        size, raise_to = exchange
        if self._cost(vm, raise_to) > max(0, self.headroom_bytes):
            return False
        self._pay(vm, self._cost(vm, raise_to))
        operation = Resize(self.state.ticket, size_bytes=size, raise_to_bytes=raise_to)
        self._resize(vm, goal, "what its balloon holds it can give back for good", operation)
        return True

    def _take_dimm(self, vm: Vm, goal: int) -> bool:
        """Take out a DIMM that nobody brought online, or that has been of no use for long."""
        if self.now < vm.unplug_refused_until:
            return False
        dimm = vm.dimms[-1]
        offline = vm.offline_bytes >= dimm.size_bytes
        # What survived a reset nobody waits for: it goes while it is offline, before anything is taken.
        survived = offline and dimm.alias in vm.survivors
        if vm.sent:
            if survived:
                self._say(vm, WAIT, goal, "a DIMM that survived the reset goes first")
            return survived
        if offline and (survived or self.now - max(vm.dimms_changed_at, vm.since) >= OFFLINE_GRACE):
            operation = Unplug(self.state.ticket, alias=dimm.alias)
            reason = "the guest does not use its last DIMM"
        else:
            raise_to = plan.unplug_raise(vm, dimm.size_bytes, goal)
            if raise_to is None:
                vm.roomy_since = math.inf
                return False
            vm.roomy_since = min(vm.roomy_since, self.now)
            if self.now - vm.roomy_since < self.state.settings.unplug_after_seconds:
                return False
            if self._cost(vm, raise_to) > max(0, self.headroom_bytes):
                return False
            self._pay(vm, self._cost(vm, raise_to))
            operation = Unplug(self.state.ticket, alias=dimm.alias, raise_to_bytes=raise_to)
            reason = "it has not needed its last DIMM for long"
        self._begin(vm, operation)
        self._say(vm, UNPLUG, goal, reason, size_bytes=dimm.size_bytes, alias=dimm.alias)
        return True

    def _cost(self, vm: Vm, target: int) -> int:
        """What raising the target adds to the VM's charge."""
        return max(0, target - self.accounts[vm.config.uuid].guest_charge)

    def _pay(self, vm: Vm, cost: int) -> None:
        self.headroom_bytes -= cost
        self.costs[vm.config.uuid] = cost

    def _send(self, vm: Vm, target: int) -> None:
        self.commands.append(vm.send_target(self.state.ticket(), target, self.now))

    def _begin(self, vm: Vm, operation: Operation) -> None:
        self.state.operations[vm.config.uuid] = operation
        agent = vm.has_agent(self.now, self.state.settings.stale_seconds)
        self.commands += operation.advance(vm, self.now, agent)

    def _say(
        self,
        vm: Vm,
        action: Action,
        goal: int | None,
        reason: str,
        *,
        target_bytes: int | None = None,
        size_bytes: int | None = None,
        zone: wire.Zone | None = None,
        alias: str | None = None,
        held_back: str | None = None,
    ) -> None:
        uuid = vm.config.uuid
        # By position: with keywords it takes three times as long.
        self.decisions[uuid] = Decision(
            self.now,
            uuid,
            action,
            reason,
            vm.assigned_bytes,
            goal,
            target_bytes,
            size_bytes,
            zone,
            alias,
            held_back,
            vm.estimate,
        )
