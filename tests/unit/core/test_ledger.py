"""What a VM is charged with, and that each rule of the charge is needed.

Every rule in rules.RULES and rules.EXTRAS has a test here that is named after it; the last test takes
the rules out one by one and sees that test fail.
"""

import pytest

from host_controller.core.books import charge as rules
from host_controller.core.books.ledger import Ledger
from host_controller.core.books.pools import ram_in_pool
from host_controller.core.model import Trust
from host_controller.core.operator_events import Reserve
from host_controller.core.vm import phases
from host_controller.core.vm.record import Phase
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB
from tests.support import build

SETTINGS = build.settings()
OVERHEAD = SETTINGS.overhead_floor_bytes


def charge(vm: object) -> int:
    return rules.charge(vm, SETTINGS) - OVERHEAD  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.TAKEOVER, Phase.HUNG, Phase.LIVE])
def test_a_vm_in_huge_pages_costs_ordinary_memory_only_what_its_process_really_holds(phase: Phase) -> None:
    huge = {"huge_page_bytes": 0, "pinned": "huge pages", "virtio_mem_bytes": 512 * MIB}
    vm = build.vm(512, phase=phase, dimms_mib=(256,), pending_bytes=128 * MIB, config=huge)
    assert charge(vm) == 0
    assert rules.explain_charge(vm, SETTINGS) == [("resident", 0), ("overhead", OVERHEAD)]
    assert ram_in_pool(vm) == (768 + 128 + 512) * MIB
    vm.evidence.count(300 * MIB, 0, 0, 1.0)
    assert charge(vm) == 300 * MIB, "it is not in huge pages after all: what it holds, it holds"
    vm.virtio_mem.observe(256 * MIB, 256 * MIB, 1.0)
    assert charge(vm) == 300 * MIB, "its device too"


def test_claimed_memory_is_charged_until_the_host_has_seen_it_free() -> None:
    vm = build.vm(300, claim_bytes=512 * MIB)
    assert charge(vm) == 512 * MIB


def test_targeted_memory_is_charged_before_the_guest_has_taken_it() -> None:
    vm = build.vm(300, ceiling_bytes=450 * MIB)
    assert charge(vm) == 450 * MIB


def test_resident_memory_is_charged_whatever_the_guest_claims() -> None:
    vm = build.vm(300, resident_bytes=340 * MIB)
    assert charge(vm) == 340 * MIB


def test_starting_guest_is_charged_all_of_its_ram() -> None:
    assert charge(build.vm(176, phase=Phase.STARTING, dimms_mib=(256,))) == 768 * MIB


def test_taken_over_guest_is_charged_all_of_its_ram() -> None:
    assert charge(build.vm(300, phase=Phase.TAKEOVER)) == 512 * MIB


def test_hung_guest_is_charged_all_of_its_ram() -> None:
    assert charge(build.vm(300, phase=Phase.HUNG)) == 512 * MIB


def test_contradicted_guest_is_charged_all_of_its_ram() -> None:
    assert charge(build.vm(300, phase=Phase.CONTRADICTED)) == 512 * MIB


def test_faulted_guest_is_charged_all_of_its_ram() -> None:
    assert charge(build.vm(300, fault="ZeroDivisionError")) == 512 * MIB


def test_pinned_guest_is_charged_all_of_its_ram() -> None:
    assert charge(build.vm(300, config={"pinned": "VFIO"})) == 512 * MIB


def test_untrusted_guest_is_charged_all_of_its_ram() -> None:
    assert charge(build.vm(300, config={"trust": Trust.NONE})) == 512 * MIB


def test_plugging_charges_a_dimm_whole_before_it_is_there() -> None:
    vm = build.vm(512, pending_bytes=256 * MIB)
    assert charge(vm) == 768 * MIB


def test_virtio_mem_is_charged_beside_the_balloon() -> None:
    vm = build.vm(300, virtio_mem=VirtioMem(current_bytes=128 * MIB))
    assert charge(vm) == 428 * MIB


def test_a_size_that_was_asked_for_is_charged_until_it_is_both_unplugged_and_asked_for_no_more() -> None:
    vm = build.vm(512, virtio_mem=VirtioMem(current_bytes=64 * MIB, requested_bytes=256 * MIB))
    assert charge(vm) == 768 * MIB  # its driver plugs the rest when it likes
    vm = build.vm(512, virtio_mem=VirtioMem(current_bytes=256 * MIB, requested_bytes=64 * MIB))
    assert charge(vm) == 768 * MIB  # it may never give it back


def test_memory_resident_in_virtio_mem_is_not_charged_twice() -> None:
    vm = build.vm(300, virtio_mem=VirtioMem(current_bytes=128 * MIB), resident_bytes=428 * MIB)
    assert charge(vm) == 428 * MIB


def test_what_it_has_touched_before_qemu_tells_of_it_is_not_charged_twice() -> None:
    device = VirtioMem(current_bytes=128 * MIB, requested_bytes=256 * MIB)
    vm = build.vm(300, virtio_mem=device, resident_bytes=556 * MIB)
    assert charge(vm) == 556 * MIB
    vm.evidence.count(560 * MIB, 0, 0, 1.0)
    assert charge(vm) == 560 * MIB, "what the device cannot hold, the rest of the guest holds"


def test_what_it_held_beyond_its_claim_before_it_grew_pays_for_no_growth() -> None:
    device = VirtioMem(128 * MIB, 128 * MIB, 128 * MIB)
    vm = build.vm(300, virtio_mem=device)
    phases.confirm(vm, 468 * MIB, 0, 10.0)
    assert charge(vm) == 468 * MIB
    device.promise(256 * MIB)
    assert charge(vm) == (300 + 40 + 256) * MIB
    device.ask("web", 1, 256 * MIB, 10.0)
    phases.confirm(vm, 596 * MIB, 0, 10.5)
    assert charge(vm) == 596 * MIB, "it has touched all of it before QEMU tells"
    phases.confirm(vm, 440 * MIB, 0, 11.0)
    assert charge(vm) == (312 + 256) * MIB, "it holds no more than this beside what is surely plugged"


def test_what_it_takes_back_while_its_device_does_not_grow_is_charged_once_qemu_would_have_told() -> None:
    device = VirtioMem(128 * MIB, 128 * MIB, 128 * MIB)
    vm = build.vm(300, virtio_mem=device)
    device.ask("web", 1, 256 * MIB, 10.0)
    device.answered(1, None, 10.0)
    for at in (10.5, 11.5, 12.5):
        phases.confirm(vm, 528 * MIB, 0, at)
        assert charge(vm) == 556 * MIB, "it may have touched what QEMU has not told yet"
    phases.confirm(vm, 528 * MIB, 0, 12.6)
    assert charge(vm) == (300 + 100 + 256) * MIB
    device.observe(256 * MIB, None, 13.0)
    phases.confirm(vm, 656 * MIB, 0, 13.1)
    assert charge(vm) == 656 * MIB


def test_what_a_growing_guest_has_touched_is_never_taken_for_what_it_took_back() -> None:
    device = VirtioMem(128 * MIB, 512 * MIB, 512 * MIB)
    vm = build.vm(300, virtio_mem=device)
    for at, told_mib, touched_mib in ((10.5, 128, 200), (11.5, 200, 300), (12.5, 300, 400), (13.5, 400, 512)):
        device.observe(told_mib * MIB, None, at)
        phases.confirm(vm, (300 + touched_mib) * MIB, 0, at + 0.4)
        assert charge(vm) == 812 * MIB


def test_nor_where_each_size_is_told_almost_two_seconds_late() -> None:
    device = VirtioMem(128 * MIB, 1024 * MIB, 1024 * MIB)
    vm = build.vm(300, virtio_mem=device)
    for at in range(10, 18):
        touched_mib = 128 + 100 * (at - 10)
        device.observe(max(128, touched_mib - 190) * MIB, None, at)
        phases.confirm(vm, (300 + touched_mib) * MIB, 0, at)
        assert charge(vm) == 1324 * MIB


def test_what_it_held_beyond_its_claim_while_its_device_was_empty_is_charged_beside_what_comes() -> None:
    vm = build.vm(300, virtio_mem=VirtioMem())
    phases.confirm(vm, 340 * MIB, 0, 10.0)
    vm.virtio_mem.ask("web", 1, 128 * MIB, 10.0)
    for at, touched_mib in ((10.5, 0), (11.5, 128)):
        phases.confirm(vm, (340 + touched_mib) * MIB, 0, at)
        assert charge(vm) == (340 + 128) * MIB


def test_what_it_holds_beyond_its_claim_is_charged_though_its_device_never_comes_to_rest() -> None:
    device = VirtioMem(128 * MIB, 256 * MIB, 256 * MIB)
    vm = build.vm(300, virtio_mem=device)
    for begun, most_mib, beyond_mib in ((10.0, 140, 100), (20.0, 130, 20), (30.0, 150, 60)):
        for after, told_mib in enumerate((most_mib, 128, most_mib, 128)):
            device.observe(told_mib * MIB, None, begun + after)
            phases.confirm(vm, (300 + most_mib + beyond_mib) * MIB, 0, begun + after + 0.1)
        assert charge(vm) == (300 + beyond_mib + 256) * MIB, "its device had no more than the most told"


@pytest.mark.parametrize("left_mib", [0, 128])
def test_what_it_held_while_its_device_moved_is_of_no_account_once_that_is_empty_or_at_rest(
    left_mib: int,
) -> None:
    device = VirtioMem(256 * MIB, left_mib * MIB, left_mib * MIB)
    vm = build.vm(300, virtio_mem=device)
    phases.confirm(vm, (300 + 256 + 100) * MIB, 0, 10.0)
    device.observe(left_mib * MIB, None, 11.0)
    phases.confirm(vm, (300 + left_mib) * MIB, 0, 20.0)
    device.ask("web", 1, (left_mib + 128) * MIB, 30.0)
    phases.confirm(vm, (300 + left_mib + 60) * MIB, 0, 30.5)
    assert charge(vm) == (300 + left_mib + 128) * MIB, "what it has touched since lies in its device"


def test_whoever_is_not_trusted_is_charged_the_whole_device() -> None:
    whole = {"virtio_mem_bytes": 512 * MIB}
    assert charge(build.vm(300, config={"trust": Trust.NONE, **whole})) == 1024 * MIB
    assert charge(build.vm(300, phase=Phase.CONTRADICTED, config=whole)) == 1024 * MIB


def test_overhead_is_the_most_that_was_seen_and_never_below_the_floor() -> None:
    vm = build.vm(300)
    assert rules.charge(vm, SETTINGS) == (300 + 64) * MIB
    vm.evidence.count(0, 90 * MIB, 0, 1.0)
    assert rules.charge(vm, SETTINGS) == 390 * MIB


@pytest.mark.parametrize("rule", [*rules.RULES, *rules.EXTRAS], ids=lambda rule: rule.__name__)
def test_each_rule_is_needed(rule: rules.Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    [named] = [
        function
        for name, function in globals().items()
        if name.startswith(f"test_{rule.__name__}_") and callable(function)
    ]
    named()
    for table in ("SIZES", "RULES", "EXTRAS"):
        monkeypatch.setattr(rules, table, tuple(r for r in getattr(rules, table) if r is not rule))
    with pytest.raises(AssertionError):
        named()


def test_headroom_is_what_charges_and_reservations_leave_of_the_capacity() -> None:
    books = Ledger(build.settings(1024))
    books.reservations["db"] = Reserve("db", 100 * MIB, expires=60.0)
    books.unmanaged_bytes = 24 * MIB
    assert books.headroom(rules.charge(build.vm(300), books.settings)) == (1024 - 100 - 24 - 364) * MIB


def test_a_reservation_whose_vm_never_came_runs_out() -> None:
    books = Ledger(SETTINGS)
    books.reservations["db"] = Reserve("db", 100 * MIB, expires=60.0)
    assert books.expire(59.0) == []
    assert [r.name for r in books.expire(60.0)] == ["db"]
    assert books.reserved() == 0


def test_an_overdraft_has_a_cause_a_size_a_start_and_an_end() -> None:
    books = Ledger(SETTINGS)
    opened = books.record(-10 * MIB, "web was reset", 5.0)
    assert opened is not None
    assert books.record(-30 * MIB, "something else", 6.0) is None
    closed = books.record(0, "", 9.0)
    assert closed is opened
    assert (closed.cause, closed.peak_bytes, closed.started, closed.ended) == (
        "web was reset",
        30 * MIB,
        5.0,
        9.0,
    )


def test_the_charge_names_the_rule_that_decided() -> None:
    vm = build.vm(300, resident_bytes=340 * MIB, pending_bytes=128 * MIB)
    assert rules.explain_charge(vm, SETTINGS) == [
        ("resident", 340 * MIB),
        ("plugging", 128 * MIB),
        ("overhead", OVERHEAD),
    ]


def test_an_overdraft_is_as_large_as_it_was_at_its_first_moment() -> None:
    opened = Ledger(SETTINGS).record(-10 * MIB, "web was reset", 5.0)
    assert opened is not None
    assert opened.peak_bytes == 10 * MIB


def test_what_is_on_its_way_and_what_is_offline_a_movable_vm_costs_beside_its_goal() -> None:
    said = build.facts(512, offline_bytes=128 * MIB)
    vm = build.vm(640, dimms_mib=(128,), pending_bytes=64 * MIB, facts=said)
    assert rules.fixed(vm) == 192 * MIB


def test_what_a_vm_is_charged_with_and_does_not_hold_is_unrealised() -> None:
    assert rules.unrealised(build.vm(300, resident_bytes=100 * MIB)) == 200 * MIB


@pytest.mark.parametrize("rule", rules.DOUBTS, ids=lambda rule: rule.__name__)
def test_a_doubt_charges_nothing_to_a_vm_that_is_sound(rule: rules.Rule) -> None:
    assert rule(build.vm(300)) == 0


def test_a_device_that_nobody_has_touched_takes_nothing_off_what_is_resident() -> None:
    vm = build.vm(300, virtio_mem=VirtioMem(128 * MIB, 128 * MIB), resident_bytes=100 * MIB)
    assert rules.resident(vm) == 0
