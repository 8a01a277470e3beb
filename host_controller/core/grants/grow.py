"""A VM is to have more: by its balloon, and above its RAM by a DIMM or a larger virtio-mem device."""

from typing import Final

from host_controller.core.accounts import Account
from host_controller.core.grants.purse import Purse
from host_controller.core.model import BALLOON, HOTADD, VIRTIO_MEM
from host_controller.core.operations import Plug
from host_controller.core.operations.resize import Resize
from host_controller.core.policy import dimm_plan, plan
from host_controller.core.policy import virtio_mem_plan as virtio_mem
from host_controller.core.policy.plan import GROW, PLUG
from host_controller.core.vm.balloon import PAGE_BYTES
from host_controller.core.vm.record import Vm
from host_controller.units import MIB, round_down

DEFLATED_BYTES: Final = 8 * MIB
"""A balloon this close to its target is as good as there: a DIMM may follow."""
PLENTY_BYTES: Final = 1 << 60
"""With so much to spend only the guest itself can be in the way."""
REASON: Final = "it needs more"
STARTUP: Final = "it has just booted with less than its startup"
HELD_FAST: Final = (
    "who has more than its share uses it, and no swap on a disk can take it: with less its kernel would kill"
)


def grow(vm: Vm, purse: Purse, account: Account, goal: int, share: int) -> None:
    """The next step up to its goal; `share` is what it can be given of what is there."""
    entitled = vm.entitled_bytes
    held = _held_back(vm, purse, account, goal)
    ceiling = vm.ram_bytes - held
    if purse.headroom_bytes < 0:
        purse.wait(vm, goal, REASON, "the host is overdrawn")
    elif entitled < ceiling - (plan.grow_dead_band(entitled) if held else 0) and (
        not vm.progress.cannot_deflate(purse.now)
    ):
        _deflate(vm, purse, account, goal, share, ceiling)
    elif vm.config.growth is VIRTIO_MEM:
        _enlarge(vm, purse, goal, share)
    else:
        _plug(vm, purse, goal)


def _held_back(vm: Vm, purse: Purse, account: Account, goal: int) -> int:
    """What its balloon keeps since a DIMM can be paid for beside it, and without it could not.

    Not while memory is on its way from others: how much it can be given in the end is not known then.
    """
    if vm.config.growth is not HOTADD or purse.waiting or purse.now < vm.plug_rest.until:
        return 0
    charged = account.guest_charge
    held = dimm_plan.held_back(vm, goal + vm.offline_bytes, charged, purse.headroom_bytes)
    return held if held and dimm_plan.next_dimm(vm, held, PLENTY_BYTES, purse.now)[0] else 0


def _deflate(vm: Vm, purse: Purse, account: Account, goal: int, share: int, ceiling: int) -> None:
    entitled = vm.entitled_bytes
    aside = vm.offline_bytes - vm.virtio_mem.requested_bytes
    wanted = min(ceiling, goal + aside)
    # What is charged already, such as a balloon that has not yet given up its pages, costs nothing.
    charged = account.guest_charge
    payable = charged + purse.headroom_bytes
    if payable >= ceiling and wanted >= ceiling - plan.grow_dead_band(ceiling):
        target = ceiling
    else:
        fair = min(ceiling, share + aside)
        target = min(max(fair, min(wanted, charged)), payable)
    if target < vm.ram_bytes:
        target = round_down(target, PAGE_BYTES)
    short = wanted - target
    blocked_by = "the rest is not free yet" if short > MIB else None
    if target <= entitled + (0 if short <= 0 else plan.grow_dead_band(entitled)):
        if blocked_by and purse.held_fast(vm, goal):
            blocked_by = HELD_FAST
        purse.wait(vm, goal, REASON, blocked_by or "too little is free")
        return
    purse.pay(vm, max(0, target - charged))
    purse.send(vm, target)
    purse.say(vm, GROW, goal, REASON, target_bytes=target, blocked_by=blocked_by)


def _plug(vm: Vm, purse: Purse, goal: int) -> None:
    why_not = _not_above_ram(vm, purse.now, "hot add failed; it is tried again in", "a DIMM that is plugged")
    if why_not is not None:
        purse.wait(vm, goal, REASON, why_not)
        return
    # All of its RAM is in use, but for what its balloon holds and does not give.
    wanted = goal - (vm.entitled_bytes + vm.virtio_mem.requested_bytes - vm.offline_bytes)
    size, why_not = dimm_plan.next_dimm(vm, wanted, purse.headroom_bytes, purse.now)
    if why_not is not None:
        if dimm_plan.next_dimm(vm, wanted, PLENTY_BYTES, purse.now)[0]:
            purse.dimms_wanted[vm.config.uuid] = dimm_plan.least_dimm(vm)
            if purse.held_fast(vm, goal):
                why_not = f"{why_not}: {HELD_FAST}"
        purse.wait(vm, goal, REASON, why_not)
        return
    purse.pay(vm, size)
    zone = dimm_plan.zone_for(vm, size)
    operation = Plug(purse.state.ticket, size_bytes=size, zone=zone)
    # Paid from now on, though the command follows only when the agent has set the zone.
    vm.plug.pay(size)
    purse.begin(vm, operation)
    purse.say(vm, PLUG, goal, REASON, size_bytes=operation.size_bytes, zone=zone)


def _enlarge(vm: Vm, purse: Purse, goal: int, share: int) -> None:
    """As `_plug`, from the virtio-mem device: in its own small blocks, so that shares can be exact."""
    reason = _why_larger(vm, purse, goal)
    why_not = _not_above_ram(vm, purse.now, "the last growth failed; next try in", "memory that is plugged")
    if why_not is not None:
        purse.wait(vm, goal, reason, why_not)
        return
    device = vm.virtio_mem
    # What it may come to already, such as blocks that it has not given back yet, costs nothing.
    paid = device.may_hold_bytes - device.requested_bytes
    payable = max(paid, min(share - vm.assigned_bytes, purse.headroom_bytes + paid))
    wanted = goal - vm.assigned_bytes
    size, why_not = virtio_mem.larger(vm, wanted, payable, purse.now)
    if why_not is not None:
        if purse.held_fast(vm, goal) and virtio_mem.larger(vm, wanted, PLENTY_BYTES, purse.now)[0]:
            why_not = f"{why_not}: {HELD_FAST}"
        purse.wait(vm, goal, reason, why_not)
        return
    purse.pay(vm, max(0, size - device.may_hold_bytes))
    # Paid from now on, though the command follows only when the agent has set the zone.
    device.promise(size)
    zone = dimm_plan.zone_for(vm, size - device.requested_bytes)
    purse.resize(vm, goal, reason, Resize(purse.state.ticket, size_bytes=size, zone=zone))


def _why_larger(vm: Vm, purse: Purse, goal: int) -> str:
    """What it wants, or the rest of a startup of which it boots with less."""
    estimate = vm.guest.estimate
    wanted = estimate is None or goal <= estimate.desired_bytes
    return (
        REASON if wanted or not vm.starts_small(purse.now, purse.state.settings.settle_seconds) else STARTUP
    )


def _not_above_ram(vm: Vm, now: float, failed: str, plugged: str) -> str | None:
    """What must come first, before a VM is given memory that it did not boot with."""
    if vm.progress.cannot_deflate(now):
        if vm.config.growth is BALLOON:
            return f"its balloon did not deflate; it is asked again in {vm.progress.stuck_until - now:.0f} s"
    elif vm.present_bytes < vm.entitled_bytes - DEFLATED_BYTES:
        return "its balloon deflates first"
    if vm.awaits_agent(now):
        return "its agent, which brings new memory online, has not reported yet"
    if now < vm.plug_rest.until:
        return f"{failed} {vm.plug_rest.until - now:.0f} s"
    if vm.offline_bytes:
        return f"{plugged} is not online yet"
    if vm.balloon.sent:
        return "its last balloon target is not answered yet"
    return None
