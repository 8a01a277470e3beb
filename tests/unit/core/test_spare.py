"""What a guest can do without, as tables: who spoke last, what they said, and what may be taken.

A guest of 512 MiB that uses 200 keeps a margin of 16 MiB and its kernel's floor of 8 MiB. It spoke at 10 s.
"""

from dataclasses import replace
from typing import Any

import pytest

from host_controller.core.model import BalloonStats, Growth
from host_controller.core.policy.dead_band import grow_dead_band, shrink_dead_band
from host_controller.core.policy.spare import (
    ANSWER_SECONDS,
    FOLLOWED_BYTES,
    HEARD_SECONDS,
    SMALL_SECONDS,
    Urgency,
    at_its_end,
    available_bytes,
    heard_lately,
    lowest_target,
    newer_stats,
    runs_short,
    seen_bytes,
    shrink_target,
    spare_bytes,
    squeezed_bytes,
    total_bytes,
    works_with_bytes,
)
from host_controller.core.vm.balloon import PAGE_BYTES
from host_controller.core.vm.demand import SWAP_WINDOW, Demand
from host_controller.core.vm.record import Vm
from host_controller.core.vm.squeeze import Squeeze
from host_controller.core.vm.stalls import Stalls
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import GIB, MIB, round_up
from tests.support import build

NOW = 10.0
RATE = 64 * MIB
SETTINGS = build.settings(inflate_bytes_per_second=RATE)
VIRTIO = {"growth": Growth.VIRTIO_MEM, "slots": 1, "virtio_mem_bytes": 512 * MIB}


def guest(usable_mib: int = 512, demand_mib: int = 200, *, agent: bool = True, **changes: Any) -> Vm:
    facts = build.facts(usable_mib, demand_mib, at=NOW, from_agent=agent)
    facts = replace(facts, **changes.pop("said", {}))
    told = {"facts": facts, "demand": Demand(last=facts), "booted_at": -1000.0}
    return build.vm(changes.pop("actual_mib", usable_mib), **told | changes)


def stats(available_mib: int, at: float) -> dict[str, Any]:
    return {"stats": BalloonStats(412 * MIB, available_mib * MIB, updated=1), "stats_came_at": at}


# --- who spoke, and when ---


@pytest.mark.parametrize(
    ("now", "sent_at", "moved_at", "heard"),
    [
        (NOW, 0.0, 0.0, True),
        (NOW + HEARD_SECONDS, 0.0, 0.0, True),
        (NOW + HEARD_SECONDS + 0.1, 0.0, 0.0, False),
        # Since it was told to move it must speak within a moment.
        (NOW + 1.0, NOW, 0.0, True),
        (NOW + 4.0, NOW, 0.0, True),  # it has spoken since, or at that moment
        (NOW + 0.1 + ANSWER_SECONDS, NOW + 0.1, 0.0, True),
        (NOW + 0.2 + ANSWER_SECONDS, NOW + 0.1, 0.0, False),
        # What it said before its virtio-mem moved is of another guest.
        (NOW + 0.1, 0.0, NOW, True),
        (NOW + 0.1, 0.0, NOW + 0.05, False),
    ],
)
def test_a_guest_is_heard_for_a_heartbeat_and_a_half_and_for_less_after_it_was_told_to_move(
    now: float, sent_at: float, moved_at: float, heard: bool
) -> None:
    vm = guest(sent_at=sent_at, virtio_mem=VirtioMem(moved_at=moved_at))
    assert heard_lately(vm, now) is heard


def test_a_guest_that_has_said_nothing_is_not_heard_runs_short_of_nothing_and_has_no_newer_word() -> None:
    vm = build.vm(512)
    assert not heard_lately(vm, 0.0)
    assert not runs_short(vm)
    assert newer_stats(build.vm(512, **stats(100, 1.0))) is None


@pytest.mark.parametrize(("at", "newer"), [(NOW - 1, False), (NOW, False), (NOW + 0.1, True)])
def test_what_the_balloons_driver_says_counts_beside_an_agent_when_it_is_newer(
    at: float, newer: bool
) -> None:
    vm = guest(**stats(100, at))
    assert (newer_stats(vm) is not None) is newer
    assert available_bytes(vm) == (100 if newer else 312) * MIB
    assert newer_stats(guest(agent=False, **stats(100, at))) is None, "then it is the only word"


# --- what it has to spare ---


@pytest.mark.parametrize(
    ("vm", "spare_mib"),
    [
        (guest(), 312 - 16),
        (guest(512, 500), -4),
        (guest(**stats(100, NOW + 1)), 100 - 16),
        (guest(**stats(400, NOW + 1)), 312 - 16),  # it says more than the agent, whose word stands
        # The driver's own total is larger: by the agent's there is less.
        (guest(said={"total_bytes": 380 * MIB}, **stats(100, NOW + 1)), 380 - 312 - 16),
        # Only statistics speak: a 16th stays free on top.
        (guest(agent=False), 312 - 16 - 32),
        # How much of a DIMM is offline is a guess: only what the kernel shows is sure.
        (guest(agent=False, dimms_mib=(128,)), 412 - 192),
        (guest(agent=False, dimms_mib=(128,), kernel_bytes=100 * MIB), 312 - 16 - 32),
        (guest(agent=False, config=VIRTIO, virtio_mem=VirtioMem(64 * MIB, 64 * MIB)), 412 - 192),
        (guest(agent=False, kernel_bytes=100 * MIB), 312 - 16 - 32),
        (guest(512, 300, agent=False, dimms_mib=(128,)), 212 - 16 - 32),
    ],
)
def test_to_spare_is_what_is_available_beyond_a_margin_by_whoever_spoke_last(vm: Vm, spare_mib: int) -> None:
    assert spare_bytes(vm) == spare_mib * MIB


@pytest.mark.parametrize(
    ("available_bytes", "short"), [(24 * MIB, False), (24 * MIB - 1, True), (8 * MIB, True), (0, True)]
)
def test_a_guest_runs_short_below_its_kernels_floor_and_a_margin(available_bytes: int, short: bool) -> None:
    assert runs_short(guest(said={"available_bytes": available_bytes})) is short


@pytest.mark.parametrize(("available_bytes", "ended"), [(8 * MIB, False), (8 * MIB - 1, True), (0, True)])
def test_a_guest_is_at_its_end_with_less_than_half_of_a_margin(available_bytes: int, ended: bool) -> None:
    assert at_its_end(guest(said={"available_bytes": available_bytes})) is ended


def test_of_a_guest_that_has_said_nothing_nobody_knows_that_it_is_at_its_end() -> None:
    assert not at_its_end(build.vm(512))


@pytest.mark.parametrize(("at", "total_mib"), [(NOW, 500), (NOW + 1, 412)])
def test_its_total_is_the_less_of_what_was_said_last_and_by_its_agent(at: float, total_mib: int) -> None:
    assert total_bytes(guest(said={"total_bytes": 500 * MIB}, **stats(100, at))) == total_mib * MIB
    assert total_bytes(guest(said={"total_bytes": 300 * MIB}, **stats(100, at))) == 300 * MIB


@pytest.mark.parametrize(
    ("resident_mib", "held_mib", "seen_mib"),
    [(300, 0, 0), (364, 0, 0), (365, 0, 365), (429, 64, 365), (428, 64, 0)],
)
def test_a_guest_that_holds_more_than_it_says_beyond_a_tolerance_is_seen(
    resident_mib: int, held_mib: int, seen_mib: int
) -> None:
    device = VirtioMem(held_mib * MIB, held_mib * MIB)
    vm = guest(300, virtio_mem=device, config=VIRTIO, resident_bytes=resident_mib * MIB)
    assert seen_bytes(vm) == seen_mib * MIB


# --- how far one command may go ---


@pytest.mark.parametrize(
    ("vm", "lowest_mib"),
    [
        (guest(), 512 - 64),  # a second of inflation
        (guest(inflate_rate=32.0 * MIB), 512 - 32),
        (guest(agent=False), 512 - 32),  # half of that where only statistics speak
        (guest(512, 460), 512 - (52 - 16)),  # what it has to spare
        (guest(512, 505), 512),  # nothing
        (guest(512, actual_mib=480), 480 - 64),  # a second from where its balloon is
        (
            guest(512, 500, actual_mib=480),
            512,
        ),  # its kernel says more than its balloon, and has nothing to spare
        (guest(480, 460, actual_mib=512), 512 - 4),
        (
            guest(512, 200, config=VIRTIO, virtio_mem=VirtioMem(128 * MIB, 128 * MIB), actual_mib=384),
            384 - 64,
        ),
        (guest(384, 200, said={"offline_bytes": 128 * MIB}, dimms_mib=(128,), actual_mib=512), 512 - 64),
        (guest(400, 380, said={"offline_bytes": 128 * MIB}, dimms_mib=(128,), actual_mib=480), 528 - 4),
    ],
)
def test_no_target_is_further_away_than_what_is_spare_and_than_a_second(vm: Vm, lowest_mib: int) -> None:
    assert lowest_target(vm, SETTINGS) == lowest_mib * MIB


@pytest.mark.parametrize(
    ("asked", "offline_mib", "left_mib"),
    [
        ({"requested_bytes": 256 * MIB, "confirmed_bytes": 256 * MIB}, 0, 232),
        ({"requested_bytes": 96 * MIB, "confirmed_bytes": 96 * MIB}, 0, 392),  # 160 of its 280 leave yet
        ({"requested_bytes": 96 * MIB, "confirmed_bytes": 96 * MIB}, 160, 232),  # these it does not have
        ({"requested_bytes": 256 * MIB, "confirmed_bytes": 96 * MIB, "unsure": True}, 0, 392),
        ({"requested_bytes": 0, "confirmed_bytes": 0}, 0, 488),  # nothing is spare
    ],
)
def test_what_is_to_leave_its_virtio_mem_is_not_there_for_its_balloon(
    asked: dict[str, Any], offline_mib: int, left_mib: int
) -> None:
    device = VirtioMem(current_bytes=256 * MIB, **asked)
    said = {"offline_bytes": offline_mib * MIB}
    usable = 512 + 256 - offline_mib
    vm = guest(usable, usable - 296, actual_mib=512, said=said, virtio_mem=device, config=VIRTIO)
    assert lowest_target(vm, build.settings(inflate_bytes_per_second=GIB)) == left_mib * MIB


@pytest.mark.parametrize(("at", "lowest_mib"), [(NOW + 0.1, 470), (NOW, 436)])
def test_what_newer_statistics_call_available_was_so_where_the_balloon_was_by_then(
    at: float, lowest_mib: int
) -> None:
    """It has come down by 30 MiB since, and counted what was available once more."""
    told = stats(46, at) | {"actual_with_stats_bytes": 500 * MIB}
    vm = guest(460, 300, actual_mib=470, said={"total_bytes": 460 * MIB}, **told)
    assert lowest_target(vm, build.settings(inflate_bytes_per_second=34 * MIB)) == lowest_mib * MIB


@pytest.mark.parametrize(
    ("vm", "aim_bytes", "now", "target_bytes"),
    [
        (guest(), 300 * MIB, NOW, 448 * MIB),
        (guest(), 496 * MIB, NOW, 496 * MIB),
        (guest(), 496 * MIB - 1, NOW, 496 * MIB),  # whole pages
        (guest(), 490 * MIB - 1, NOW, 490 * MIB),
        (guest(), 490 * MIB + PAGE_BYTES, NOW, 490 * MIB + PAGE_BYTES),
        (guest(), 512 * MIB, NOW, None),
        (guest(), 300 * MIB, NOW + HEARD_SECONDS + 1, None),  # not heard
        (guest(target_bytes=470 * MIB), 300 * MIB, NOW, None),  # 42 MiB are still to come: more than half
        (guest(target_bytes=480 * MIB), 300 * MIB, NOW, 448 * MIB),
        (guest(target_bytes=470 * MIB), 448 * MIB, NOW, 448 * MIB),  # the last step may be named at once
        # Which of the two gave what it has, only time shows.
        (guest(config=VIRTIO, virtio_mem=VirtioMem(asked_at=NOW - 1)), 300 * MIB, NOW, None),
        (guest(config=VIRTIO, virtio_mem=VirtioMem(asked_at=NOW - 3)), 300 * MIB, NOW, 448 * MIB),
    ],
)
def test_a_shrinking_balloon_is_told_its_next_step(
    vm: Vm, aim_bytes: int, now: float, target_bytes: int | None
) -> None:
    assert shrink_target(vm, aim_bytes, SETTINGS, now) == target_bytes


@pytest.mark.parametrize(
    ("device", "stands_in", "target_mib"),
    [
        (VirtioMem(moved_at=NOW - 0.1, asked_at=NOW - 1), True, 448),  # it came down to its size
        (VirtioMem(moved_at=NOW - 0.1, asked_at=NOW - 1), False, None),
        (VirtioMem(moved_at=NOW, raised_at=NOW - 1, asked_at=NOW - 1), True, None),
        (VirtioMem(asked_at=NOW - 3), True, 448),
    ],
)
def test_a_balloon_that_stands_in_for_a_device_waits_only_until_that_rests(
    device: VirtioMem, stands_in: bool, target_mib: int | None
) -> None:
    expected = None if target_mib is None else target_mib * MIB
    vm = guest(config=VIRTIO, virtio_mem=device)
    assert shrink_target(vm, 300 * MIB, SETTINGS, NOW, stands_in=stands_in) == expected


@pytest.mark.parametrize(
    ("rate_mib", "aim_mib", "least_bytes"),
    [
        (64, 300, 16 * MIB),  # a quarter of a second's work
        (128, 300, round_up(512 * MIB // 24, PAGE_BYTES)),  # what is not left alone where nobody is in need
        (128, 500, 12 * MIB),  # all that is left to do
    ],
)
def test_a_step_that_its_spare_memory_makes_small_waits_until_it_is_worth_a_command(
    rate_mib: int, aim_mib: int, least_bytes: int
) -> None:
    for spare, told in ((least_bytes, True), (least_bytes - PAGE_BYTES, False)):
        vm = guest(
            said={"available_bytes": 16 * MIB + spare}, sent_at=NOW - 1.0, inflate_rate=float(rate_mib * MIB)
        )
        assert shrink_target(vm, aim_mib * MIB, SETTINGS, NOW) == (512 * MIB - spare if told else None)


@pytest.mark.parametrize(
    ("urgency", "seconds", "told"),
    [
        (Urgency.EVERY_PAGE, SMALL_SECONDS, True),
        (Urgency.EVERY_PAGE, SMALL_SECONDS - 0.1, False),
        (Urgency.AT_ONCE, SMALL_SECONDS, False),
    ],
)
def test_a_page_alone_is_asked_for_once_a_second_while_an_overdraft_lasts(
    urgency: Urgency, seconds: float, told: bool
) -> None:
    """A page is all that it has to spare of what it is to give, and its last step is so long ago."""
    vm = guest(said={"available_bytes": 16 * MIB + PAGE_BYTES}, sent_at=NOW - seconds)
    target = shrink_target(vm, 300 * MIB, SETTINGS, NOW, urgency)
    assert target == (512 * MIB - PAGE_BYTES if told else None)


@pytest.mark.parametrize("urgency", [Urgency.AT_ONCE, Urgency.EVERY_PAGE])
@pytest.mark.parametrize(
    ("step_bytes", "seconds", "told"),
    [
        (4 * MIB - PAGE_BYTES, SMALL_SECONDS, True),
        (4 * MIB - PAGE_BYTES, SMALL_SECONDS - 0.1, False),
        (4 * MIB, 0.1, True),
    ],
)
def test_what_is_worth_no_command_is_gathered_for_a_second_however_urgent_it_is(
    step_bytes: int, seconds: float, told: bool, urgency: Urgency
) -> None:
    """A need that falls a little with each report once made ten commands a second in an overdraft."""
    vm = guest(said={"available_bytes": 64 * MIB}, sent_at=NOW - seconds)
    aim = 512 * MIB - step_bytes
    assert shrink_target(vm, aim, SETTINGS, NOW, urgency) == (aim if told else None)


# --- below what it uses, into swap of its own ---


def squeezable(*, swap_mib: int = 4096, stall_share: float | None = 0.0, **changes: Any) -> Vm:
    """It uses 464 of its 512 MiB, and somebody has needed some of that for four seconds."""
    facts = build.facts(512, 464, at=NOW, swap_free_bytes=swap_mib * MIB)
    facts = replace(facts, **changes.pop("said", {}))
    demand = Demand(last=facts, stall=Stalls(share=stall_share), **changes.pop("works", {}))
    vm = build.vm(
        changes.pop("actual_mib", 512), **{"facts": facts, "demand": demand, "squeeze": asked()} | changes
    )
    vm.guest.work_out(vm.config.limits, NOW)
    return vm


def asked(since: float = NOW - 4.0) -> Squeeze:
    squeeze = Squeeze()
    for at in (since, NOW - 1.0):
        squeeze.ask(at)
        squeeze.ask(min(NOW - 1.0, at + 2.0))
    return squeeze


def asked_for_a_second() -> Squeeze:
    squeeze = Squeeze()
    squeeze.ask(NOW - 1.0)
    return squeeze


@pytest.mark.parametrize(
    ("vm", "keeps_mib", "squeezed_mib"),
    [
        (squeezable(), 200, 16.0),  # a 32nd
        (squeezable(), 479, 1.0),  # not below what its weight gives it
        (squeezable(), 480, 0.0),  # it is to keep what it uses
        (squeezable(), 500, 0.0),
        (squeezable(stall_share=0.5), 200, 4.0),
        (squeezable(stall_share=None), 200, 4.0),
        (squeezable(swap_mib=0), 200, 0.0),
        (squeezable(swap_mib=74), 200, 10.0),  # all that its swap has room for
        (squeezable(said={"from_agent": False}), 200, 0.0),  # nobody knows its swap
        (squeezable(squeeze=Squeeze()), 200, 0.0),
        (squeezable(squeeze=asked_for_a_second()), 200, 0.0),
        # The last step must have been followed, and answered.
        (squeezable(target_bytes=512 * MIB - FOLLOWED_BYTES), 200, 16.0),
        (squeezable(target_bytes=512 * MIB - FOLLOWED_BYTES - 1), 200, 0.0),
        (squeezable(sent_at=NOW), 200, 16.0),
        (squeezable(sent_at=NOW + 0.1), 200, 0.0),
    ],
)
def test_a_guest_is_squeezed_by_a_step_that_its_swap_and_its_stalls_allow(
    vm: Vm, keeps_mib: int, squeezed_mib: float
) -> None:
    assert squeezed_bytes(vm, keeps_mib * MIB, NOW, starved=False) == squeezed_mib * MIB


@pytest.mark.parametrize(
    ("read_back_mib", "squeezed_mib", "for_who_stalls_mib"),
    [(0, 10, 10), (6, 4, 10), (10, 0, 10), (90, 0, 10)],
)
def test_what_is_read_back_at_once_is_left_to_a_guest_but_for_who_stalls(
    read_back_mib: float, squeezed_mib: int, for_who_stalls_mib: int
) -> None:
    """Its swap has room for 10 MiB; read back is what it would be within half a minute."""
    used = {"swap_used_bytes": 300 * MIB}
    vm = squeezable(swap_mib=74, said=used, works={"swap_in_rate": read_back_mib * MIB / SWAP_WINDOW})
    assert squeezed_bytes(vm, 200 * MIB, NOW, starved=False) == pytest.approx(squeezed_mib * MIB, abs=1)
    assert squeezed_bytes(vm, 200 * MIB, NOW, starved=True) == pytest.approx(for_who_stalls_mib * MIB, abs=1)


@pytest.mark.parametrize(
    ("cache_mib", "keeps_mib", "squeezed_mib"), [(100, 400, 16), (100, 575, 5), (100, 580, 0), (0, 485, 0)]
)
def test_cache_that_is_read_again_is_taken_by_steps(
    cache_mib: int, keeps_mib: int, squeezed_mib: int
) -> None:
    """Of a guest without swap: 480 MiB are its programs' and a margin."""
    vm = squeezable(swap_mib=0, works={"cache_bytes": float(cache_mib * MIB)})
    assert works_with_bytes(vm) == (480 + cache_mib if cache_mib else 0) * MIB
    assert squeezed_bytes(vm, keeps_mib * MIB, NOW, starved=False) == squeezed_mib * MIB


@pytest.mark.parametrize(("available_mib", "squeezed_mib"), [(48, 10), (44, 6), (38, 0), (0, 0)])
def test_what_it_has_come_to_use_since_its_agent_spoke_is_not_squeezed_out_of_it(
    available_mib: int, squeezed_mib: int
) -> None:
    """Its swap has room for 10 of the 464 MiB that it used. Where it puts the rest nobody has said."""
    said = BalloonStats(412 * MIB, available_mib * MIB, updated=1)
    vm = squeezable(swap_mib=74, stats=said, stats_came_at=NOW + 0.1)
    assert squeezed_bytes(vm, 200 * MIB, NOW, starved=True) == squeezed_mib * MIB


def test_cache_that_it_no_longer_has_is_not_squeezed_out_of_what_it_uses() -> None:
    """Without swap: it was counted as it was read again, and by now its programs hold what it has."""
    vm = squeezable(swap_mib=0, said={"available_bytes": 16 * MIB}, works={"cache_bytes": 300.0 * MIB})
    assert vm.guest.estimate is not None
    assert vm.guest.estimate.irreducible_bytes == 512 * MIB
    assert squeezed_bytes(vm, 200 * MIB, NOW, starved=True) == 0


@pytest.mark.parametrize(("keeps_mib", "asked"), [(481, False), (480, False), (479, True)])
def test_who_may_keep_just_what_it_uses_is_not_yet_short_of_anything(keeps_mib: int, asked: bool) -> None:
    """So the shortage that must last before it is squeezed has not begun."""
    vm = squeezable(squeeze=Squeeze())
    assert squeezed_bytes(vm, keeps_mib * MIB, NOW, starved=False) == 0
    assert (vm.squeeze != Squeeze()) is asked


def test_of_a_guest_that_nothing_was_worked_out_for_nothing_is_squeezed() -> None:
    assert squeezed_bytes(guest(512, 464, squeeze=asked()), 0, NOW, starved=False) == 0


def test_a_squeeze_goes_below_what_is_spare_and_not_below_a_second_of_inflation() -> None:
    vm = squeezable()  # it has 32 MiB to spare
    assert lowest_target(vm, SETTINGS) == 480 * MIB
    assert lowest_target(vm, SETTINGS, 16 * MIB) == 464 * MIB
    assert lowest_target(vm, SETTINGS, 100 * MIB) == (512 - 64) * MIB
    nothing = squeezable(said={"available_bytes": 4 * MIB})
    assert lowest_target(nothing, SETTINGS, 16 * MIB) == 496 * MIB


@pytest.mark.parametrize(
    ("available_mib", "aim_mib", "squeezed_mib", "target_mib"),
    [
        (48, 300, 16, 464),
        (16, 300, 16, 496),  # a small step, but a whole one
        (16, 505, 16, 505),  # what is left to do
        (16, 504, 16, 504),
        (16, 300, 0, None),
    ],
)
def test_a_step_of_a_squeeze_may_be_small(
    available_mib: int, aim_mib: int, squeezed_mib: int, target_mib: int | None
) -> None:
    vm = squeezable(said={"available_bytes": available_mib * MIB})
    target = shrink_target(vm, aim_mib * MIB, SETTINGS, NOW, Urgency.NONE, squeezed_mib * MIB)
    assert target == (None if target_mib is None else target_mib * MIB)


def test_a_part_of_a_page_does_not_keep_the_last_step_of_a_squeeze_waiting() -> None:
    """It is all that is left to do, and the target is a whole page: no time would make it larger."""
    vm = squeezable(said={"available_bytes": 16 * MIB})
    target = shrink_target(vm, 505 * MIB + 1, SETTINGS, NOW, Urgency.NONE, 16 * MIB)
    assert target == 505 * MIB + PAGE_BYTES


@pytest.mark.parametrize(("actual_mib", "target_mib"), [(504, 496), (503, None)])
def test_a_step_of_less_than_half_a_squeeze_waits(actual_mib: int, target_mib: int | None) -> None:
    """Its kernel counts 512 MiB, and its balloon less: from the larger one it is squeezed by 16."""
    vm = squeezable(said={"available_bytes": 16 * MIB}, actual_mib=actual_mib)
    target = shrink_target(vm, 300 * MIB, SETTINGS, NOW, Urgency.NONE, 16 * MIB)
    assert target == (None if target_mib is None else target_mib * MIB)


@pytest.mark.parametrize(("usable", "grow", "shrink"), [
    (512 * MIB, 4 * MIB, 512 * MIB // 24),
    (128 * MIB, 4 * MIB, 16 * MIB),
    (8 * GIB, 64 * MIB, 8 * GIB // 24),
    (8 * GIB + 127, 64 * MIB, (8 * GIB + 127) // 24),
])  # fmt: skip
def test_what_is_not_worth_a_command_is_a_share_and_no_less_than_a_least(
    usable: int, grow: int, shrink: int
) -> None:
    assert (grow_dead_band(usable), shrink_dead_band(usable)) == (grow, shrink)
    assert type(grow_dead_band(usable)) is int
