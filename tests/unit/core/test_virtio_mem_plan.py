"""The next size of a virtio-mem device as tables: what is known, and the size to ask for.

The guest has 512 MiB of boot RAM and a device of up to 512 MiB in blocks of 2 MiB; a memory block is 128 MiB.
It spoke at 10 s and has 200 MiB in use, unless it says otherwise.
"""

from dataclasses import replace
from typing import Any

import pytest

from host_controller.core.model import BalloonStats, Growth
from host_controller.core.policy import virtio_mem_plan as plan
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.growth import Rest
from host_controller.core.vm.record import Phase, Vm
from host_controller.core.vm.virtio_mem import LATE_SECONDS, PATIENCE, VirtioMem
from host_controller.units import MIB
from tests.support import build

NOW = 10.0
SETTINGS = build.settings(inflate_bytes_per_second=64 * MIB)
CONFIG = {"growth": Growth.VIRTIO_MEM, "slots": 1, "virtio_mem_bytes": 512 * MIB}
FULL = "it has all of its maximum"
IN_DOUBT = "nobody knows yet what became of its last size"
NO_ROOM = "the guest has too little free memory for the page structures of more"


def device(current_mib: int = 128, requested_mib: int | None = None, **changes: Any) -> VirtioMem:
    requested = current_mib if requested_mib is None else requested_mib
    return VirtioMem(current_mib * MIB, requested * MIB, max(current_mib, requested) * MIB, **changes)


def unanswered() -> VirtioMem:
    """Of an operation that was given up when the guest started anew."""
    one = device(256)
    one.ask("web", 7, 128 * MIB, NOW - 8.0)
    return one


def guest(
    virtio_mem: VirtioMem, *, available_mib: int = 300, usable_mib: int | None = None, **changes: Any
) -> Vm:
    """Its kernel counts what its balloon leaves and its device has plugged."""
    left = changes.get("actual_when_heard_bytes", changes.get("actual_mib", 512) * MIB) // MIB
    usable = left + virtio_mem.current_bytes // MIB if usable_mib is None else usable_mib
    facts = build.facts(usable, usable - available_mib, at=NOW)
    facts = replace(facts, **changes.pop("said", {}))
    config = CONFIG | changes.pop("config", {})
    told = {"facts": facts, "demand": Demand(last=facts), "booted_at": -1000.0}
    vm = build.vm(changes.pop("actual_mib", 512), virtio_mem=virtio_mem, config=config, **told | changes)
    vm.guest.work_out(vm.config.limits, NOW)
    return vm


# --- more ---


@pytest.mark.parametrize(
    ("vm", "wanted_mib", "payable_mib", "size_mib", "why_not"),
    [
        (guest(device()), 100, 4096, 228, None),
        (guest(device()), 99, 4096, 228, None),  # whole blocks
        (guest(device()), 1000, 4096, 512, None),  # all of it
        (guest(device(0)), 1000, 4096, 512, None),
        (guest(device(), config={"virtio_mem_bytes": 256 * MIB}), 1000, 4096, 256, None),
        (guest(device(), config={"virtio_mem_bytes": 4096 * MIB}), 1000, 4096, 512, None),  # its maximum
        (guest(device(unsure=True)), 100, 4096, 0, IN_DOUBT),
        (guest(unanswered()), 100, 4096, 0, IN_DOUBT),
        (guest(device(512)), 1, 4096, 0, FULL),
        (guest(device(511)), 1, 4096, 0, FULL),  # less than a block is missing
        (guest(device()), 1000, 51, 178, None),  # what is free
        (guest(device()), 1000, 1, 0, "1 MiB is free"),
        (guest(device()), 1000, -7, 0, "0 B is free"),
        # 32 × (10 − the floor of 8), and what is missing in a block that is begun.
        (guest(device(), available_mib=12), 1000, 4096, 256, None),
        (guest(device(64), available_mib=12), 1000, 4096, 256, None),
        (guest(device(), available_mib=0), 1000, 4096, 0, NO_ROOM),
        (guest(device(64), available_mib=0), 1000, 4096, 128, None),
    ],
)
def test_more_is_asked_for_within_maximum_page_structures_and_what_is_free(
    vm: Vm, wanted_mib: int, payable_mib: int, size_mib: int, why_not: str | None
) -> None:
    assert plan.larger(vm, wanted_mib * MIB, payable_mib * MIB, NOW) == (size_mib * MIB, why_not)


# --- less ---


@pytest.mark.parametrize(
    ("vm", "excess_mib", "now", "size_mib"),
    [
        (guest(device()), 30, NOW, 98),
        (guest(device()), 31, NOW, 98),  # whole blocks
        (guest(device()), 1, NOW, None),
        (guest(device()), 2, NOW, 126),
        (guest(device(256)), 200, NOW, 192),  # a second's work
        (guest(device(256), inflate_rate=100.0 * MIB), 200, NOW, 156),
        (guest(device(32)), 200, NOW, 0),
        (guest(device(), available_mib=36), 200, NOW, 108),  # 36 less its margin of 16
        (guest(device(), available_mib=16), 200, NOW, None),
        (guest(device(0)), 200, NOW, None),
        (guest(device()), 200, NOW + 8, None),  # not heard
        (guest(device(), unplug_rest=Rest(until=NOW)), 30, NOW, 98),
        (guest(device(), unplug_rest=Rest(until=NOW + 0.1)), 30, NOW, None),
        (guest(device(unsure=True)), 30, NOW, None),
        (guest(device(256, 128)), 30, NOW, None),  # what it has to spare is in part what leaves already
        (guest(device(128, 256)), 30, NOW, 226),
        (guest(device(), config={"growth": Growth.HOTADD}), 30, NOW, None),
    ],
)
def test_less_is_asked_for_within_what_is_spare_and_a_second(
    vm: Vm, excess_mib: int, now: float, size_mib: int | None
) -> None:
    expected = None if size_mib is None else size_mib * MIB
    assert plan.smaller(vm, excess_mib * MIB, SETTINGS, now, 0) == expected


@pytest.mark.parametrize(
    ("online_mib", "movable_mib", "from_agent", "kept_mib"),
    [
        (768, 256, True, 0),
        (768, 128, True, 128),
        (768, 0, True, 256),
        (768, 0, False, 0),  # its balloon's statistics do not tell zones
        (512, 0, True, 0),
        (768, 384, True, 0),  # a part of what it booted with is movable
        (640, 128, True, 0),
    ],
)
def test_what_is_online_and_not_movable_beside_its_ram_is_the_kernels(
    online_mib: int, movable_mib: int, from_agent: bool, kept_mib: int
) -> None:
    said = {"online_bytes": online_mib * MIB, "movable_bytes": movable_mib * MIB, "from_agent": from_agent}
    assert plan.kernels_bytes(guest(device(256), said=said)) == kept_mib * MIB


def test_a_block_of_its_ram_is_none_of_its_device_though_only_a_part_of_it_is_there() -> None:
    said = {"online_bytes": 768 * MIB, "movable_bytes": 256 * MIB}
    vm = guest(device(256), said=said, config={"boot_ram_bytes": 448 * MIB})
    assert plan.kernels_bytes(vm) == 0


def test_of_a_guest_that_has_not_spoken_nothing_is_known_to_be_the_kernels() -> None:
    assert plan.kernels_bytes(build.vm(512, virtio_mem=device(256), config=CONFIG)) == 0


@pytest.mark.parametrize(("least_mib", "size_mib"), [(0, 192), (192, 192), (200, 200), (256, None)])
def test_no_less_is_asked_for_than_it_is_to_be_left_with(least_mib: int, size_mib: int | None) -> None:
    expected = None if size_mib is None else size_mib * MIB
    vm = guest(device(256))
    assert plan.smaller(vm, 99 * MIB, SETTINGS, NOW, 0, least_mib * MIB) == expected
    assert plan.smaller_still(vm, 99 * MIB, SETTINGS, NOW, least_bytes=least_mib * MIB) == expected


@pytest.mark.parametrize(
    ("rest", "movable_mib", "size_mib"),
    [
        (Rest(NOW + 9, 1, kept_bytes=128 * MIB), 256, 192),  # a second's work of what came since
        (Rest(NOW + 9, 1, kept_bytes=230 * MIB), 256, 230),
        (Rest(NOW + 9, 1, kept_bytes=256 * MIB), 256, None),
        (Rest(NOW + 9, 1, kept_bytes=64 * MIB), 40, 216),  # its kernel has taken more since
        (Rest(NOW + 9, 1), 256, None),
        (Rest(NOW, 1, kept_bytes=256 * MIB), 256, 192),
    ],
)
def test_what_it_did_not_give_back_rests_and_what_has_come_since_does_not(
    rest: Rest, movable_mib: int, size_mib: int | None
) -> None:
    said = {"online_bytes": 768 * MIB, "movable_bytes": movable_mib * MIB}
    expected = None if size_mib is None else size_mib * MIB
    assert (
        plan.smaller(guest(device(256), unplug_rest=rest, said=said), 99 * MIB, SETTINGS, NOW, 0) == expected
    )


def test_what_its_own_kernel_shows_to_have_left_is_in_the_way_of_nothing() -> None:
    assert plan.smaller_still(guest(device(256, 128)), 30 * MIB, SETTINGS, NOW) == 98 * MIB
    assert plan.smaller_still(guest(device(256, 128)), 200 * MIB, SETTINGS, NOW) == 64 * MIB, (
        "a second's work"
    )
    assert plan.smaller_still(guest(device(256, 128), available_mib=36), 99 * MIB, SETTINGS, NOW) == 108 * MIB
    assert plan.smaller_still(guest(device(256, 128)), 30 * MIB, SETTINGS, NOW + 8) is None, "not heard"


@pytest.mark.parametrize(
    ("heard_mib", "actual_mib", "target_mib", "squeezed_mib", "size_mib"),
    [
        (512, 512, 412, 0, 108),  # 20 are left
        (512, 462, 412, 0, 108),
        (512, 412, 412, 0, 108),  # it has taken all of it since
        (412, 412, 412, 0, 64),  # its kernel counts that already: a second's work
        (512, 512, 387, 0, None),
        (512, 512, 600, 0, 64),  # it is to have more
        (512, 412, 387, 15, 118),  # 5 more than it has to spare it is to lose already
        (512, 387, 387, 5, None),
    ],
)
def test_what_its_balloon_had_been_told_to_take_when_its_kernel_last_spoke_is_not_spared_twice(
    heard_mib: int, actual_mib: int, target_mib: int, squeezed_mib: int, size_mib: int | None
) -> None:
    """It has 120 MiB to spare."""
    told = {"actual_when_heard_bytes": heard_mib * MIB, "target_bytes": target_mib * MIB}
    vm = guest(device(), available_mib=136, actual_mib=actual_mib, **told)
    expected = None if size_mib is None else size_mib * MIB
    assert plan.smaller(vm, 200 * MIB, SETTINGS, NOW, squeezed_mib * MIB) == expected


@pytest.mark.parametrize(("actual_mib", "size_mib"), [(412, 98), (395, 116), (382, None), (300, None)])
def test_what_its_balloon_was_told_to_give_back_and_has_not_is_no_reason_to_take_blocks(
    actual_mib: int, size_mib: int | None
) -> None:
    """It is to have 30 MiB less than it was told. Once it was below its minimum until its balloon moved."""
    vm = guest(device(), actual_mib=actual_mib, target_bytes=412 * MIB)
    expected = None if size_mib is None else size_mib * MIB
    assert plan.smaller(vm, 30 * MIB, SETTINGS, NOW, 0) == expected


def test_what_its_balloon_gave_back_by_itself_is_to_leave_again_and_not_spared_twice() -> None:
    """Its driver tells that up to a second late, its kernel at once: the guest has 20 MiB to spare."""
    vm = guest(device(), available_mib=36, actual_mib=412, usable_mib=427 + 128, target_bytes=412 * MIB)
    assert plan.smaller(vm, 200 * MIB, SETTINGS, NOW, 0) == 124 * MIB


@pytest.mark.parametrize(
    ("vm", "squeezed_mib", "size_mib"),
    [
        (guest(device(), available_mib=36), 0, 108),
        (guest(device(), available_mib=36), 10, 98),  # and so much of what it uses
        (guest(device(), available_mib=16), 10, 118),
        (guest(device(), available_mib=4), 10, 118),
        (guest(device(256), available_mib=300), 100, 192),  # no more than a second's work all the same
    ],
)
def test_a_squeeze_goes_below_what_is_spare(vm: Vm, squeezed_mib: int, size_mib: int) -> None:
    assert plan.smaller(vm, 200 * MIB, SETTINGS, NOW, squeezed_mib * MIB) == size_mib * MIB


@pytest.mark.parametrize(
    ("device_rate_mib", "balloon_rate_mib", "size_mib"),
    [(0, 0, 192), (100, 0, 156), (100, 50, 156), (100, 120, 136), (10, 0, 246)],
)
def test_a_seconds_work_is_what_the_faster_of_the_two_has_shown(
    device_rate_mib: int, balloon_rate_mib: int, size_mib: int
) -> None:
    vm = guest(
        device(256, shrink_rate=float(device_rate_mib * MIB)), inflate_rate=float(balloon_rate_mib * MIB)
    )
    assert plan.smaller(vm, 200 * MIB, SETTINGS, NOW, 0) == size_mib * MIB


@pytest.mark.parametrize(
    ("has_mib", "excess_mib", "size_mib"),
    [
        (512, 400, 128),  # three memory blocks, each in one request; the rest next
        (512, 384, 128),
        (500, 400, 128),
        (500, 372, 128),
        (500, 371, 256),
        (512, 100, 412),  # less than a block must go in small ones
        (130, 100, 128),  # down to a block's end first
        (128, 128, 0),
        (32, 300, 0),  # no more than it has
    ],
)
def test_a_device_shrinks_to_the_end_of_a_memory_block_where_that_is_on_its_way(
    has_mib: int, excess_mib: int, size_mib: int
) -> None:
    vm = guest(device(has_mib, shrink_rate=float(1024 * MIB)), available_mib=900)
    assert plan.smaller(vm, excess_mib * MIB, SETTINGS, NOW, 0) == size_mib * MIB


def test_no_less_is_asked_for_while_nobody_knows_what_became_of_the_size_before() -> None:
    """What an answer is waited for may have been overtaken, and a little less of it be more than there is."""
    one = device(512, shrink_rate=float(1024 * MIB))
    vm = guest(one, available_mib=900)
    one.ask(vm.config.uuid, 7, 512 * MIB, NOW - 9.0)
    assert plan.smaller(vm, 128 * MIB, SETTINGS, NOW, 0) is None
    one.answered(7, None, NOW)
    assert plan.smaller(vm, 128 * MIB, SETTINGS, NOW, 0) == 384 * MIB


@pytest.mark.parametrize(
    ("rate_mib", "seconds", "size_mib", "then_mib"),
    [
        (0, 0.5, 64, 128),
        (0, 1.0, 64, 128),
        (0, 4.0, 64, 32),
        (100, 4.0, 64, 50),  # a slow turn halves it at most
        (100, 1.0, 10, 50),
        (100, 0.9, 10, 100),  # less than a second's work
        (800, 1.0, 900, 1024),
    ],
)
def test_what_has_left_may_be_twice_as_much_the_next_time(
    rate_mib: int, seconds: float, size_mib: int, then_mib: int
) -> None:
    one = device(shrink_rate=float(rate_mib * MIB), asked_at=NOW, moved_at=NOW + seconds)
    one.gave_back(size_mib * MIB, NOW + seconds)
    assert one.shrink_rate == then_mib * MIB


@pytest.mark.parametrize(
    ("vm", "sizes_mib"),
    [
        (guest(device(256), actual_mib=384), (128, 512)),  # the balloon's 128 MiB for as much of the device
        (guest(device(256), actual_mib=256), (128, 384)),  # one memory block at a time
        (guest(device(64), actual_mib=384), (0, 448)),
        (guest(device(256), actual_mib=385), None),  # less than a block is ballooned
        (guest(device(0), actual_mib=384), None),
        (guest(device(1), actual_mib=384), None),
        (guest(device(256, 300), actual_mib=384), None),  # it moves
        (guest(device(256), actual_mib=384, unplug_rest=Rest(until=NOW)), (128, 512)),
        (guest(device(256), actual_mib=384, unplug_rest=Rest(until=NOW + 0.1)), None),
    ],
)
def test_what_the_balloon_holds_and_what_is_plugged_change_places(
    vm: Vm, sizes_mib: tuple[int, int] | None
) -> None:
    expected = None if sizes_mib is None else (sizes_mib[0] * MIB, sizes_mib[1] * MIB)
    assert plan.exchange(vm, NOW) == expected


@pytest.mark.parametrize(("least_mib", "sizes_mib"), [(192, (192, 448)), (256, None)])
def test_no_more_changes_places_than_its_device_is_to_be_left_with(
    least_mib: int, sizes_mib: tuple[int, int] | None
) -> None:
    expected = None if sizes_mib is None else (sizes_mib[0] * MIB, sizes_mib[1] * MIB)
    assert plan.exchange(guest(device(256), actual_mib=384), NOW, least_mib * MIB) == expected


def test_nothing_changes_places_while_the_balloon_still_takes_what_it_was_told_to() -> None:
    """The guest would miss both (rule: small-steps)."""
    vm = guest(device(256), actual_mib=384)
    vm.balloon.send(7, 256 * MIB, vm.entitled_bytes, NOW - 0.1)
    assert plan.exchange(vm, NOW) is None
    vm = guest(device(256), actual_mib=256)
    vm.balloon.send(7, 253 * MIB, vm.entitled_bytes, NOW - 0.1)
    assert plan.exchange(vm, NOW) is not None, "3 MiB are nothing"


# --- what is not as it should be ---


@pytest.mark.parametrize(
    ("vm", "size_mib"),
    [
        (guest(device()), None),
        (guest(device(256, 128, asked_at=NOW - LATE_SECONDS - 0.1)), 128),
        (guest(device(256, 128, asked_at=NOW - LATE_SECONDS + 0.1)), None),
        (guest(device(256, 128, asked_at=NOW - 9, moved_at=NOW - LATE_SECONDS + 0.1)), None),
        (guest(device(256, 128, asked_at=NOW - 9, moved_at=NOW - LATE_SECONDS - 0.1)), 128),
        # What somebody else asked for may still come, and what does not come is not asked for any more.
        (guest(device(128, 256, asked_at=NOW - PATIENCE + 0.1)), None),
        (guest(device(128, 256, asked_at=NOW - 9, moved_at=NOW - PATIENCE + 0.1)), None),
        (guest(device(128, 256, asked_at=NOW - 9, moved_at=NOW - PATIENCE - 0.1)), 128),
        (guest(device(128, 256, unsure=True, confirmed_bytes=64 * MIB)), 128),
        (guest(device(128, 256, unsure=True, confirmed_bytes=192 * MIB)), 128),
        (guest(device(128, 256, unsure=True, confirmed_bytes=192 * MIB, moved_at=NOW - LATE_SECONDS)), 192),
        (guest(device(128, 256, unsure=True, confirmed_bytes=192 * MIB, asked_at=NOW - 0.5)), 192),
        (
            guest(device(128, 256, unsure=True, confirmed_bytes=192 * MIB, asked_at=NOW - 0.4)),
            None,
        ),  # refused
        # What is leaving is not asked for again, nor is anything else before QEMU has surely told.
        (guest(device(128, 256, unsure=True, confirmed_bytes=64 * MIB, asked_at=NOW - LATE_SECONDS)), None),
        (guest(device(128, 256, unsure=True, confirmed_bytes=64 * MIB, moved_at=NOW - LATE_SECONDS)), None),
        (guest(device(128, 256, unsure=True, confirmed_bytes=64 * MIB, moved_at=NOW - 2.1)), 128),
        (guest(device(128, 256, unsure=True, confirmed_bytes=128 * MIB, moved_at=NOW)), 128),
        (guest(device(128), phase=Phase.STARTING), None),  # it has spoken
    ],
)
def test_a_size_that_was_asked_for_and_is_not_there_is_followed(vm: Vm, size_mib: int | None) -> None:
    assert plan.unfinished(vm, NOW) == (None if size_mib is None else size_mib * MIB)


@pytest.mark.parametrize(("available_mib", "size_mib"), [(143, None), (144, 128)])
def test_a_growth_that_its_kernel_shows_to_have_come_is_not_asked_back_from_a_guest_that_uses_it(
    available_mib: int, size_mib: int | None
) -> None:
    """Somebody else asked while ours was unanswered; it was carried out, which QEMU has not told yet."""
    one = device(128, 256, unsure=True, confirmed_bytes=128 * MIB, moved_at=NOW)
    vm = guest(one, available_mib=available_mib)
    assert vm.guest.facts is not None
    vm.guest.heard(replace(vm.guest.facts, usable_bytes=vm.present_bytes + 256 * MIB), vm.present_bytes)
    expected = None if size_mib is None else size_mib * MIB
    assert plan.unfinished(vm, NOW) == expected
    assert plan.unfinished(vm, NOW + LATE_SECONDS + 0.1) == 128 * MIB, "now QEMU would have told"


def test_what_a_guest_has_no_room_for_is_not_asked_for_again_before_qemu_has_surely_told() -> None:
    one = device(384, 2048, unsure=True, confirmed_bytes=2048 * MIB, moved_at=NOW)
    assert plan.unfinished(guest(one, available_mib=10), NOW) is None
    assert plan.unfinished(guest(one, available_mib=10), NOW + LATE_SECONDS + 0.1) == 384 * MIB
    one.confirmed_bytes = 384 * MIB
    assert plan.unfinished(guest(one, available_mib=10), NOW) == 384 * MIB


@pytest.mark.parametrize(
    ("usable_mib", "offline_mib", "size_mib"), [(1408, 0, 896), (640, 768, 896), (640, 384, None)]
)
def test_what_its_kernel_has_given_back_since_qemu_last_told_is_more_that_it_would_have_to_describe(
    usable_mib: int, offline_mib: int, size_mib: int | None
) -> None:
    """It has room for the page structures of one block; those that leave were never online."""
    said = {"offline_bytes": offline_mib * MIB}
    one = device(896, 1024, unsure=True, confirmed_bytes=896 * MIB, moved_at=NOW - 0.5)
    vm = guest(one, available_mib=10, usable_mib=usable_mib, said=said)
    assert plan.unfinished(vm, NOW) == (None if size_mib is None else size_mib * MIB)
    one.moved_at = NOW  # QEMU's word is as new as the guest's
    assert plan.unfinished(vm, NOW) == 896 * MIB


def test_in_an_overdraft_no_guest_is_asked_to_have_more_than_qemu_tells() -> None:
    one = device(128, 256, unsure=True, confirmed_bytes=192 * MIB, moved_at=NOW)
    assert plan.unfinished(guest(one), NOW) == 192 * MIB
    assert plan.unfinished(guest(one), NOW, overdrawn=True) is None
    assert plan.unfinished(guest(one), NOW + LATE_SECONDS + 0.1, overdrawn=True) == 128 * MIB


@pytest.mark.parametrize(("more_bytes", "size_mib"), [(0, 128), (1, None), (64 * MIB, None)])
def test_a_guest_that_has_said_nothing_is_asked_to_keep_what_it_has_and_to_take_no_more(
    more_bytes: int, size_mib: int | None
) -> None:
    """It was taken over in the middle of a command."""
    one = device(128, 256, unsure=True, confirmed_bytes=128 * MIB + more_bytes, moved_at=NOW)
    vm = build.vm(512, config=CONFIG, virtio_mem=one, phase=Phase.TAKEOVER)
    assert plan.unfinished(vm, NOW) == (None if size_mib is None else size_mib * MIB)


def test_what_a_command_took_that_was_answered_too_late_is_not_asked_for_again() -> None:
    """It was carried out after all: QEMU tells what it asks for, and that the guest gives it back."""
    one = device(512, 640, unsure=True, confirmed_bytes=640 * MIB)
    one.requested_bytes = 0
    assert not one.observe(384 * MIB, 0, NOW)
    assert plan.unfinished(guest(one), NOW) is None
    assert plan.unfinished(guest(one), NOW + LATE_SECONDS + 0.1) == 384 * MIB


@pytest.mark.parametrize(
    ("virtio_mem", "size"), [(device(0), None), (device(0, 128), 0), (device(0, 0, unsure=True), 0)]
)
def test_a_new_kernel_is_given_nothing_before_it_has_spoken(virtio_mem: VirtioMem, size: int | None) -> None:
    vm = build.vm(512, config=CONFIG, virtio_mem=virtio_mem, phase=Phase.STARTING)
    assert plan.unfinished(vm, NOW) == size


@pytest.mark.parametrize(
    ("usable_mib", "offline_mib", "idle_mib"),
    [
        (640, 0, 0),
        (512, 128, 128),
        (576, 128, 64),  # a block that is plugged in part
        (512, 64, 64),
        (512, 256, 128),  # no more than the device has
        (700, 128, 0),
    ],
)
def test_idle_is_what_is_plugged_and_offline_and_that_the_guest_does_not_count(
    usable_mib: int, offline_mib: int, idle_mib: int
) -> None:
    vm = guest(device(128), usable_mib=usable_mib, said={"offline_bytes": offline_mib * MIB})
    assert plan.idle_bytes(vm) == idle_mib * MIB


@pytest.mark.parametrize(("moved_at", "idle_mib"), [(NOW - 1.0, 0), (NOW, 128)])
def test_what_its_balloons_driver_counts_since_it_was_plugged_is_not_idle(
    moved_at: float, idle_mib: int
) -> None:
    """An agent that had stuck told of the time before: 1.88 GiB were asked back in one command.

    They do not count the 100 MiB that its kernel took at boot.
    """
    vm = guest(device(128, moved_at=moved_at), usable_mib=512, said={"offline_bytes": 128 * MIB})
    build.answers(vm, NOW - 0.5, BalloonStats(540 * MIB, 0, updated=1))
    assert plan.idle_bytes(vm) == idle_mib * MIB


def test_of_a_guest_that_has_said_nothing_nothing_is_idle() -> None:
    assert plan.idle_bytes(build.vm(512, config=CONFIG, virtio_mem=device())) == 0


def counted(at: float) -> dict[str, Any]:
    """By its balloon's driver, at that time: nothing of the device."""
    return {"stats": BalloonStats(412 * MIB, 0, updated=1), "stats_at": at}


def idle(usable_mib: int = 512, virtio_mem: VirtioMem | None = None, **changes: Any) -> Vm:
    """All of the device is offline, and a part of it nowhere in what the guest counts."""
    made = virtio_mem or device(128)
    return guest(made, usable_mib=usable_mib, said={"offline_bytes": 128 * MIB}, **changes)


@pytest.mark.parametrize(
    ("vm", "size_mib"),
    [
        (idle(), 0),
        (idle(576), 64),
        (idle(575), 62),  # whole blocks
        (idle(640), None),
        (idle(639), 126),
        (idle(virtio_mem=device(128, moved_at=NOW - 5)), 0),
        (idle(virtio_mem=device(128, moved_at=NOW - 4.9)), None),  # it may still come
        (idle(virtio_mem=device(128, asked_at=NOW - 4.9)), None),
        (idle(since=NOW - 4.9), None),
        (idle(virtio_mem=device(128, 256)), None),  # it moves
        (idle(virtio_mem=device(128, moved_at=NOW - 6), **counted(NOW - 6)), None),  # before it came
        (idle(virtio_mem=device(128, moved_at=NOW - 6), **counted(NOW - 5.9)), 0),
        (idle(unplug_rest=Rest(until=NOW)), 0),
        (idle(unplug_rest=Rest(until=NOW + 0.1)), None),
    ],
)
def test_what_nobody_brings_online_is_asked_for_no_more(vm: Vm, size_mib: int | None) -> None:
    assert plan.unused(vm, NOW) == (None if size_mib is None else size_mib * MIB)
