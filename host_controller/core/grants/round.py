"""One round over the VMs. Each is settled or becomes a taker; then the takers share what is there."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from host_controller.core.accounts import Account
from host_controller.core.grants.affirm import affirm, must_be_affirmed
from host_controller.core.grants.give_back import STUCK, go_on, shrink, take_blocks, take_dimm
from host_controller.core.grants.grow import grow
from host_controller.core.grants.purse import Purse
from host_controller.core.model import BALLOON, VIRTIO_MEM
from host_controller.core.operations import Operation
from host_controller.core.operations.resize import Resize
from host_controller.core.policy import plan
from host_controller.core.policy import virtio_mem_plan as virtio_mem
from host_controller.core.policy.balance import fill
from host_controller.core.policy.dead_band import SMALLEST_DEAD_BAND
from host_controller.core.policy.plan import HOLD, WAIT
from host_controller.core.vm.record import Vm

NOISE_PERCENT: Final = 36
"""A difference below so much of what its peaks are is itself noise: one standard deviation."""


@dataclass(slots=True)
class GrantRound:
    """The state of one round; what came of it is in its purse."""

    purse: Purse
    takers: list[tuple[Vm, Account, int]] = field(default_factory=list)
    """Who is to grow once all donors have given, and its goal."""
    every_byte: bool = field(init=False)
    """The overdraft lasts: many VMs that keep a little each would keep it for ever."""

    def __post_init__(self) -> None:
        self.every_byte = self.purse.state.ledger.overdraft_lasts(self.purse.now)

    def run(self, vms: Iterable[Vm]) -> None:
        """Decide for these VMs."""
        state, now = self.purse.state, self.purse.now
        state.each_apart(vms, now, self._settle)
        for vm, account, goal, share in self._shares():
            state.apart(vm, now, grow, self.purse, account, goal, share)

    def _settle(self, vm: Vm) -> None:
        """Decide for a VM that is not to grow; one that is becomes a taker."""
        purse, config, balloon = self.purse, vm.config, vm.balloon
        goal, operation = purse.goals.get(config.uuid), purse.state.operations.get(config.uuid)
        if operation is not None:
            if goal is None or not self._goes_on(vm, operation, goal):
                purse.say(vm, WAIT, goal, operation.describe())
        elif (balloon.resend or balloon.target_bytes is None) and must_be_affirmed(vm, purse.now):
            affirm(vm, purse, goal)
        elif goal is not None and balloon.resend and balloon.sent:
            # What it was told last is not what is to be in force: a step up from that may be a long way down.
            purse.say(vm, WAIT, goal, "its target is sent again once the last one is answered")
        elif config.growth is VIRTIO_MEM and (size := self._unfinished(vm)) is not None:
            reason = "its virtio-mem does not have the size that it should have"
            purse.resize(vm, goal, reason, Resize(purse.state.ticket, size_bytes=size))
        elif goal is None:
            purse.say(vm, HOLD, goal, self._why_left_alone(vm))
        elif config.growth is BALLOON or vm.progress.stuck(purse.now) or not self._takes_back(vm, goal):
            self._weigh(vm, goal)

    def _unfinished(self, vm: Vm) -> int | None:
        purse = self.purse
        if not plan.reachable(vm, purse.now):
            return None
        return virtio_mem.unfinished(vm, purse.now, overdrawn=purse.headroom_bytes < 0)

    def _takes_back(self, vm: Vm, goal: int) -> bool:
        """Memory that the guest has no use for leaves before anything else is done about its size."""
        if vm.config.growth is VIRTIO_MEM:
            return take_blocks(vm, self.purse, goal)
        return bool(vm.dimms.plugged) and take_dimm(vm, self.purse, goal)

    def _weigh(self, vm: Vm, goal: int) -> None:
        """Give, take or leave it, by how far it is from its goal."""
        purse = self.purse
        account = purse.accounts[vm.config.uuid]
        if self._is_too_little(vm, account, goal):
            self.takers.append((vm, account, goal))
        elif self._is_too_much(vm, account, goal):
            shrink(vm, purse, account, goal)
        elif vm.progress.stuck(purse.now):
            purse.say(vm, HOLD, goal, STUCK)
        else:
            purse.say(vm, HOLD, goal, "it has what it should have")

    def _goes_on(self, vm: Vm, operation: Operation, goal: int) -> bool:
        """Whether an operation whose step has ended by the guest's own count takes another at once."""
        account = self.purse.accounts[vm.config.uuid]
        if not isinstance(operation, Resize) or not operation.has_left(vm):
            return False
        return self._is_too_much(vm, account, goal) and go_on(vm, operation, self.purse, account, goal)

    @property
    def _calm(self) -> bool:
        """What there is is enough for all."""
        return not self.purse.waiting and self.purse.headroom_bytes >= 0

    def _is_too_little(self, vm: Vm, account: Account, goal: int) -> bool:
        granted, estimate = account.granted_bytes, vm.guest.estimate
        # Demand that goes on rising is noise no longer, and to heed it costs nobody anything.
        short = self._calm and estimate is not None and granted < estimate.need_bytes
        return goal > granted + (plan.grow_dead_band(granted) if short else self._dead_band(account))

    def _is_too_much(self, vm: Vm, account: Account, goal: int) -> bool:
        granted = account.granted_bytes
        if self.every_byte or vm.config.uuid in self.purse.givers:
            return goal < granted
        if self._calm:
            return goal < granted - plan.shrink_dead_band(granted)
        return goal < granted - self._dead_band(account, lent=self.purse.lacks)

    def _dead_band(self, account: Account, *, lent: bool = False) -> int:
        """lent: but for noise no difference is too small, as somebody else lacks it."""
        band = SMALLEST_DEAD_BAND if lent else plan.grow_dead_band(account.granted_bytes)
        return max(band, account.peaks * NOISE_PERCENT // 100) if self.purse.headroom_bytes >= 0 else band

    def _why_left_alone(self, vm: Vm) -> str:
        state, now = self.purse.state, self.purse.now
        if (standstill := state.standstills.get(vm.config.uuid)) is not None:
            return standstill.describe(now)
        return plan.immovable(vm, state.settings, now) or "nothing is known of it yet"

    def _shares(self) -> list[tuple[Vm, Account, int, int]]:
        """Takers with what they can be given now: the balance's fairness on what is there."""
        takers = self.takers
        if not takers:
            return []
        weights = [vm.config.limits.weight for vm, _, _ in takers]
        granted = [account.granted_bytes for _, account, _ in takers]
        goals = [goal for _, _, goal in takers]
        shares = fill(weights, granted, goals, sum(granted) + self.purse.payable_bytes)
        order = sorted(range(len(takers)), key=lambda i: (granted[i] / weights[i], takers[i][0].config.uuid))
        return [(*takers[i], shares[i]) for i in order]
