"""What a VM can give away, by its guest's last word: what its balloon takes, within a time, of all it has.

Nobody is promised any of it: a guest may grow meanwhile. It tells who is worth waiting for.
"""

from typing import Final

from host_controller.core.books.charge import doubted, overhead
from host_controller.core.engine import Engine
from host_controller.core.vm.record import Vm
from host_controller.units import MIB

SLOWEST_INFLATION: Final = 64 * MIB
"""Bytes per second of a balloon that was not seen inflating yet: a third of one without KVM
(fact: tcg-speeds)."""


def is_settled(vm: Vm) -> bool:
    """Its needs are known, its balloon is trusted, and nothing is being done with it."""
    pauses = vm.pauses
    return vm.guest.estimate is not None and not (doubted(vm) or pauses.hands_off or pauses.left_alone)


def gives_bytes(engine: Engine, vm: Vm, seconds: float, now: float) -> int:
    """What can be taken from it within so many seconds, as it has more than it cannot do without; what is on
    its way already is among it.
    """
    estimate = vm.guest.estimate
    if estimate is None or not is_settled(vm):
        return 0
    charge = engine.charges.get(vm.config.uuid, 0)
    leaving = max(0, vm.followed_bytes(now)[1] - vm.entitled_bytes)
    beside = max(overhead(vm, engine.state.settings), charge - vm.assigned_bytes - leaving)
    floor = max(estimate.need_bytes, vm.config.limits.minimum_bytes) + beside
    pace = max(vm.balloon.inflate_rate, SLOWEST_INFLATION)
    return min(max(0, charge - floor), int(pace * seconds))


def all_give_bytes(engine: Engine, seconds: float, now: float) -> int:
    """The same of all VMs."""
    return sum(gives_bytes(engine, vm, seconds, now) for vm in engine.vms.values())
