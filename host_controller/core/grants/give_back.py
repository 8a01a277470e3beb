"""A VM is to have less: by its balloon, by a DIMM that leaves, by a smaller virtio-mem device."""

from typing import Final

from host_controller.core.accounts import Account
from host_controller.core.grants.purse import Purse
from host_controller.core.model import GuestFacts
from host_controller.core.operations import Unplug
from host_controller.core.operations.resize import Resize
from host_controller.core.policy import dimm_plan, plan, spare
from host_controller.core.policy import virtio_mem_plan as virtio_mem
from host_controller.core.policy.plan import SHRINK, UNPLUG, WAIT
from host_controller.core.vm.demand import Estimate, spendable_swap_bytes, swappable_bytes
from host_controller.core.vm.record import Vm
from host_controller.units import MIB

OFFLINE_GRACE: Final = 5.0
"""Seconds in which a DIMM that nobody waits for may still come online."""
STUCK: Final = "its balloon did not follow its target; it is asked again later"


def shrink(vm: Vm, purse: Purse, account: Account, goal: int) -> None:
    """The next step down to its goal, by virtio-mem first."""
    overdrawn, settings, now = purse.headroom_bytes < 0, purse.state.settings, purse.now
    stuck = plan.unmoved_bytes(vm, account.granted_bytes, now)
    keeps = _keeps(account, vm.guest.estimate, goal, stuck, overdrawn=overdrawn)
    reason = _why(purse)
    # Once an overdraft lasts, which bars all from growing, it gives what it can bear, whatever its weight.
    lasts = overdrawn and purse.state.ledger.overdraft_lasts(now)
    share = 0 if lasts else int(purse.per_weight * vm.config.limits.weight)
    squeezed = spare.squeezed_bytes(vm, max(keeps, share), now, starved=purse.starved)
    if not overdrawn:
        keeps = max(keeps, _works_with(vm, account) - squeezed)
    aim = spare.target_with(vm, keeps)
    excess, stays = account.granted_bytes - keeps, _stays(vm, purse, aim, stuck)
    size = virtio_mem.smaller(vm, excess, settings, now, squeezed, stays)
    if size is not None:
        purse.resize(vm, goal, reason, Resize(purse.state.ticket, size_bytes=size))
    elif not stuck and (target := _next_target(vm, purse, aim, squeezed, stays)) is not None:
        purse.send(vm, target)
        purse.say(vm, SHRINK, goal, reason, target_bytes=target)
    elif not stuck and vm.present_bytes > vm.entitled_bytes + MIB:
        purse.say(vm, SHRINK, goal, f"{reason}; the last step is under way")
        return
    else:
        asked = keeps < account.granted_bytes and (stuck or vm.entitled_bytes <= aim)
        if stuck >= account.granted_bytes:
            blocked_by = STUCK
        elif asked and _refused(vm, now):
            blocked_by = "the guest did not give its virtio-mem back; it is asked again later"
        else:
            blocked_by = _nothing_to_spare(vm, goal, share, starved=purse.starved)
        purse.wait(vm, goal, reason, blocked_by)
        return
    if squeezed:
        vm.squeeze.step(now)


def go_on(vm: Vm, operation: Resize, purse: Purse, account: Account, goal: int) -> bool:
    """Whether its device is asked for its next step before QEMU tells that the last one has ended."""
    overdrawn = purse.headroom_bytes < 0
    keeps = _keeps(account, vm.guest.estimate, goal, 0, overdrawn=overdrawn)
    if not overdrawn:
        keeps = max(keeps, _works_with(vm, account))
    excess = account.granted_bytes - keeps
    stays = _stays(vm, purse, spare.target_with(vm, keeps), 0)
    size = virtio_mem.smaller_still(vm, excess, purse.state.settings, purse.now, least_bytes=stays)
    if size is None:
        return False
    purse.lower(vm, goal, _why(purse), operation, size)
    return True


def _stays(vm: Vm, purse: Purse, aim: int, stuck: int) -> int:
    """The size below which its device is not asked while somebody waits: what its kernel keeps its balloon
    gives at once, as long as that can give. When it has given all, the device is asked for that, too.
    """
    lowest, highest = vm.followed_bytes(purse.now)
    gives = not stuck and (aim < vm.entitled_bytes or lowest < highest)
    return virtio_mem.kernels_bytes(vm) if gives and _urgent(purse) else 0


def _urgent(purse: Purse) -> bool:
    """Somebody waits for what it is to give, or the host is overdrawn."""
    return purse.waiting or purse.headroom_bytes < 0


def _works_with(vm: Vm, account: Account) -> int:
    """What it has and works with: taken by steps alone, but in an overdraft."""
    return min(account.granted_bytes, spare.works_with_bytes(vm))


def _why(purse: Purse) -> str:
    return "others need it" if purse.waiting else "it has had more than it needs for a while"


def _next_target(vm: Vm, purse: Purse, aim: int, squeezed: int, stays: int) -> int | None:
    """Its balloon's next step towards `aim`; None while the last one is still being followed.

    stays: what its device is not asked for, and its balloon gives at once.
    """
    urgency = spare.Urgency.AT_ONCE if vm.config.uuid in purse.givers else spare.Urgency.NONE
    if purse.headroom_bytes < 0:
        lasts = purse.state.ledger.overdraft_lasts(purse.now)
        urgency = spare.Urgency.EVERY_PAGE if lasts else spare.Urgency.AT_ONCE
    return spare.shrink_target(
        vm, aim, purse.state.settings, purse.now, urgency, squeezed, stands_in=stays > 0
    )


def _keeps(account: Account, estimate: Estimate | None, goal: int, stuck: int, *, overdrawn: bool) -> int:
    """However short the budget, nobody is sent where its kernel would kill, by its last word, nor asked for
    what its balloon, being stuck, does not give.
    """
    assert account.claims is not None
    irreducible = account.claims.irreducible
    if estimate is not None:
        now = estimate.irreducible_bytes
        # In an overdraft it gives what its noise may need in a moment, too.
        irreducible = now if overdrawn else max(irreducible, now)
    irreducible = max(irreducible, stuck)
    return goal if irreducible <= goal else max(goal, min(irreducible, account.granted_bytes))


def _refused(vm: Vm, now: float) -> bool:
    """What was to leave its device is still there, or was until a moment ago, and is not needed there."""
    device = vm.virtio_mem
    return device.current_bytes > device.requested_bytes or (
        device.requested_bytes > 0 and vm.unplug_rest.after_failure(now) > 0
    )


def _nothing_to_spare(vm: Vm, goal: int, share: int, *, starved: bool) -> str:
    """Why a guest that is to have less keeps what it has."""
    facts, estimate = vm.guest.facts, vm.guest.estimate
    assert facts is not None
    if estimate is not None and estimate.unswapped_bytes <= goal < spare.works_with_bytes(vm):
        return "it works with the cache that it has, and is brought below that slowly"
    if estimate is None or goal >= estimate.unswapped_bytes:
        return "the guest has nothing more to spare"
    if estimate.irreducible_bytes < estimate.unswapped_bytes <= spare.rested_bytes(vm) and not starved:
        return (
            "it uses what it has, and reads back at once what it puts into its swap; nobody stalls who waits"
        )
    if goal < estimate.irreducible_bytes:
        return _why_no_less(vm, facts, estimate)
    if share >= estimate.unswapped_bytes:
        return "it uses what it has, and that is no more than its weight gives it"
    return "it uses what it has, and is brought into its own swap slowly"


def _why_no_less(vm: Vm, facts: GuestFacts, estimate: Estimate) -> str:
    """What keeps a guest from being brought below what is irreducible in it."""
    irreducible = estimate.irreducible_bytes
    if irreducible <= vm.config.limits.minimum_bytes:
        return "it has its minimum"
    if irreducible == facts.least_usable_bytes:
        return "with less its kernel would refuse, or a daemon in it kill, by a share of what it has"
    if not facts.swap_free_bytes:
        swap = "it has no free swap on a disk"
    elif swappable_bytes(facts) < spendable_swap_bytes(facts):
        swap = "half of what its programs hold is the most that is taken to fit into its swap"
    else:
        swap = "its free swap is too little"
    return f"it uses what it has, and {swap}: with less its kernel would kill"


def take_dimm(vm: Vm, purse: Purse, goal: int) -> bool:
    """Take out a DIMM that nobody brought online, or that has been of no use for long; whether it is dealt
    with.
    """
    if purse.now < vm.unplug_rest.until:
        return False
    dimm = vm.dimms.plugged[-1]
    offline = vm.offline_bytes >= dimm.size_bytes
    # What survived a reset nobody waits for: it goes while it is offline, before anything is taken.
    survived = offline and dimm.alias in vm.dimms.survivors
    if vm.balloon.sent:
        if survived:
            purse.say(vm, WAIT, goal, "a DIMM that survived the reset goes first")
        return survived
    if offline and (survived or purse.now - max(vm.dimms.changed_at, vm.since) >= OFFLINE_GRACE):
        reason = "the guest does not use its last DIMM"
        operation = Unplug(purse.state.ticket, alias=dimm.alias)
    else:
        leave = _can_leave(vm, purse, dimm.size_bytes, goal)
        if leave is None or not purse.can_raise(vm, leave[0]):
            return False
        raise_to, reason = leave
        purse.pay(vm, purse.cost(vm, raise_to))
        operation = Unplug(purse.state.ticket, alias=dimm.alias, raise_to_bytes=raise_to)
    purse.begin(vm, operation)
    purse.say(vm, UNPLUG, goal, reason, size_bytes=dimm.size_bytes, alias=dimm.alias)
    return True


def _can_leave(vm: Vm, purse: Purse, dimm_bytes: int, goal: int) -> tuple[int, str] | None:
    """The target under which its last DIMM can leave, and why it does: it is beyond maximum, or has not been
    needed for long.
    """
    raise_to = dimm_plan.unplug_raise(vm, dimm_bytes, goal)
    if raise_to is None:
        vm.dimms.needed()
        return None
    if dimm_plan.beyond_maximum(vm, dimm_bytes):
        return raise_to, "its last DIMM is beyond its maximum"
    lasting = purse.now - vm.dimms.spare_since(purse.now)
    if lasting < purse.state.settings.unplug_after_seconds:
        return None
    return raise_to, "it has not needed its last DIMM for long"


def take_blocks(vm: Vm, purse: Purse, goal: int) -> bool:
    """Take back virtio-mem that nobody brought online, or that stands in where the balloon would do; whether
    it is dealt with.
    """
    if vm.balloon.sent:
        return False
    if (size := virtio_mem.unused(vm, purse.now)) is not None:
        operation = Resize(purse.state.ticket, size_bytes=size)
        purse.resize(vm, goal, "the guest does not use all that it has plugged", operation)
        return True
    exchange = virtio_mem.exchange(vm, purse.now, virtio_mem.kernels_bytes(vm) if _urgent(purse) else 0)
    if exchange is None or goal > vm.assigned_bytes + plan.grow_dead_band(vm.assigned_bytes):
        return False
    size, raise_to = exchange
    if not purse.can_raise(vm, raise_to):
        return False
    purse.pay(vm, purse.cost(vm, raise_to))
    operation = Resize(purse.state.ticket, size_bytes=size, raise_to_bytes=raise_to)
    purse.resize(vm, goal, "what its balloon holds it can give back for good", operation)
    return True
