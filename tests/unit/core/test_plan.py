"""The next step for one VM: small enough to be safe."""

import math
from dataclasses import replace

import pytest

from host_controller.core.books import charge as books
from host_controller.core.model import BalloonStats, Growth, Limits, RunState, Trust
from host_controller.core.policy import dead_band, dimm_plan, plan, spare
from host_controller.core.policy.balance import Claims
from host_controller.core.vm import phases
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.level import PEAKS, Level
from host_controller.core.vm.motion import Motion
from host_controller.core.vm.record import Phase, Vm
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB
from tests.support import build

SETTINGS = build.settings(inflate_bytes_per_second=128 * MIB)
BLOCK = 128 * MIB
NOW = 2.0


def guest(usable_mib: int = 512, demand_mib: int = 200, **changes: object) -> Vm:
    """One that has just said so; `desired_bytes` and `slope` replace what follows from that."""
    desired, slope = changes.pop("desired_bytes", None), changes.pop("slope", 0.0)
    facts = changes.pop("facts", None) or build.facts(usable_mib, demand_mib)
    changes = {
        "demand": Demand(last=facts, motion=Motion(slope=slope, growth=slope)),
        "facts": facts,
        **changes,
    }  # type: ignore[arg-type]
    vm = build.vm(usable_mib, **changes)  # type: ignore[arg-type]
    vm.guest.work_out(vm.config.limits, 1.0)
    if desired is None:
        return vm
    assert vm.guest.estimate is not None
    return replace(vm, guest=replace(vm.guest, estimate=vm.guest.estimate._replace(desired_bytes=desired)))


def test_others_keep_memory_ready_for_a_guests_growth_up_to_its_minimum() -> None:
    minimum = guest().config.limits.minimum_bytes
    assert plan.growth_bytes(guest(slope=10.0 * MIB)) == 10 * MIB
    assert plan.growth_bytes(guest(slope=2.0 * minimum)) == minimum


def test_no_command_goes_further_below_the_guest_than_it_has_to_spare() -> None:
    vm = guest(512, 440)
    left = (512 - 440) * MIB - 16 * MIB
    assert spare.lowest_target(vm, SETTINGS) == 512 * MIB - left


def test_of_a_balloon_and_a_report_the_larger_one_is_where_the_guest_is() -> None:
    # What a kernel keeps may be counted wrong for a while, where virtio-mem is plugged in part.
    vm = guest(400, 340)
    vm.balloon.read(440 * MIB, 1.0)
    assert spare.lowest_target(vm, SETTINGS) == (440 - 60 + 16) * MIB


def test_statistics_newer_than_the_agents_last_word_bound_what_is_taken() -> None:
    vm = guest(512, 200)  # MemTotal 412 MiB, of which 312 are available
    vm.balloon.read(384 * MIB, 2.0)
    stats = BalloonStats(total_bytes=284 * MIB, available_bytes=40 * MIB, updated=2)
    build.answers(vm, 2.0, stats)
    assert spare.spare_bytes(vm) == (40 - 16) * MIB
    assert dimm_plan.bearable_dimm(vm, NOW) == 1024 * MIB, "32 times what is above its floor of 8 MiB"
    assert not spare.runs_short(vm)
    build.answers(vm, 0.5, stats)
    assert spare.spare_bytes(vm) == (312 - 16) * MIB, "an older one says nothing"


def test_a_guest_that_has_come_to_have_nothing_gets_no_dimm_by_an_older_word() -> None:
    vm = guest(512, 508)
    assert dimm_plan.bearable_dimm(vm, NOW) == BLOCK, "the structures of one block fit into 4 MiB"
    build.answers(vm, 2.0, BalloonStats(412 * MIB, 4 * MIB, 2))
    assert dimm_plan.bearable_dimm(vm, NOW) == BLOCK, "nothing has changed since"
    build.answers(vm, 2.0, BalloonStats(412 * MIB, 0, 3))
    assert dimm_plan.bearable_dimm(vm, NOW) == 0
    assert spare.runs_short(vm)


def test_no_command_goes_further_than_a_second_of_inflation() -> None:
    assert spare.lowest_target(guest(512, 100), SETTINGS) == (512 - 128) * MIB
    assert spare.lowest_target(guest(512, 100, inflate_rate=64.0 * MIB), SETTINGS) == (512 - 64) * MIB


def test_a_guest_at_its_floor_is_not_shrunk_at_all() -> None:
    assert spare.shrink_target(guest(512, 500), 300 * MIB, SETTINGS, 1.0) is None


def test_the_next_step_is_named_before_the_last_one_ends() -> None:
    vm = guest(512, 100)
    vm.balloon.starts_with(384 * MIB)
    assert spare.shrink_target(vm, 200 * MIB, SETTINGS, 1.0) is None
    vm.balloon.read(440 * MIB, 1.0)
    assert spare.shrink_target(vm, 200 * MIB, SETTINGS, 1.0) == 312 * MIB


def test_less_than_a_step_is_taken_a_while_after_the_last_one() -> None:
    # As when fifty VMs give a little each to one that is short; a goal is no whole number of pages.
    vm, aim = guest(512, 100), 500 * MIB - 1000
    vm.send_target(1, 512 * MIB, 0.0)
    vm.balloon.read(512 * MIB, 0.0)
    assert spare.shrink_target(vm, aim, SETTINGS, 1.0) is None
    assert spare.shrink_target(guest(512, 100), aim, SETTINGS, 1.0) == 500 * MIB
    assert spare.shrink_target(vm, aim, SETTINGS, 1.0, spare.Urgency.AT_ONCE) == 500 * MIB, (
        "an overdraft does not wait"
    )


def test_a_guest_that_fell_silent_after_a_step_is_not_shrunk_further() -> None:
    vm = guest(512, 100)
    assert spare.shrink_target(vm, 200 * MIB, SETTINGS, 6.0) is not None  # calm: heartbeats are 5 s apart
    assert spare.shrink_target(vm, 200 * MIB, SETTINGS, 9.0) is None
    vm.send_target(1, 400 * MIB, 2.0)
    assert spare.shrink_target(vm, 200 * MIB, SETTINGS, 4.0) is None


def test_a_dimm_leaves_only_when_the_guest_keeps_what_it_wants_and_has() -> None:
    vm = guest(300, 100, dimms_mib=(256,))
    assert dimm_plan.unplug_raise(vm, 256 * MIB, 150 * MIB) == 556 * MIB
    wanting = guest(300, 100, dimms_mib=(256,), desired_bytes=500 * MIB)
    assert dimm_plan.unplug_raise(wanting, 256 * MIB, 150 * MIB) is None, "a short goal is no reason"
    growing = guest(300, 100, dimms_mib=(256,), desired_bytes=200 * MIB, slope=60.0 * MIB)
    assert dimm_plan.unplug_raise(growing, 256 * MIB, 150 * MIB) is None, (
        "it would need it again before it has left"
    )
    full = guest(768, 700, dimms_mib=(256,), desired_bytes=300 * MIB)
    assert dimm_plan.unplug_raise(full, 256 * MIB, 150 * MIB) is None, "it has less free than leaves"


def test_the_first_dimm_leaves_a_guest_whose_minimum_is_its_boot_ram() -> None:
    at_minimum = {"limits": Limits(512 * MIB, 512 * MIB, 1024 * MIB)}
    vm = guest(512, 100, dimms_mib=(128,), config=at_minimum)
    assert dimm_plan.unplug_raise(vm, 128 * MIB, 512 * MIB) == 640 * MIB
    vm = guest(512, 100, dimms_mib=(128,), config=at_minimum, desired_bytes=513 * MIB)
    assert dimm_plan.unplug_raise(vm, 128 * MIB, 512 * MIB) is None, "it wants some of what would leave"


def test_offline_memory_counts_as_given_in_qemus_terms() -> None:
    # Trap 2: a target of usable memory alone would take the offline DIMM's size out of what the guest has.
    vm = build.vm(768, dimms_mib=(256,), facts=build.facts(512, 200, offline_bytes=256 * MIB))
    assert vm.offline_bytes == 256 * MIB
    assert vm.assigned_bytes == 512 * MIB
    assert spare.lowest_target(vm, SETTINGS) == (768 - 128) * MIB


def test_where_only_statistics_speak_more_is_left_and_steps_are_smaller() -> None:
    told = guest(512, 400)
    guessed = guest(512, 400, facts=build.facts(512, 400, from_agent=False))
    assert spare.lowest_target(guessed, SETTINGS) > spare.lowest_target(told, SETTINGS)


@pytest.mark.parametrize(
    ("wanted_mib", "expected_mib"), [(1, 128), (128, 128), (129, 256), (400, 512), (4000, 512)]
)
def test_dimms_are_whole_memory_blocks_up_to_maximum(wanted_mib: int, expected_mib: int) -> None:
    size, why_not = dimm_plan.next_dimm(guest(512, 200), wanted_mib * MIB, 4096 * MIB, NOW)
    assert (size, why_not) == (expected_mib * MIB, None)


def test_a_growing_guest_gets_no_larger_dimm_than_it_wants_now() -> None:
    vm = guest(512, 200, slope=100.0 * MIB)
    assert dimm_plan.next_dimm(vm, 100 * MIB, 4096 * MIB, NOW)[0] == BLOCK


def test_dimms_grow_as_slots_run_out() -> None:
    vm = guest(512, 200, config={"slots": 2})
    assert dimm_plan.next_dimm(vm, 1, 4096 * MIB, NOW)[0] == 256 * MIB


def test_a_starving_guest_gets_a_dimm_whose_page_structures_it_can_place() -> None:
    # Trap 17: 2 GiB for a guest with 23 MiB free killed it, 256 MiB worked.
    limits = build.LIMITS.__class__(512 * MIB, 192 * MIB, 8192 * MIB)
    vm = guest(512, 512 - 23, config={"limits": limits})
    size, _ = dimm_plan.next_dimm(vm, 2048 * MIB, 8192 * MIB, NOW)
    assert 0 < size <= 32 * (23 - 8) * MIB
    at_its_floor = guest(512, 506, config={"limits": limits})
    assert dimm_plan.next_dimm(at_its_floor, 2048 * MIB, 8192 * MIB, NOW)[0] == BLOCK
    build.says(at_its_floor, build.facts(512, 506, free_bytes=1 * MIB))
    assert dimm_plan.next_dimm(at_its_floor, 2048 * MIB, 8192 * MIB, NOW)[0] == 0


def test_a_dimm_must_be_payable_at_full_size() -> None:
    size, why_not = dimm_plan.next_dimm(guest(), 256 * MIB, 200 * MIB, NOW)
    assert (size, why_not) == (BLOCK, None)
    size, why_not = dimm_plan.next_dimm(guest(), 256 * MIB, 100 * MIB, NOW)
    assert size == 0
    assert why_not is not None
    assert "100 MiB is free" in why_not


def test_memory_is_plugged_movable_up_to_three_to_one_and_for_the_kernel_beyond() -> None:
    vm = guest()
    assert dimm_plan.zone_for(vm, 3 * 512 * MIB) == "movable"
    assert dimm_plan.zone_for(vm, 3 * 512 * MIB + BLOCK) == "kernel"


HELD: list[tuple[dict[str, object], str]] = [
    ({"state": RunState.PAUSED}, "the VM is paused"),
    ({"job": "migration"}, "migration in progress"),
    ({"paused": True}, "paused by the operator"),
    ({"stopped": True}, "it stands still after its reset"),
    ({"retry_at": 1.1}, "a command failed a moment ago; it is tried again"),
    ({"phase": Phase.TAKEOVER}, "just taken over: its balloon has not confirmed its size"),
    ({"phase": Phase.HUNG}, "the guest does not answer"),
    ({"phase": Phase.CONTRADICTED, "contradiction": "it lies"}, "not believed: it lies"),
    ({"phase": Phase.CONTRADICTED}, "not believed: its claims must hold for a while first"),
    ({"config": {"huge_page_bytes": 2 * MIB}}, "its RAM lies in huge pages, which no balloon gives back"),
    (
        {"fault": "KeyError"},
        "left alone after an internal error (KeyError); restart the VM or the controller",
    ),
]


@pytest.mark.parametrize(("changes", "why"), HELD)
def test_a_vm_that_cannot_be_moved_is_left_alone_and_why_is_said(
    changes: dict[str, object], why: str
) -> None:
    assert plan.immovable(guest(), SETTINGS, 1.0) is None
    assert plan.immovable(guest(**changes), SETTINGS, 1.0) == why


def test_a_guest_that_has_not_reported_is_left_alone() -> None:
    assert plan.immovable(build.vm(), SETTINGS, 1.0) == "the guest has not reported yet"


def test_a_vm_about_which_nothing_is_fresh_is_left_alone() -> None:
    assert plan.immovable(guest(), SETTINGS, 1.0 + SETTINGS.stale_seconds) is None
    stale = plan.immovable(guest(), SETTINGS, 1.1 + SETTINGS.stale_seconds)
    assert stale == "nothing fresh is known about the guest"


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, True),
        ({"retry_at": 1.0}, True),
        ({"retry_at": 1.1}, False),
        ({"job": "migration"}, False),
        ({"state": RunState.PAUSED}, False),
        ({"paused": True}, False),
        ({"stopped": True}, False),
        ({"fault": "KeyError"}, False),
        ({"sent": {7: 300 * MIB}}, False),
    ],
)
def test_a_target_is_sent_to_whom_it_can_reach_and_who_may_be_touched(
    changes: dict[str, object], may: bool
) -> None:
    assert plan.reachable(guest(**changes), 1.0) is may


# --- what it claims ---


@pytest.mark.parametrize(
    ("changes", "offline_mib", "ceiling_mib"),
    [
        ({"config": {"growth": Growth.BALLOON}}, 0, 512),  # all of its RAM
        ({}, 0, 1024),
        ({"pending_bytes": BLOCK}, 0, 896),  # what is on its way it has beside this
        ({"dimms_mib": (128,)}, 128, 896),
        ({"dimms_mib": (128,), "pending_bytes": BLOCK}, 128, 768),
    ],
)
def test_a_guest_claims_no_more_than_it_can_be_given(
    changes: dict[str, object], offline_mib: int, ceiling_mib: int
) -> None:
    facts = build.facts(512, 500, offline_bytes=offline_mib * MIB)
    vm = guest(512, facts=facts, **changes)
    assert vm.guest.estimate is not None
    guest_wants = {"irreducible_bytes": 1100 * MIB, "need_bytes": 1200 * MIB, "desired_bytes": 1300 * MIB}
    vm = replace(vm, guest=replace(vm.guest, estimate=vm.guest.estimate._replace(**guest_wants)))
    found = plan.claims(vm, 512 * MIB, books.fixed(vm), SETTINGS, 1.0)
    assert (found.irreducible, found.need, found.desired) == (ceiling_mib * MIB,) * 3
    small = {"irreducible_bytes": 100 * MIB, "need_bytes": 200 * MIB}
    assert vm.guest.estimate is not None
    vm = replace(vm, guest=replace(vm.guest, estimate=vm.guest.estimate._replace(**small)))
    found = plan.claims(vm, 512 * MIB, books.fixed(vm), SETTINGS, 1.0)
    assert (found.irreducible, found.need, found.desired) == (100 * MIB, 200 * MIB, ceiling_mib * MIB)


def restless(demand_mib: int, level_mib: int, noise_mib: int) -> Vm:
    facts = build.facts(512, demand_mib)
    level = Level(level_mib * MIB, lasting_noise=noise_mib * MIB, farthest=2.0 * noise_mib * MIB)
    return guest(facts=facts, demand=Demand(last=facts, level=level), booted_at=-1000.0)


def test_claims_are_made_from_the_level_and_noise_is_asked_for_before_the_buffer() -> None:
    quiet = plan.claims(guest(512, 400, booted_at=-1000.0), 512 * MIB, 0, SETTINGS, 1.0)
    found = plan.claims(restless(400, 380, 10), 512 * MIB, 0, SETTINGS, 1.0)
    assert found.need == quiet.need - 20 * MIB
    assert found.irreducible == quiet.irreducible - 20 * MIB
    assert found.eased == found.need + 35 * MIB
    assert found.likely == found.need + 35 * MIB * plan.LIKELY_PERCENT // 100
    assert quiet.likely == quiet.eased
    assert found.desired == quiet.desired, "demand is above its level, and may be on its way up"
    below = plan.claims(restless(400, 420, 10), 512 * MIB, 0, SETTINGS, 1.0)
    assert below.desired == quiet.desired + 20 * MIB
    loud = plan.claims(restless(400, 400, 40), 512 * MIB, 0, SETTINGS, 1.0)
    assert loud.desired == loud.eased == quiet.need + 140 * MIB
    # Less than 8 MiB is no noise.
    assert plan.claims(restless(400, 380, 2), 512 * MIB, 0, SETTINGS, 1.0) == quiet


def test_a_buffer_stays_where_the_last_peak_was_as_far_as_that_was_noise() -> None:
    vm = restless(400, 400, 10)
    usual = plan.claims(vm, 512 * MIB, 0, SETTINGS, 1.0).desired
    demand = vm.guest.demand
    lasting = SETTINGS.shrink_after_seconds
    demand.peak(usual + 20 * MIB, lasting, 1.0)
    assert plan.claims(vm, 512 * MIB, 0, SETTINGS, 2.0).desired == usual + 20 * MIB
    demand.peak(usual + 90 * MIB, lasting, 2.0)
    assert plan.claims(vm, 512 * MIB, 0, SETTINGS, 3.0).desired == usual + 35 * MIB, "no noise is as high"
    assert plan.claims(vm, 512 * MIB, 0, SETTINGS, 4.0 + lasting).desired == usual, "a while ago"


def test_what_was_raised_to_its_minimum_stays_there_under_noise() -> None:
    for level_mib in (90, 110):
        vm = restless(100, level_mib, 10)
        least = vm.config.limits.minimum_bytes
        found = plan.claims(vm, 512 * MIB, 0, SETTINGS, 1.0)
        assert (found.irreducible, found.need) == (least, least)
        assert found[1:] == (least,) * 6, "and its noise, which is within that, asks for nothing"


def test_noise_of_a_vm_below_its_minimum_asks_for_what_goes_beyond_that() -> None:
    """By virtio-mem it was left 32 MiB of a GiB that it had no use for, in a block of the device's."""
    vm = restless(100, 100, 10)
    estimate, least = vm.guest.estimate, vm.config.limits.minimum_bytes
    assert estimate is not None
    works = 100 * MIB + estimate.margin_bytes
    noise = (least - works + 7 * MIB) / PEAKS
    vm.guest.demand.level.lasting_noise, vm.guest.demand.level.farthest = noise, 2 * noise
    found = plan.claims(vm, 512 * MIB, 0, SETTINGS, 1.0)
    assert (found.need, found.likely) == (least, least)
    assert found.eased == pytest.approx(least + 7 * MIB, abs=2)


@pytest.mark.parametrize("config", [{"pinned": "VFIO"}, {"trust": Trust.NONE}])
@pytest.mark.parametrize("granted_mib", [100, 500, 900])
def test_a_vm_whose_memory_would_not_come_back_is_never_asked_for_what_it_has(
    config: dict[str, object], granted_mib: int
) -> None:
    free, held = guest(), guest(config=config)
    before = plan.claims(free, granted_mib * MIB, books.fixed(free), SETTINGS, 1.0)
    found = plan.claims(held, granted_mib * MIB, books.fixed(held), SETTINGS, 1.0)
    assert found[1:4] == tuple(max(claim, granted_mib * MIB) for claim in before[1:4])


def test_an_excess_is_kept_until_it_has_lasted() -> None:
    vm = guest(512, 100, booted_at=-1000.0)
    first = plan.claims(vm, vm.assigned_bytes, books.fixed(vm), SETTINGS, 1.0)
    assert first.keep == first.desired < 512 * MIB
    vm = guest(512, 400, booted_at=-1000.0)
    busy = plan.claims(vm, vm.assigned_bytes, books.fixed(vm), SETTINGS, 1.0)
    vm.guest.heard(build.facts(512, 100, at=2.0), 512 * MIB)
    vm.guest.work_out(vm.config.limits, 2.0)
    idle = plan.claims(vm, vm.assigned_bytes, books.fixed(vm), SETTINGS, 2.0)
    assert idle.desired < busy.desired <= idle.keep
    assert (
        plan.claims(
            vm, vm.assigned_bytes, books.fixed(vm), SETTINGS, 3.0 + SETTINGS.shrink_after_seconds
        ).keep
        < busy.desired
    )


def test_nobody_is_shrunk_unasked_in_the_first_minute_after_boot() -> None:
    vm = guest(512, 100, booted_at=0.0)
    assert plan.claims(vm, vm.assigned_bytes, books.fixed(vm), SETTINGS, 30.0).keep == 512 * MIB


@pytest.mark.parametrize(("at", "kept_mib"), [(0.1, 512), (0.0, 300)])
@pytest.mark.parametrize("event", ["grown_at", "booted_at"])
def test_what_it_was_given_a_moment_ago_is_kept_for_as_long_as_an_excess_must_last(
    event: str, at: float, kept_mib: int
) -> None:
    lasting = max(SETTINGS.shrink_after_seconds, SETTINGS.settle_seconds if event == "booted_at" else 0.0)
    vm = guest(512, 200, desired_bytes=300 * MIB, **{"booted_at": -1000.0, event: at})
    assert plan.claims(vm, 512 * MIB, books.fixed(vm), SETTINGS, lasting).keep == kept_mib * MIB


BAND = dead_band.shrink_dead_band(512 * MIB)


@pytest.mark.parametrize(
    ("excess_bytes", "kept_bytes"),
    [(0, 0), (BAND // 2, BAND // 2), (BAND, BAND), (BAND + 1, 0), (100 * MIB, 0)],
)
def test_an_excess_that_is_not_worth_a_command_is_kept_and_a_larger_one_is_not(
    excess_bytes: int, kept_bytes: int
) -> None:
    wants = 512 * MIB - excess_bytes
    vm = guest(512, 200, desired_bytes=wants, booted_at=-1000.0)
    assert plan.claims(vm, 512 * MIB, books.fixed(vm), SETTINGS, 1.0).keep == wants + kept_bytes


def test_a_vm_in_huge_pages_is_not_moved() -> None:
    one = guest(config={"huge_page_bytes": 2 * MIB, "pinned": "huge pages"})
    assert "huge pages" in (plan.immovable(one, SETTINGS, 1.1) or "")


def test_of_what_it_has_beyond_its_maximum_a_vm_keeps_nothing_for_later() -> None:
    limits = Limits(384 * MIB, 128 * MIB, 384 * MIB)
    vm = guest(512, 100, config={"limits": limits}, grown_at=0.5)
    assert plan.claims(vm, 512 * MIB, books.fixed(vm), SETTINGS, 1.0).keep == 384 * MIB, (
        "it grew a moment ago"
    )
    assert plan.claims(vm, 512 * MIB, books.fixed(vm), SETTINGS, 1000.0).keep <= 384 * MIB


def test_a_vm_whose_balloon_does_not_move_keeps_what_it_has_and_may_ask_for_more() -> None:
    less, more = Claims(7, 200, 250, 260, 260, 300, 400), Claims(7, 200, 400, 450, 450, 500, 500)
    assert plan.at_least(less, 350) == Claims(7, 350, 350, 350, 350, 350, 400)
    assert plan.at_least(more, 350) == Claims(7, 350, 400, 450, 450, 500, 500)


@pytest.mark.parametrize(
    ("spare_mib", "aim_bytes", "urgency", "target_bytes"),
    [
        (4, 200 * MIB, spare.Urgency.NONE, None),
        (4, 200 * MIB, spare.Urgency.AT_ONCE, None),  # it has little to spare, and more is to be had later
        (4, 200 * MIB, spare.Urgency.EVERY_PAGE, 508 * MIB),
        (100, 511 * MIB, spare.Urgency.EVERY_PAGE, 511 * MIB),
        (100, 511 * MIB + 1, spare.Urgency.EVERY_PAGE, 511 * MIB),  # whole pages, and rather one too many
        (100, 512 * MIB, spare.Urgency.EVERY_PAGE, None),
    ],
)
def test_how_small_a_step_may_be(
    spare_mib: int, aim_bytes: int, urgency: spare.Urgency, target_bytes: int | None
) -> None:
    vm = guest(512, 512 - 16 - spare_mib)
    vm.memory_moves(0.0, grows=False)
    assert spare.shrink_target(vm, aim_bytes, SETTINGS, 1.0, urgency) == target_bytes


@pytest.mark.parametrize(
    ("reports_since", "growth", "ram_mib", "desired_mib"),
    [
        (1.0, Growth.VIRTIO_MEM, 384, 512),
        (math.inf, Growth.VIRTIO_MEM, 384, 384),  # not yet: nobody would bring it online
        (-math.inf, Growth.VIRTIO_MEM, 384, 300),  # it ran before we did
        (1.0, Growth.VIRTIO_MEM, 512, 300),  # it booted with all of it
        (1.0, Growth.HOTADD, 384, 300),
    ],
)
def test_a_guest_that_boots_with_less_is_to_get_its_startup_for_a_while_once_its_agent_reports(
    reports_since: float, growth: Growth, ram_mib: int, desired_mib: int
) -> None:
    config = {
        "growth": growth,
        "boot_ram_bytes": ram_mib * MIB,
        "virtio_mem_bytes": 640 * MIB,
        "limits": Limits(512 * MIB, 100 * MIB, 1024 * MIB),
    }
    told: dict[str, object] = {"facts": build.facts(ram_mib, 100), "desired_bytes": 300 * MIB}
    vm = guest(ram_mib, reports_since=reports_since, config=config, **told)
    seconds = SETTINGS.settle_seconds
    for now, expected in ((1.0 + seconds / 2, desired_mib), (1.0 + seconds, 300)):
        found = plan.claims(vm, ram_mib * MIB, books.fixed(vm), SETTINGS, now)
        assert found.desired == expected * MIB
        assert (found.need == ram_mib * MIB) == (expected == ram_mib < 512), "what it boots with it needs"


@pytest.mark.parametrize(("granted_mib", "device_mib", "need_mib"), [(600, 640, 512), (450, 64, 448)])
def test_no_more_than_startup_and_what_it_can_have_counts_as_what_it_needs_to_boot(
    granted_mib: int, device_mib: int, need_mib: int
) -> None:
    config = {
        "growth": Growth.VIRTIO_MEM,
        "boot_ram_bytes": 384 * MIB,
        "virtio_mem_bytes": device_mib * MIB,
        "limits": Limits(512 * MIB, 100 * MIB, 1024 * MIB),
    }
    vm = guest(384, 100, reports_since=math.inf, config=config)
    found = plan.claims(vm, granted_mib * MIB, 0, SETTINGS, 1.0)
    assert found.need == found.eased == need_mib * MIB


def test_it_has_just_started_from_its_agents_first_report_on_for_so_long() -> None:
    told = {
        "growth": Growth.VIRTIO_MEM,
        "boot_ram_bytes": 384 * MIB,
        "limits": Limits(512 * MIB, 100 * MIB, 1024 * MIB),
    }
    vm = guest(384, reports_since=50.0, config=told)
    assert [vm.starts_small(now, 60.0) for now in (49.5, 50.0, 109.5, 110.0)] == [False, True, True, False]


def test_its_agents_first_report_after_each_start_counts() -> None:
    vm = guest(384, reports_since=-math.inf)
    vm.reports(5.0)
    assert vm.reports_since == -math.inf
    vm.reboot(10.0)
    assert vm.reports_since == math.inf
    phases.heard(vm, replace(build.facts(384, 100, at=11.0), from_agent=False))
    assert vm.reports_since == math.inf
    phases.heard(vm, build.facts(384, 100, at=12.0))
    phases.heard(vm, build.facts(384, 100, at=13.0))
    assert vm.reports_since == 12.0


@pytest.mark.parametrize(
    ("changes", "config", "owed_mib"),
    [
        ({}, {}, 128),
        ({"reports_since": 9.0}, {}, 0),
        ({"reports_since": -math.inf}, {}, 0),  # it ran before we did
        ({}, {"boot_ram_bytes": 512 * MIB}, 0),
        ({}, {"boot_ram_bytes": 640 * MIB}, 0),
        ({}, {"growth": Growth.HOTADD}, 0),
        ({}, {"virtio_mem_bytes": 64 * MIB}, 64),  # it cannot come to more
        ({}, {"huge_page_bytes": 2 * MIB}, 0),  # none of the ordinary memory
        ({}, {"trust": Trust.NONE}, 0),  # it is charged with all of its device
        ({"booted_at": 5.0}, {}, 128),
        ({"reports_since": 10.0}, {}, 0),
        ({"virtio_mem": VirtioMem(32 * MIB, 96 * MIB, 96 * MIB)}, {}, 32),
    ],
)
def test_what_it_does_not_boot_with_is_owed_to_it_until_its_agent_reports_or_has_had_the_time_to(
    changes: dict[str, object], config: dict[str, object], owed_mib: int
) -> None:
    told = {
        "growth": Growth.VIRTIO_MEM,
        "boot_ram_bytes": 384 * MIB,
        "virtio_mem_bytes": 640 * MIB,
        "limits": Limits(512 * MIB, 100 * MIB, 1024 * MIB),
    }
    vm = guest(384, config=told | config, **({"reports_since": math.inf} | changes))
    until = vm.booted_at + SETTINGS.settle_seconds
    assert books.owed(vm, SETTINGS, 10.0) == books.owed(vm, SETTINGS, until - 0.5) == owed_mib * MIB
    assert books.owed(vm, SETTINGS, until) == 0
