"""What one round has to give and what came of it: whoever grants pays here, and says what it did."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent import wire
from host_controller.core.accounts import Account
from host_controller.core.commands import Command
from host_controller.core.operations import Operation
from host_controller.core.operations.resize import Resize
from host_controller.core.policy.dead_band import grow_dead_band
from host_controller.core.policy.plan import CORRECT, PLUG, UNPLUG, WAIT, Action, Decision
from host_controller.core.state import State
from host_controller.core.vm.record import Vm


@dataclass(slots=True)
class Purse:
    """Sizes are bytes."""

    state: State
    accounts: Mapping[str, Account]
    """As they were weighed in this step, or when something last happened to the VM."""
    headroom_bytes: int
    waiting: bool
    """Somebody waits for memory that is not free yet."""
    now: float
    per_weight: float = 0.0
    """What a weight of 1 is worth: nobody is squeezed who has no more than its weight gives."""
    givers: frozenset[str] = frozenset()
    """Who gives all that it has beyond its goal: that makes a DIMM that somebody waits for. By UUID."""
    lacks: bool = False
    """Somebody has had less than it needs for long, and what it is to have is not free."""
    starved: bool = False
    """Somebody stalls that is to have more."""
    goals: Mapping[str, int] = field(default_factory=dict)
    """Usable memory that the balance gives to each movable VM, by UUID."""
    dimms_wanted: dict[str, int] = field(default_factory=dict)
    """What a taker waits for only since so much is not free, bytes by UUID."""
    decisions: dict[str, Decision] = field(default_factory=dict)
    """By UUID."""
    commands: list[Command] = field(default_factory=list)
    """What carries the decisions out."""
    costs: dict[str, int] = field(default_factory=dict)
    """What the commands add to the charge of each VM."""
    _held_per_weight: float | None = None

    @property
    def payable_bytes(self) -> int:
        """What may be spent: nothing in an overdraft."""
        return max(0, self.headroom_bytes)

    def held_fast(self, vm: Vm, goal: int) -> bool:
        """Nothing more is on its way to a VM that is to grow: what is more for its weight than this goal is
        used, and with less a kernel would kill.
        """
        if self._held_per_weight is None:
            self._held_per_weight = self._hold_most()
        return self._held_per_weight * vm.config.limits.weight > goal

    def _hold_most(self) -> float:
        """What a weight of 1 has where somebody cannot do without, at the most; 0 while anybody is to give.

        Whoever has its minimum has it by its user's word, and not its kernel's.
        """
        most = 0.0
        for uuid, account in self.accounts.items():
            if (claims := account.claims) is None:
                continue
            granted, band = account.granted_bytes, grow_dead_band(account.granted_bytes)
            if granted - max(claims.irreducible, self.goals.get(uuid, granted)) > band:
                return 0.0
            if self.state.vms[uuid].config.limits.minimum_bytes < claims.irreducible >= granted - band:
                most = max(most, claims.irreducible / claims.weight)
        return most

    def can_raise(self, vm: Vm, target_bytes: int) -> bool:
        """Whether its target may be raised to make room for what is to leave it.

        While the host is overdrawn nobody is told to have more, also not what is charged already.
        """
        if self.headroom_bytes < 0 and target_bytes > vm.entitled_bytes:
            return False
        return self.cost(vm, target_bytes) <= self.payable_bytes

    def cost(self, vm: Vm, target: int) -> int:
        """What raising the target adds to the VM's charge."""
        return max(0, target - self.accounts[vm.config.uuid].guest_charge)

    def pay(self, vm: Vm, cost: int) -> None:
        """Spend that on a VM."""
        self.headroom_bytes -= cost
        self.costs[vm.config.uuid] = cost

    def send(self, vm: Vm, target: int) -> None:
        """Send a balloon target, which has been paid for."""
        self.commands.append(vm.send_target(self.state.ticket(), target, self.now))

    def begin(self, vm: Vm, operation: Operation) -> None:
        """Take an operation's first step; all that it may come to cost has been paid for."""
        self.state.operations[vm.config.uuid] = operation
        agent = vm.has_agent(self.now, self.state.settings.stale_seconds)
        self.commands += operation.advance(vm, self.now, agent)

    def resize(self, vm: Vm, goal: int | None, reason: str, operation: Resize) -> None:
        """Begin another size of virtio-mem, and say so."""
        before = vm.virtio_mem.requested_bytes
        self.begin(vm, operation)
        change = operation.size_bytes - before
        action = PLUG if change > 0 else UNPLUG if change < 0 else CORRECT
        self.say(vm, action, goal, reason, size_bytes=abs(change))

    def lower(self, vm: Vm, goal: int, reason: str, operation: Resize, size_bytes: int) -> None:
        """Have an operation under way ask for less virtio-mem still, and say so."""
        change = vm.virtio_mem.requested_bytes - size_bytes
        self.commands += operation.further(vm, size_bytes, self.now)
        self.say(vm, UNPLUG, goal, reason, size_bytes=change)

    def wait(self, vm: Vm, goal: int | None, reason: str, blocked_by: str) -> None:
        """Say what keeps a VM from its goal."""
        self.say(vm, WAIT, goal, reason, blocked_by=blocked_by)

    def say(
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
        blocked_by: str | None = None,
    ) -> None:
        """Note what was decided for a VM, and why."""
        uuid = vm.config.uuid
        # By position: by keyword it takes twice as long.
        self.decisions[uuid] = Decision(
            self.now, uuid, action, reason, vm.assigned_bytes, goal,
            target_bytes, size_bytes, zone, alias, blocked_by, vm.guest.estimate,
        )  # fmt: skip
