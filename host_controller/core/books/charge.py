"""What every VM costs the host.

A VM's charge is the most that it can come to hold without any further consent of ours. It is the
largest figure that any rule below gives, plus what comes on top whatever the balloon does. Each rule
exists because without it some VM could take memory that had been given to another; for each there is a
test that fails when the rule is taken out.
"""

from collections.abc import Callable
from typing import Final

from host_controller.core.model import UNTRUSTED, Settings
from host_controller.core.vm.record import CONTRADICTED, HUNG, LIVE, STARTING, TAKEOVER, Vm

Rule = Callable[[Vm], int]


def claimed(vm: Vm) -> int:
    """What its balloon leaves it, as far as the host's own count bears that out."""
    return vm.balloon.claim_bytes


def targeted(vm: Vm) -> int:
    """It may grow to any target that could still be in force."""
    return vm.balloon.ceiling_bytes


def resident(vm: Vm) -> int:
    """What the host sees it hold, less what its virtio-mem device is charged with by itself.

    Not only what QEMU tells to be plugged: that is up to a second old, and what a growing guest touches
    meanwhile would be charged twice. But what it held beyond its claim before it grew pays for no growth.
    """
    evidence, device = vm.evidence, vm.virtio_mem
    if vm.config.huge_page_bytes is not None:
        return evidence.resident_bytes  # its device is charged to their pool
    size = evidence.resident_bytes - device.may_hold_bytes
    if evidence.excess_bytes:
        beside = evidence.resident_bytes - device.current_bytes
        size = max(size, min(beside, vm.balloon.claim_bytes + evidence.excess_bytes))
    return size if size > 0 else 0


def starting(vm: Vm) -> int:
    """Without a driver it touches what it likes (fact: actual-survives-reset)."""
    return vm.ram_bytes if vm.phase is STARTING else 0


def taken_over(vm: Vm) -> int:
    """A controller before us may have told it anything."""
    return vm.ram_bytes if vm.phase is TAKEOVER else 0


def hung(vm: Vm) -> int:
    """It may be about to be reset, by a watchdog or by its user."""
    return vm.ram_bytes if vm.phase is HUNG else 0


def contradicted(vm: Vm) -> int:
    """It was caught with more than it claims (fact: actual-is-a-claim)."""
    return vm.ram_bytes if vm.phase is CONTRADICTED else 0


def faulted(vm: Vm) -> int:
    """We ran into an error of our own with it, so nothing that we hold of it is sure."""
    return vm.ram_bytes if vm.pauses.fault is not None else 0


def pinned(vm: Vm) -> int:
    """Its ballooned pages do not come back, or it may take them when it likes."""
    return vm.ram_bytes if vm.config.pinned is not None else 0


def untrusted(vm: Vm) -> int:
    """Its user said so."""
    return vm.ram_bytes if vm.config.trust is UNTRUSTED else 0


SIZES: Final[tuple[Rule, ...]] = (claimed, targeted, resident)
DOUBTS: Final[tuple[Rule, ...]] = (starting, taken_over, hung, contradicted, faulted, pinned, untrusted)
"""Each charges all RAM, and `doubted` knows of it."""
RULES: Final = SIZES + DOUBTS


def plugging(vm: Vm) -> int:
    """A DIMM counts whole from the moment it is asked for."""
    return vm.plug.pending_bytes


def virtio_mem(vm: Vm) -> int:
    """QEMU does not count it in the balloon's RAM; a guest that lies can touch even what is not plugged."""
    if vm.config.trust is UNTRUSTED or vm.phase is CONTRADICTED:
        return max(vm.config.virtio_mem_bytes, vm.virtio_mem.may_hold_bytes)
    return vm.virtio_mem.may_hold_bytes


EXTRAS: Final[tuple[Rule, ...]] = (plugging, virtio_mem)


def overhead(vm: Vm, settings: Settings) -> int:
    """QEMU's own memory: the most it was seen to take, and never less than the floor."""
    seen, floor = vm.evidence.overhead_bytes, settings.overhead_floor_bytes
    return seen if seen > floor else floor


def doubted(vm: Vm) -> bool:
    """Some rule of DOUBTS may apply: most VMs are sound, and need not be asked about one by one."""
    config = vm.config
    sound = (
        vm.phase is LIVE
        and vm.pauses.fault is None
        and config.pinned is None
        and config.trust is not UNTRUSTED
    )
    return not sound


def guest_charge(vm: Vm) -> int:
    """The part of the charge that a balloon target can raise. RAM in huge pages is charged to their pool."""
    if vm.config.huge_page_bytes is not None:
        return resident(vm)  # none, unless it is not in them after all
    most = 0  # of each VM in each step: `max` of a list takes twice as long
    for rule in RULES if doubted(vm) else SIZES:
        size = rule(vm)
        if size > most:
            most = size
    return most


def outside_balloon(vm: Vm) -> int:
    """The part that no balloon target changes, without QEMU's own memory."""
    if vm.config.huge_page_bytes is not None:
        return 0
    total = 0
    for extra in EXTRAS:
        total += extra(vm)
    return total


def in_force(vm: Vm) -> int:
    """What its balloon may let it have already, whatever is doubted: the largest of SIZES."""
    return max(size(vm) for size in SIZES)


def unrealised(vm: Vm) -> int:
    """What it is charged with and does not hold: it takes none of that while its vCPUs stand still."""
    return guest_charge(vm) - resident(vm)


def charge(vm: Vm, settings: Settings) -> int:
    """What this VM may cost the host, bytes."""
    return guest_charge(vm) + outside_balloon(vm) + overhead(vm, settings)


def owed(vm: Vm, settings: Settings, now: float) -> int:
    """What is held for it until its agent first reports: the rest of a startup of which it boots with less.

    It is no charge, as it cannot take it by itself. Memory in huge pages is none of the ordinary memory.
    """
    if not vm.awaits_startup(now, settings.settle_seconds) or vm.config.huge_page_bytes is not None:
        return 0
    startup = min(vm.config.limits.startup_bytes, vm.growth_ceiling_bytes)
    return max(0, startup - vm.ram_bytes - virtio_mem(vm))


def fixed(vm: Vm) -> int:
    """What a movable VM costs beside its overhead and the usable memory that the balance lays out."""
    return vm.plug.pending_bytes + vm.offline_bytes


def beyond_claim(vm: Vm) -> int:
    """What it holds beside all that its balloon leaves it: the host's huge pages fill in what was given up.

    No target gives that back, so the balance does not lay it out.
    """
    if vm.config.huge_page_bytes is not None:
        return 0
    beyond = resident(vm) - max(vm.balloon.claim_bytes, vm.balloon.ceiling_bytes)
    return beyond if beyond > 0 else 0


def explain_charge(vm: Vm, settings: Settings) -> list[tuple[str, int]]:
    """The parts of the charge: the rule that decided, the extras that are not zero, and the overhead."""
    if vm.config.huge_page_bytes is not None:
        return [("resident", resident(vm)), ("overhead", overhead(vm, settings))]
    deciding = max(RULES, key=lambda rule: rule(vm))
    extras = [(extra.__name__, extra(vm)) for extra in EXTRAS if extra(vm)]
    return [(deciding.__name__, deciding(vm)), *extras, ("overhead", overhead(vm, settings))]
