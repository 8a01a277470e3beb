"""Capacity follows the host: its ordinary memory, what others use, what is configured, what limits it."""

from typing import Any

import pytest

from host_controller.core.books.capacity import capacity_of, default_spare_bytes, why_smaller
from host_controller.core.books.ledger import Ledger
from host_controller.core.books.pools import pools, room_bytes
from host_controller.core.engine import Engine
from host_controller.core.interface import HostSampled, Tick
from host_controller.core.model import HostFacts, HugePool, Settings
from host_controller.core.operator_events import Reserve, SettingsChanged
from host_controller.units import GIB, MIB
from tests.support import build

FOLLOWS = Settings(capacity_bytes=0, capacity_follows=True, reserve_follows=True)
SPARE = default_spare_bytes(64 * GIB)


def facts(
    total: int = 64 * GIB, *, huge: int = 0, others: int = 2 * GIB, at: float = 0.0, **more: object
) -> HostFacts:
    found = (HugePool(2 * MIB, huge, huge),) if huge else ()
    return HostFacts(
        at,
        total,
        total - huge - others,
        ordinary_bytes=total - huge,
        others_bytes=others,
        pools=found,
        **more,  # type: ignore[arg-type] # the test's own
    )


def test_by_default_it_is_what_others_leave_less_a_spare() -> None:
    found = capacity_of(FOLLOWS, facts())
    assert SPARE == 512 * MIB + 2 * GIB
    assert found.size_bytes == 64 * GIB - 2 * GIB - SPARE
    assert (found.reserve_bytes, found.spare_bytes) == (2 * GIB + SPARE, SPARE)


@pytest.mark.parametrize("share", [49, 60, 75])
def test_huge_pages_are_no_part_of_it_and_no_emergency(share: int) -> None:
    """128 GiB, of which that share lies in huge pages, and nothing else is on the host."""
    found = capacity_of(FOLLOWS, facts(128 * GIB, huge=128 * GIB * share // 100, others=GIB))
    ordinary = 128 * GIB - 128 * GIB * share // 100
    assert found.size_bytes == ordinary - GIB - default_spare_bytes(ordinary)
    assert found.spare_bytes < 3 * GIB, "an emergency is measured by this, and 30 GiB are available"


def test_containers_that_use_most_of_the_host_leave_vms_the_rest_and_no_more() -> None:
    """The reserve was once half of the host at most, whatever others used."""
    assert capacity_of(FOLLOWS, facts(others=50 * GIB)).size_bytes == 14 * GIB - SPARE
    assert capacity_of(FOLLOWS, facts(others=63 * GIB)).size_bytes == 0


def test_a_configured_reserve_and_capacity_keep_their_meaning() -> None:
    reserve = capacity_of(Settings(0, 8 * GIB, capacity_follows=True), facts())
    assert (reserve.size_bytes, reserve.spare_bytes) == (56 * GIB, 6 * GIB)
    capacity = capacity_of(Settings(GIB, 0, reserve_follows=True), facts())
    assert (capacity.size_bytes, capacity.spare_bytes) == (GIB, SPARE)


def test_a_configured_reserve_follows_memory_that_comes_and_goes() -> None:
    settings = Settings(0, 8 * GIB, capacity_follows=True)
    assert capacity_of(settings, facts(96 * GIB)).size_bytes == 88 * GIB
    assert capacity_of(settings, facts(6 * GIB)).size_bytes == 0


def test_a_configured_capacity_ends_where_the_hosts_memory_does() -> None:
    found = capacity_of(Settings(32 * GIB, 0, reserve_follows=True), facts(16 * GIB))
    assert found.size_bytes == 16 * GIB
    assert "less than the configured" in found.bound


def test_there_can_always_be_an_emergency() -> None:
    """Capacity was all of the host, or the reserve nothing, and with it what an emergency is measured by."""
    for settings in (Settings(64 * GIB, 0), Settings(600 * GIB, 0), Settings(0, 0, capacity_follows=True)):
        assert capacity_of(settings, facts()).spare_bytes >= 64 * GIB // 256


def test_a_limit_above_the_vms_bounds_it_and_is_named() -> None:
    limited = facts(limit_bytes=16 * GIB, limited_by="memory.max of machine.slice")
    for settings in (FOLLOWS, Settings(32 * GIB, 0, reserve_follows=True)):
        found = capacity_of(settings, limited)
        assert (found.size_bytes, found.bound) == (16 * GIB, "memory.max of machine.slice")
    assert capacity_of(Settings(GIB, 0), limited).size_bytes == GIB


def test_qemus_of_others_cost_what_they_hold_unless_the_operator_has_said_what_vms_may_cost() -> None:
    crowded = facts(foreign_bytes=10 * GIB)
    assert capacity_of(FOLLOWS, crowded).size_bytes == capacity_of(FOLLOWS, facts()).size_bytes - 10 * GIB
    assert capacity_of(Settings(0, 8 * GIB, capacity_follows=True), crowded).size_bytes == 46 * GIB
    assert capacity_of(Settings(32 * GIB, 0, reserve_follows=True), crowded).size_bytes == 32 * GIB


def test_before_the_first_reading_it_is_what_the_settings_say() -> None:
    assert capacity_of(Settings(GIB, MIB), None).size_bytes == GIB
    told_nothing = HostFacts(0.0, 64 * GIB, 62 * GIB)
    assert capacity_of(Settings(GIB, MIB), told_nothing).size_bytes == GIB


@pytest.mark.parametrize(
    ("after", "cause"),
    [
        (facts(32 * GIB), "the host has 32 GiB of memory less"),
        (facts(huge=20 * GIB), "20 GiB more were reserved as huge pages"),
        (facts(others=22 * GIB), "the host's own processes use 20 GiB more"),
        (facts(unmanaged_bytes=4 * GIB), "unmanaged VMs hold 4 GiB more"),
        (facts(foreign_bytes=4 * GIB), "QEMUs that are not this libvirt's hold 4 GiB more"),
        (
            facts(limit_bytes=16 * GIB, limited_by="memory.max of machine.slice"),
            "memory.max of machine.slice leaves 48 GiB less",
        ),
    ],
)
def test_what_made_it_smaller_is_named(after: HostFacts, cause: str) -> None:
    assert why_smaller(facts(), after) == cause


def test_a_capacity_that_shrinks_under_the_charges_is_an_overdraft_with_that_cause() -> None:
    engine = Engine(FOLLOWS)
    engine.handle(HostSampled(facts()), 0.0)
    engine.handle(Reserve("web", 50 * GIB, 1000.0), 0.0)
    engine.decide(0.0)
    assert engine.ledger.overdraft is None
    engine.handle(HostSampled(facts(others=22 * GIB, at=1.0)), 1.0)
    engine.decide(1.0)
    assert engine.ledger.overdraft is not None
    assert engine.ledger.overdraft.cause == "the host's own processes use 20 GiB more"
    engine.handle(HostSampled(facts(at=2.0)), 2.0)
    engine.handle(Tick(), 2.0)
    engine.decide(2.0)
    assert engine.ledger.overdraft is None


def test_it_is_worked_out_anew_while_running() -> None:
    engine = Engine(FOLLOWS)
    for total in (64 * GIB, 48 * GIB, 96 * GIB):
        engine.handle(HostSampled(facts(total)), 0.0)
        assert engine.ledger.capacity() == total - 2 * GIB - default_spare_bytes(total)


def test_new_settings_count_against_the_host_as_it_is() -> None:
    engine = Engine(FOLLOWS)
    engine.handle(HostSampled(facts()), 0.0)
    engine.handle(SettingsChanged(Settings(0, 32 * GIB, capacity_follows=True)), 1.0)
    assert engine.ledger.capacity() == 32 * GIB


def test_a_pool_has_room_for_what_is_free_less_what_was_promised() -> None:
    two = HugePool(2 * MIB, 8 * GIB, 6 * GIB, growable_bytes=GIB)
    one = HugePool(GIB, 16 * GIB, 4 * GIB)
    host = HostFacts(0.0, 64 * GIB, 30 * GIB, pools=(two, one), default_huge_page_bytes=2 * MIB)
    promised = {"web": Reserve("web", 64 * MIB, 10.0, huge_page_bytes=0, huge_bytes=4 * GIB)}
    assert room_bytes(0, host, promised) == 3 * GIB
    assert room_bytes(2 * MIB, host, {}) == 7 * GIB
    assert room_bytes(GIB, host, promised) == 4 * GIB
    assert room_bytes(64 * MIB, host, {}) == 0
    assert [(use.page_bytes, use.reserved_bytes) for use in pools(host, (), promised)] == [
        (2 * MIB, 4 * GIB),
        (GIB, 0),
    ]


def reading(**changes: Any) -> HostFacts:
    facts: dict[str, Any] = {
        "foreign_bytes": 8 * GIB,
        "unmanaged_bytes": 8 * GIB,
        "others_bytes": 8 * GIB,
        "pools": (HugePool(2 * MIB, 8 * GIB, 0),),
        "limit_bytes": 20 * GIB,
        "limited_by": "machine.slice",
    }
    return HostFacts(1.0, 64 * GIB, 32 * GIB, **facts | changes)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (None, {}, "the host's memory was looked at for the first time"),
        ({}, {}, "the host has less memory for VMs"),
        ({}, {"foreign_bytes": 9 * GIB}, "QEMUs that are not this libvirt's hold 1 GiB more"),
        ({}, {"unmanaged_bytes": 9 * GIB}, "unmanaged VMs hold 1 GiB more"),
        ({}, {"others_bytes": 9 * GIB}, "the host's own processes use 1 GiB more"),
        ({}, {"pools": (HugePool(2 * MIB, 9 * GIB, 0),)}, "1 GiB more were reserved as huge pages"),
        ({}, {"limit_bytes": 19 * GIB}, "machine.slice leaves 1 GiB less"),
        ({"limit_bytes": None}, {"limit_bytes": 63 * GIB}, "machine.slice leaves 1 GiB less"),
        ({}, {"limit_bytes": None, "foreign_bytes": 9 * GIB},
         "QEMUs that are not this libvirt's hold 1 GiB more"),
        ({}, {"limited_by": "", "limit_bytes": 19 * GIB}, "a limit above the VMs leaves 1 GiB less"),
        ({}, {"foreign_bytes": 9 * GIB, "others_bytes": 10 * GIB}, "the host's own processes use 2 GiB more"),
    ],
)  # fmt: skip
def test_of_all_that_others_hold_what_grew_most_is_the_cause(
    before: dict[str, Any] | None, after: dict[str, Any], why: str
) -> None:
    assert why_smaller(None if before is None else reading(**before), reading(**after)) == why


def test_the_ledger_goes_by_the_newest_settings() -> None:
    ledger, newest = Ledger(build.settings(4096)), build.settings(2048)
    assert ledger.measure(newest, None) == 2048 * MIB
    assert ledger.settings is newest


BOTH_FOLLOW = {"capacity_follows": True, "reserve_follows": True}


@pytest.mark.parametrize(
    ("settings", "facts", "expected"),
    [
        ({}, None, (4096, 100, 100, "the settings", False)),
        ({}, {}, (4096, 100, 100, "the settings", False)),
        (BOTH_FOLLOW, {"ordinary_bytes": 6400 * MIB, "others_bytes": 300 * MIB, "foreign_bytes": 50 * MIB},
         (5338, 1012, 712, "the host's memory less the reserve", False)),
        ({"capacity_follows": True}, {"ordinary_bytes": 6400 * MIB, "others_bytes": 30 * MIB},
         (6300, 100, 100, "the host's memory less the configured reserve", False)),
        ({"capacity_follows": True}, {"ordinary_bytes": 6400 * MIB, "others_bytes": 90 * MIB},
         (6300, 100, 100, "the host's memory less the configured reserve", False)),
        ({"capacity_follows": True, "reserve_bytes": 0}, {"ordinary_bytes": 6400 * MIB},
         (6400, 0, 25, "the host's memory less the configured reserve", False)),
        ({}, {"ordinary_bytes": 6400 * MIB}, (4096, 100, 100, "the configured capacity", False)),
        ({}, {"ordinary_bytes": 4096 * MIB}, (4096, 0, 16, "the configured capacity", False)),
        ({}, {"ordinary_bytes": 4150 * MIB}, (4096, 54, 54, "the configured capacity", False)),
        ({"reserve_bytes": 900 * MIB}, {"ordinary_bytes": 6400 * MIB, "others_bytes": 100 * MIB},
         (4096, 900, 800, "the configured capacity", False)),
        ({}, {"ordinary_bytes": 3200 * MIB},
         (3200, 100, 100, "the host's memory, which is less than the configured capacity", True)),
        ({}, {"ordinary_bytes": 6400 * MIB, "limit_bytes": 4095 * MIB, "limited_by": "machine.slice"},
         (4095, 100, 100, "machine.slice", True)),
        ({}, {"ordinary_bytes": 6400 * MIB, "limit_bytes": 4096 * MIB, "limited_by": "machine.slice"},
         (4096, 100, 100, "the configured capacity", False)),
        (BOTH_FOLLOW, {"ordinary_bytes": 640 * MIB, "others_bytes": 600 * MIB},
         (0, 920, 320, "the host's memory less the reserve", False)),
    ],
)  # fmt: skip
def test_the_capacity_and_what_decides_it(
    settings: dict[str, Any], facts: dict[str, Any] | None, expected: tuple[int, int, int, str, bool]
) -> None:
    made = build.settings(4096, **{"reserve_bytes": 100 * MIB} | settings)
    said = None if facts is None else HostFacts(1.0, 64 * GIB, 32 * GIB, **facts)
    found = capacity_of(made, said)
    sizes = (found.size_bytes // MIB, found.reserve_bytes // MIB, found.spare_bytes // MIB)
    assert (*sizes, found.bound, found.limited) == expected


@pytest.mark.parametrize("total", [64 * GIB + 4097, 300 * MIB + 1, 8 * GIB + 31])
def test_memory_of_any_size_is_shared_in_whole_bytes(total: int) -> None:
    found = capacity_of(FOLLOWS, facts(total, others=total - MIB))
    for size in (default_spare_bytes(total), found.size_bytes, found.reserve_bytes, found.spare_bytes):
        assert type(size) is int
    reserve = capacity_of(Settings(0, 0, capacity_follows=True), facts(total, others=0))
    assert type(reserve.spare_bytes) is int, "the least of it, too"
