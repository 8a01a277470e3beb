"""What the next controller is told: what was promised, paused and stopped, and what is under way.

Times are seconds of the host's monotonic clock, which all controllers of one boot share.
"""

from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

import msgspec

from host_controller.core.model import LARGEST_MAXIMUM_BYTES
from host_controller.core.operations.standstill import Stage, Standstill, left_behind
from host_controller.core.operator_events import Reserve
from host_controller.core.state import State
from host_controller.core.vm.inheritance import (
    InheritedBoot,
    InheritedPlug,
    boots_under_way,
    plugs_under_way,
    sizes_under_way,
)

_SIZES: Final = ("size_bytes", "huge_page_bytes", "huge_bytes", "made_bytes", "pool_bytes", "dimms")
"""What is left behind of memory."""


class Standing(msgspec.Struct, frozen=True):
    """A VM that the controller has stopped after a reset, and must let run."""

    uuid: str
    since: float
    until: float
    vcpu_seconds: float | None = None


class Remembered(msgspec.Struct, frozen=True):
    """What the next controller is told."""

    reservations: tuple[Reserve, ...] = ()
    paused: tuple[str, ...] = ()
    """UUIDs of VMs that the operator has paused."""
    paused_all: bool = False
    standing: tuple[Standing, ...] = ()
    plugs: dict[str, InheritedPlug] = {}
    """DIMMs that were asked for and have not been seen yet, by UUID."""
    sizes: dict[str, int] = {}
    """What virtio-mem devices may come to that were asked for another size, bytes, by UUID."""
    boots: dict[str, InheritedBoot] = {}
    """VMs that are due the rest of their startup, by UUID."""


def remembered(state: State, paused: Collection[str], paused_all: bool, now: float) -> Remembered:
    """What is to be told of an engine's state now. The same facts give the same file.

    What the controller before left behind, of VMs that nobody has seen since, is left behind again.

    paused: UUIDs of VMs that the operator has paused one by one. now: seconds of the monotonic clock.
    """
    standstills = {**state.inherited_standstills, **state.standstills}
    plugs = {**state.inherited_plugs, **plugs_under_way(state.vms)}
    sizes = {**state.inherited_sizes, **sizes_under_way(state.vms)}
    settle = state.settings.settle_seconds
    awaited = {uuid: one for uuid, one in state.inherited_boots.items() if one.lasts(settle, now)}
    boots = {**awaited, **boots_under_way(state.vms, settle, now)}
    return Remembered(
        tuple(sorted(state.ledger.reservations.values(), key=lambda one: one.name)),
        tuple(sorted(paused)),
        paused_all,
        tuple(
            Standing(uuid, one.since, one.until, one.vcpu_seconds)
            for uuid, one in left_behind(standstills).items()
        ),
        dict(sorted(plugs.items())),
        dict(sorted(sizes.items())),
        dict(sorted(boots.items())),
    )


def inherit(state: State, before: Remembered) -> None:
    """Have an engine that has seen nothing yet go on from there; who is paused it is told as VMs appear."""
    state.ledger.reservations.update((one.name, one) for one in before.reservations)
    state.inherited_standstills.update(
        (one.uuid, Standstill(one.since, one.until, Stage.STANDING, vcpu_seconds=one.vcpu_seconds))
        for one in before.standing
    )
    state.inherited_plugs.update(before.plugs)
    state.inherited_sizes.update(before.sizes)
    state.inherited_boots.update(before.boots)


def salvage(found: object) -> tuple[Remembered, int]:
    """What of a state can be used, and how much of it cannot: each entry stands for itself."""
    table = found if isinstance(found, dict) else {}
    damaged = int(not isinstance(found, dict))

    def sound(name: str, kind: Any, shape: type[list[Any] | dict[Any, Any]]) -> dict[Any, Any]:
        """What can be used, by its place in a list, or by its UUID."""
        nonlocal damaged
        told = table.get(name, shape())
        if not isinstance(told, shape):
            damaged += 1
            return {}
        kept = {}
        for key, one in told.items() if isinstance(told, dict) else enumerate(told):
            with suppress(msgspec.ValidationError):
                kept[key] = msgspec.convert(one, kind)
        kept = {key: one for key, one in kept.items() if _possible(one)}
        damaged += len(told) - len(kept)
        return kept

    paused_all = table.get("paused_all", False)
    damaged += not isinstance(paused_all, bool)
    return Remembered(
        tuple(sound("reservations", Reserve, list).values()),
        tuple(sound("paused", str, list).values()),
        paused_all is True,
        tuple(sound("standing", Standing, list).values()),
        sound("plugs", InheritedPlug, dict),
        sound("sizes", int, dict),
        sound("boots", InheritedBoot, dict),
    ), damaged


def _possible(one: object) -> bool:
    sizes = [one] if isinstance(one, int) else [getattr(one, name, 0) or 0 for name in _SIZES]
    return all(0 <= size <= LARGEST_MAXIMUM_BYTES for size in sizes)
