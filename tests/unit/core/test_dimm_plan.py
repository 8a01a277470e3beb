"""The next DIMM as tables: what is known of a guest, and what may be plugged, where, and what may leave.

The guest has 512 MiB and may have 1024 in eight DIMMs; a memory block is 128 MiB. It spoke at 10 s.
"""

from dataclasses import replace
from typing import Any

import pytest

from host_controller.core.model import BalloonStats, Growth, Limits
from host_controller.core.policy import dimm_plan
from host_controller.core.vm.balloon import PAGE_BYTES
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.motion import Motion
from host_controller.core.vm.record import Vm
from host_controller.units import GIB, MIB
from tests.support import build

NOW = 10.0
BLOCK = 128 * MIB
LARGE = Limits(512 * MIB, 192 * MIB, 8 * GIB)
NO_ROOM = "the guest has too little free memory for the page structures of another DIMM"
FULL = "it has all of its maximum"
LAST: Any = {"slots": 1, "limits": LARGE}
NOT_LAST = (
    "the guest has too little free memory for the page structures of a DIMM of 7.5 GiB"
    "; the slots left, 1, are to reach its maximum"
)
NOT_PAID = (
    "a DIMM of 7.5 GiB must be paid for at full size, and 7 GiB is free"
    "; the slots left, 1, are to reach its maximum"
)
NO_SLOT = "all its DIMM slots are used"


def guest(usable_mib: int = 512, demand_mib: int = 200, *, slope_mib: float = 0.0, **changes: Any) -> Vm:
    facts = replace(build.facts(usable_mib, demand_mib, at=NOW), **changes.pop("said", {}))
    demand = Demand(last=facts, motion=Motion(slope=slope_mib * MIB))
    told = {"facts": facts, "demand": demand, "booted_at": -1000.0}
    vm = build.vm(changes.pop("actual_mib", usable_mib), **told | changes)
    vm.guest.work_out(vm.config.limits, NOW)
    return vm


def stats(available_mib: int) -> dict[str, Any]:
    """What the balloon's driver has said since."""
    return {"stats": BalloonStats(668 * MIB, available_mib * MIB, updated=1), "stats_came_at": NOW + 1}


# --- what is kept for it ---


@pytest.mark.parametrize(
    ("vm", "desired_mib", "kept_mib"),
    [
        (guest(), 385, 128),
        (guest(), 384, 0),  # a block before the end of its RAM
        (guest(), 1000, 24),  # never more than it lacks of its maximum
        (guest(), 1024, 0),
        (guest(), 2000, 0),
        (guest(pending_bytes=BLOCK), 500, 0),  # one is paid for
        (guest(dimms_mib=(512,)), 1000, 0),  # it has all of its RAM
        (guest(config={"growth": Growth.BALLOON}), 500, 0),
        (guest(dimms_mib=(128,)), 512, 0),
        (guest(dimms_mib=(128,)), 513, 128),
        (guest(dimms_mib=(128,), said={"offline_bytes": 64 * MIB}), 449, 128),  # offline: it does not have it
        (guest(dimms_mib=(128,), said={"offline_bytes": 64 * MIB}), 448, 0),
        (guest(dimms_mib=(128,), config={"slots": 1}), 640, 0),  # no slot is left
        (guest(dimms_mib=(128,), config={"slots": 2}), 640, 384),  # the last slot's DIMM reaches maximum
        (guest(dimms_mib=(128,), config={"slots": 2}), 700, 324),
    ],
)
def test_the_least_dimm_is_kept_for_near_the_end_of_its_ram(vm: Vm, desired_mib: int, kept_mib: int) -> None:
    assert dimm_plan.next_dimm_slack(vm, desired_mib * MIB) == kept_mib * MIB


# --- what the balloon keeps for it ---


@pytest.mark.parametrize(
    ("changes", "wanted_mib", "charged_mib", "headroom_mib", "held_mib"),
    [
        ({}, 900, 400, 200, 48),  # 88 beyond its RAM: 40 are short of a DIMM, and a little more
        ({}, 900, 400, 239, 9),
        ({}, 900, 400, 240, 0),  # a DIMM can be paid for
        ({}, 900, 400, 340, 36),  # two cannot, with 100 short of the second
        ({}, 560, 400, 200, 48),  # it wants no more than 48 of the 88
        ({}, 560, 400, 300, 0),
        ({}, 543, 400, 200, 0),  # 31 are not worth a DIMM
        ({}, 900, 470, 130, 42),  # all that its balloon holds
        ({}, 900, 473, 127, 0),  # it holds too little
        ({}, 900, 512, 88, 0),
        ({}, 900, 400, 143, 0),  # 31 are not worth a DIMM either
        ({"maximum_mib": 600}, 600, 400, 200, 0),  # less than a block is missing
        ({"slots": 1}, 900, 200, 412, 0),  # a DIMM of 512 is 412 MiB too large
        ({"slots": 1}, 1024, 400, 612, 20),
    ],
)
def test_a_balloon_keeps_what_a_dimm_is_short_of_where_the_dimm_adds_more_than_nothing(
    changes: dict[str, int], wanted_mib: int, charged_mib: int, headroom_mib: int, held_mib: int
) -> None:
    limits = Limits(512 * MIB, 192 * MIB, changes.get("maximum_mib", 1024) * MIB)
    vm = build.vm(charged_mib, config={"limits": limits, "slots": changes.get("slots", 8)})
    held = dimm_plan.held_back(vm, wanted_mib * MIB, charged_mib * MIB, headroom_mib * MIB)
    assert held == held_mib * MIB


# --- how large ---


@pytest.mark.parametrize(
    ("boot_mib", "dimms", "slots", "maximum_mib", "least_mib"),
    [
        (512, 0, 8, 1024, 128),
        (512, 0, 1, 1024, 512),  # the only one reaches maximum
        (512, 0, 2, 1024, 256),  # 683 MiB, and half of that more, are maximum
        (512, 0, 3, 1024, 128),
        (512, 0, 1, 1100, 512),  # in whole blocks
        (512, 0, 1, 600, 0),  # less than a block is missing
        (1024, 0, 16, 16384, 128),
        (1024, 9, 16, 16384, 128),  # 6 more, each of half the RAM, would do without this one
        (1024, 10, 16, 16384, 128),
        (1024, 11, 16, 16384, 896),
        (1024, 15, 16, 16384, 13440),
        (1024, 0, 16, 1 << 20, 512),  # no 16 of half its RAM lead there: it waits for no more than that
        (1024, 0, 2, 16384, 512),
        (1024, 1, 2, 16384, 15232),  # only the last one waits
        (1024, 0, 255, 1 << 20, 128),
    ],
)
def test_the_least_dimm_leaves_slots_enough_to_reach_maximum_by_half_of_ram_each(
    boot_mib: int, dimms: int, slots: int, maximum_mib: int, least_mib: int
) -> None:
    limits = Limits(boot_mib * MIB, 192 * MIB, maximum_mib * MIB)
    config = {"limits": limits, "boot_ram_bytes": boot_mib * MIB, "slots": slots}
    vm = build.vm(boot_mib, dimms_mib=(128,) * dimms, config=config)
    assert dimm_plan.least_dimm(vm) == least_mib * MIB


@pytest.mark.parametrize(
    ("vm", "wanted_mib", "payable_mib", "size_mib", "why_not"),
    [
        (guest(), 100, 4096, 128, None),
        (guest(), 129, 4096, 256, None),
        (guest(), 1000, 4096, 512, None),  # no more than its maximum
        (guest(), 300, 300, 256, None),  # no more than is free, in whole blocks
        (guest(), 300, 128, 128, None),
        (guest(), 300, 127, 0, "a DIMM of 128 MiB must be paid for at full size, and 127 MiB is free"),
        (guest(), 300, -5, 0, "a DIMM of 128 MiB must be paid for at full size, and 0 B is free"),
        (guest(dimms_mib=(256, 256)), 100, 4096, 0, FULL),
        (guest(dimms_mib=(256, 192)), 100, 4096, 0, FULL),  # less than a block is missing
        (guest(config={"growth": Growth.BALLOON}), 100, 4096, 0, FULL),
        (guest(dimms_mib=(128,), config={"slots": 1}), 100, 4096, 0, NO_SLOT),
        (guest(dimms_mib=(128,), config={"slots": 2}), 100, 4096, 384, None),  # the last one reaches it
        (guest(config={"slots": 4, "limits": LARGE}), 100, 1 << 20, 1920, None),  # a quarter of the way
        (guest(config={"slots": 7, "limits": LARGE}), 100, 1 << 20, 1152, None),
        (guest(512, 500, config={"limits": LARGE}), 4096, 1 << 20, 256, None),  # a third of 12, × 64
        (guest(512, 480, config={"limits": LARGE}), 4096, 1 << 20, 768, None),  # 32 × (32 − 8)
        (guest(512, 500, config=LAST), 100, 1 << 20, 0, NOT_LAST),
        (guest(512, 200, config=LAST), 100, 7168, 0, NOT_PAID),
        (guest(512, 200, config=LAST), 100, 7680, 7680, None),
        (guest(512, 511, said={"free_bytes": 0}), 100, 4096, 0, NO_ROOM),
    ],
)
def test_a_dimm_is_what_is_wanted_within_maximum_slots_page_structures_and_what_is_free(
    vm: Vm, wanted_mib: int, payable_mib: int, size_mib: int, why_not: str | None
) -> None:
    assert dimm_plan.next_dimm(vm, wanted_mib * MIB, payable_mib * MIB, NOW) == (size_mib * MIB, why_not)


@pytest.mark.parametrize(
    ("available_mib", "free_mib", "reclaimable_mib", "slope_mib", "step_mib", "dimm_mib"),
    [
        (40, 40, 0, 0.0, 1024, 1024),  # 32 × (available − the floor of 8)
        (40, 40, 0, 8.0, 896, 896),  # less what it takes in half a second
        (40, 40, 0, 9.0, 768, 768),  # in whole blocks
        (12, 12, 0, 0.0, 128, 256),  # for a DIMM its kernel makes room, of a third of what it keeps
        (8, 2, 0, 0.0, 128, 128),  # past waiting: 1/64 of a block is free
        (8, 1, 1, 0.0, 128, 128),  # or can be dropped
        (8, 1, 0, 0.0, 0, 0),
        (8, 0, 1, 0.0, 0, 0),
        (0, 3, 0, 0.0, 128, 128),
        (0, 5, 1, 0.0, 128, 128),
        (0, 10, 2, 0.0, 128, 256),
        (0, 44, 0, 0.0, 128, 512),  # not more than its RAM
        (0, 44, 0, 2000.0, 128, 512),
    ],
)
def test_a_guest_bears_page_structures_for_half_of_what_it_has_free_and_makes_room_for_a_dimm(
    available_mib: int, free_mib: int, reclaimable_mib: int, slope_mib: float, step_mib: int, dimm_mib: int
) -> None:
    said = {"free_bytes": free_mib * MIB, "reclaimable_bytes": reclaimable_mib * MIB}
    vm = guest(512, 512 - available_mib, slope_mib=slope_mib, said=said)
    assert dimm_plan.bearable_step(vm, NOW) == step_mib * MIB
    assert dimm_plan.bearable_dimm(vm, NOW) == dimm_mib * MIB


@pytest.mark.parametrize(
    ("swap_free_mib", "said_since_mib", "size_mib"),
    [
        (0, None, 128),
        (8, None, 128),
        (16, None, 256),  # a quarter of it, × 64
        (31, None, 384),
        (32, None, 512),
        (256, None, 512),  # not more than its RAM
        (256, 0, 0),  # it has come to have less since
        (256, 2, 512),  # as much as it had
    ],
)
def test_a_guest_without_room_swaps_for_the_page_structures_of_a_dimm(
    swap_free_mib: int, said_since_mib: int | None, size_mib: int
) -> None:
    said = {"free_bytes": 2 * MIB, "swap_free_bytes": swap_free_mib * MIB}
    since = {} if said_since_mib is None else stats(said_since_mib)
    vm = guest(512, 510, said=said, **since)
    assert dimm_plan.bearable_dimm(vm, NOW) == size_mib * MIB


def test_what_a_guest_at_its_floor_last_said_of_its_free_memory_counts_while_it_is_fresh() -> None:
    """One that hangs would not place the structures, and has perhaps used since what it had free."""
    said = {"free_bytes": 2 * MIB, "swap_free_bytes": 256 * MIB}
    at_its_floor, at_ease = guest(512, 510, said=said), guest(512, 468)
    late = NOW + dimm_plan.LAST_WORD_SECONDS
    assert dimm_plan.bearable_step(at_its_floor, late) == BLOCK
    assert dimm_plan.bearable_dimm(at_its_floor, late) == 4 * BLOCK
    assert dimm_plan.bearable_step(at_its_floor, late + 0.1) == 0
    assert dimm_plan.bearable_dimm(at_its_floor, late + 0.1) == 0
    assert dimm_plan.bearable_dimm(at_ease, late + 0.1) > 0, "it has that above its floor"


@pytest.mark.parametrize(
    ("online_mib", "movable_mib", "size_mib", "zone"),
    [
        (512, 0, 1536, "movable"),
        (512, 0, 1537, "kernel"),
        (512, 384, 0, "movable"),
        (512, 384, 1, "kernel"),
        (512, 256, 512, "movable"),
        (512, 256, 513, "kernel"),
        (512, 600, 0, "kernel"),  # a reading that cannot be: rather the kernel's
    ],
)
def test_a_guest_has_three_times_as_much_movable_as_kernel_memory_at_most(
    online_mib: int, movable_mib: int, size_mib: int, zone: str
) -> None:
    vm = guest(said={"online_bytes": online_mib * MIB, "movable_bytes": movable_mib * MIB})
    assert dimm_plan.zone_for(vm, size_mib * MIB) == zone


# --- what may leave ---


@pytest.mark.parametrize(
    ("vm", "goal_mib", "target_mib"),
    [
        # 768 MiB of RAM, of which it has 400 and wants less: the balloon gives it what leaves.
        (guest(400, 200, dimms_mib=(256,)), 300, 656),
        (guest(400, 200, dimms_mib=(256,)), 448, 656),
        (guest(400, 200, dimms_mib=(256,)), 449, None),  # 64 MiB beyond must be left
        (guest(400, 200, dimms_mib=(256,), slope_mib=10.0), 398, 656),
        (guest(400, 200, dimms_mib=(256,), slope_mib=10.0), 399, None),  # it takes some while it leaves
        # The balloon cannot give all of it back: the rest it must have free.
        (guest(600, 200, dimms_mib=(256,)), 300, 768),
        (guest(768, 200, dimms_mib=(256,)), 300, 768),
        (guest(768, 200, dimms_mib=(256,), **stats(272)), 300, 768),
        (guest(768, 200, dimms_mib=(256,), **stats(271)), 300, None),
        (guest(700, 200, dimms_mib=(256,), said={"total_bytes": 668 * MIB}, **stats(204)), 300, 768),
        (guest(700, 200, dimms_mib=(256,), said={"total_bytes": 668 * MIB}, **stats(203)), 300, None),
        (guest(512, 200, dimms_mib=(256,), **stats(0)), 300, 768),  # the balloon gives all of it
        # What is offline it does not have.
        (guest(272, 200, actual_mib=400, dimms_mib=(256,), said={"offline_bytes": 128 * MIB}), 300, 656),
        (guest(272, 200, actual_mib=400, dimms_mib=(256,), said={"offline_bytes": 128 * MIB}), 321, None),
        # At its minimum its spare memory is within that.
        (guest(400, 100, dimms_mib=(256,)), 512, 656),
        (guest(400, 100, dimms_mib=(256,)), 513, None),
    ],
)
def test_a_dimm_may_leave_a_guest_that_keeps_what_it_wants_and_what_it_has(
    vm: Vm, goal_mib: int, target_mib: int | None
) -> None:
    expected = None if target_mib is None else target_mib * MIB
    assert dimm_plan.unplug_raise(vm, 256 * MIB, goal_mib * MIB) == expected


LARGER: Any = {"config": {"limits": Limits(512 * MIB, 512 * MIB, 512 * MIB)}, "dimms_mib": (256, 256)}
LOWERED: Any = {"config": {"limits": Limits(512 * MIB, 512 * MIB, 512 * MIB)}, "dimms_mib": (256,)}
"""Its maximum is its boot RAM now, as while it is released."""


@pytest.mark.parametrize(
    ("vm", "target_mib"),
    [
        (guest(512, 100, **LOWERED), 512),  # it can spare what leaves, and may have no more
        (guest(400, 100, **LOWERED), 512),  # it is to have its maximum at the same time
        (guest(512, 450, **LOWERED), 722),  # what it uses must find room
        (guest(512, 100, slope_mib=10.0, **LOWERED), 512),  # however it grows
        (guest(768, 200, **LOWERED), 768),
        (guest(768, 700, **LOWERED), None),  # it uses what should leave
        (guest(512, 100, said={"offline_bytes": 128 * MIB}, actual_mib=640, **LOWERED), None),
        (guest(512, 450, said={"available_bytes": 62 * MIB - 4096}, **LOWERED), 722 + PAGE_BYTES / MIB),
        # What is offline it does not have: its maximum counts beyond that.
        (guest(400, 100, said={"offline_bytes": 64 * MIB}, actual_mib=464, **LARGER), 576),
    ],
)
def test_a_dimm_beyond_maximum_is_of_no_use_and_leaves_as_soon_as_the_guest_can_give_it(
    vm: Vm, target_mib: float | None
) -> None:
    expected = None if target_mib is None else target_mib * MIB
    assert dimm_plan.unplug_raise(vm, 256 * MIB, 512 * MIB) == expected


def test_nothing_leaves_a_guest_of_which_nothing_is_known() -> None:
    vm = build.vm(400, dimms_mib=(256,))
    assert dimm_plan.unplug_raise(vm, 256 * MIB, 300 * MIB) is None
    vm.guest.heard(build.facts(400, 200), 400 * MIB)
    assert vm.guest.estimate is None
    assert dimm_plan.unplug_raise(vm, 256 * MIB, 300 * MIB) is None, "what it wants has not been worked out"
