"""What a guest may send: floods, noise, lies; and what is believed of it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import codec, wire
from host_controller.core.interface import GuestNoise, GuestSpoke
from host_controller.core.model import BalloonStats, GuestFacts, Limits, VmConfig
from host_controller.core.vm.report_validation import (
    Contradiction,
    facts_from_report,
    facts_from_stats,
    kernel_estimate_bytes,
)
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.hypervisor.link import BURST, Link
from host_controller.units import GIB, MIB
from tests.support.words import REPORT

CONFIG = VmConfig(
    uuid="u",
    name="vm",
    limits=Limits(512 * MIB, 256 * MIB, 2 * GIB),
    boot_ram_bytes=512 * MIB,
    slots=16,
)
LINE = codec.encode(REPORT)


def spoken(events: list[GuestSpoke | GuestNoise]) -> list[object]:
    return [one.untrusted_message for one in events if isinstance(one, GuestSpoke)]


def noise(events: list[GuestSpoke | GuestNoise]) -> dict[str, int]:
    return {one.kind: one.count for one in events if isinstance(one, GuestNoise)}


def facts(report: wire.Report = REPORT, ram: int = 512 * MIB, **more: object) -> GuestFacts | Contradiction:
    arguments = {"config": CONFIG, "ram_bytes": ram, "now": 50.0, "previous": None} | more
    return facts_from_report(report, **arguments)  # type: ignore[arg-type] # checked by the callers


def good(report: wire.Report = REPORT, ram: int = 512 * MIB, **more: object) -> GuestFacts:
    found = facts(report, ram, **more)
    assert isinstance(found, GuestFacts), found
    return found


def kind(report: wire.Report, ram: int = 512 * MIB, **more: object) -> str:
    found = facts(report, ram, **more)
    assert isinstance(found, Contradiction), found
    return found.kind


# --- the channel ---


def test_a_message_in_pieces_is_one_message() -> None:
    link = Link("u", 0.0)
    assert link.feed(LINE[:20], 0.0) == []
    assert link.feed(LINE[20:-1], 0.1) == []
    assert spoken(link.feed(LINE[-1:], 0.2)) == [REPORT]


def test_what_comes_too_fast_is_dropped_and_counted() -> None:
    link = Link("u", 0.0)
    events = link.feed(LINE * 1000, 0.0)
    assert len(spoken(events)) == BURST
    assert noise(events) == {"too-fast": 1000 - BURST}


def test_after_a_flood_the_guest_is_heard_again() -> None:
    link = Link("u", 0.0)
    link.feed(LINE * 1000 + LINE[:30], 0.0)
    assert spoken(link.feed(LINE[30:], 2.0)) == [REPORT]


def test_a_steady_ten_hertz_is_never_dropped() -> None:
    link = Link("u", 0.0)
    assert all(len(spoken(link.feed(LINE, 0.1 * i))) == 1 for i in range(500))


def test_noise_uses_up_the_allowance_as_messages_do() -> None:
    link = Link("u", 0.0)
    events = link.feed(b"x\n" * 1000, 0.0)
    assert noise(events) == {"not-json": BURST, "too-fast": 1000 - BURST}


@pytest.mark.parametrize("line", [b"\n", b" \n", b"\r\n", b"\t \n", b"a" * 5000 + b"\n"])
def test_empty_lines_and_endless_ones_use_up_the_allowance_as_messages_do(line: bytes) -> None:
    link = Link("u", 0.0)
    events = link.feed(line * 50 + LINE, 0.0)
    assert spoken(events) == []
    assert noise(events)["too-fast"] == 50 + 1 - BURST


def test_an_empty_line_before_each_message_costs_an_honest_agent_nothing() -> None:
    link = Link("u", 0.0)
    assert all(len(spoken(link.feed(b"\n" + LINE, 0.2 * i))) == 1 for i in range(500))


def test_noise_is_told_once_a_second_and_nothing_of_it_is_lost() -> None:
    link = Link("u", 0.0)
    told = [noise(link.feed(b"x\n", 0.1 * i)) for i in range(25)]
    told.append(noise(link.flush(10.0)))
    assert [one for one in told if one] == [
        {"not-json": 1},
        {"not-json": 10},
        {"not-json": 10},
        {"not-json": 4},
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{}\n", "bad-field"),
        (b"[1]\n", "not-a-message"),
        (b"\xff\xfe\n", "not-json"),
        (b'{"v":9,"t":"report"}\n', "unknown-version"),
        (b'{"v":1,"t":"welcome"}\n', "unknown-type"),
        (b"a" * 5000 + b"\n", "line-too-long"),
        (LINE.replace(b'"n":7', b'"n":-7'), "bad-field"),
    ],
)
def test_each_kind_of_noise_has_its_counter_and_leaves_the_next_message_alone(
    line: bytes, expected: str
) -> None:
    link = Link("u", 0.0)
    events = link.feed(line + LINE, 0.0)
    assert noise(events) == {expected: 1}
    assert spoken(events) == [REPORT]


def test_a_line_without_end_holds_no_memory_and_does_not_hide_the_next() -> None:
    link = Link("u", 0.0)
    for i in range(2000):
        link.feed(b"a" * 65536, i * 0.001)
    events = link.feed(b"\n" + LINE, 10.0)
    assert spoken(events) == [REPORT]
    assert link.counts["line-too-long"] + link.counts["too-fast"] >= 1


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300)))
def test_no_garbage_raises_or_makes_more_than_the_allowance(chunks: list[bytes]) -> None:
    link = Link("u", 0.0)
    events = [event for chunk in chunks for event in link.feed(chunk, 0.0)]
    assert len(spoken(events)) <= BURST


@settings(deadline=None)
@given(st.lists(st.sampled_from([LINE, b"junk\n", b"a" * 5000 + b"\n", b"\n"])), st.integers(1, 97))
def test_how_the_bytes_are_cut_changes_nothing(lines: list[bytes], size: int) -> None:
    data = b"".join(lines)[: 4096 * 5]
    whole, pieces = Link("u", 0.0, burst=1e6), Link("u", 0.0, burst=1e6)
    expected = whole.feed(data, 0.0)
    found = [event for at in range(0, len(data), size) for event in pieces.feed(data[at : at + size], 0.0)]
    assert spoken(found) == spoken(expected)


# --- what is believed ---


def test_demand_holds_what_the_kernel_took_before_anything_was_free() -> None:
    found = good()
    assert found.usable_bytes == 512 * MIB
    assert found.demand_bytes == 143 * MIB
    assert found.kernel_bytes == 108 * MIB


def test_what_is_ballooned_is_not_usable() -> None:
    found = good(
        REPORT._replace(
            ballooned_bytes=200 * MIB, total_bytes=204 * MIB, available_bytes=100 * MIB, free_bytes=90 * MIB
        )
    )
    assert found.usable_bytes == 312 * MIB


@pytest.mark.parametrize(
    ("online", "offline"), [(512, 256), (512, 0)], ids=["offline", "plugged and not seen yet"]
)
def test_a_dimm_that_is_not_online_is_no_usable_memory(online: int, offline: int) -> None:
    found = good(REPORT._replace(online_bytes=online * MIB, offline_bytes=offline * MIB), ram=768 * MIB)
    assert found.usable_bytes == 512 * MIB
    assert found.offline_bytes == 256 * MIB
    assert found.demand_bytes == good().demand_bytes


def test_what_is_missing_in_a_block_of_virtio_mem_is_not_online_either() -> None:
    # 22 MiB are plugged, and the kernel shows a whole block of 128 MiB that is offline.
    device = VirtioMem(22 * MIB, 22 * MIB, 22 * MIB, moved_at=0.0)
    config = replace(CONFIG, slots=0, virtio_mem_bytes=GIB)
    report = REPORT._replace(online_bytes=512 * MIB, offline_bytes=128 * MIB)
    found = good(report, config=config, virtio_mem=device)
    assert (found.usable_bytes, found.kernel_bytes) == (512 * MIB, 108 * MIB)


def test_a_memtotal_ahead_of_the_memory_blocks_takes_nothing_from_what_the_kernel_keeps() -> None:
    report = REPORT._replace(sequence=8, total_bytes=532 * MIB)
    assert good(report, ram=768 * MIB, previous=good(), now=51.0).kernel_bytes == 108 * MIB


def test_a_guest_without_memory_blocks_has_all_its_ram_online() -> None:
    found = good(REPORT._replace(online_bytes=0))
    assert (found.usable_bytes, found.online_bytes, found.offline_bytes) == (512 * MIB, 512 * MIB, 0)


def test_boot_ram_that_does_not_fill_its_last_block_is_no_contradiction() -> None:
    config = replace(CONFIG, boot_ram_bytes=300 * MIB)
    report = REPORT._replace(
        online_bytes=384 * MIB, total_bytes=200 * MIB, available_bytes=100 * MIB, free_bytes=90 * MIB
    )
    assert good(report, ram=300 * MIB, config=config).usable_bytes == 300 * MIB


def test_only_swap_on_disk_that_is_not_cached_counts() -> None:
    report = REPORT._replace(
        swap_total_bytes=GIB,
        swap_used_bytes=300 * MIB,
        swap_disk_used_bytes=200 * MIB,
        swap_disk_free_bytes=300 * MIB,
        swap_cached_bytes=50 * MIB,
        swap_in_pages=10,
        refault_pages=3,
    )
    found = good(report)
    assert (found.swap_used_bytes, found.swap_in_bytes, found.refault_bytes) == (150 * MIB, 40960, 12288)
    assert found.swap_free_bytes == 300 * MIB


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"total_bytes": 600 * MIB}, "total-above-ram"),
        ({"ballooned_bytes": 513 * MIB}, "ballooned-above-ram"),
        ({"online_bytes": 512 * MIB, "offline_bytes": 4 * GIB}, "blocks-above-ram"),
        ({"online_bytes": 0, "offline_bytes": 0, "ballooned_bytes": 400 * MIB}, "total-above-usable"),
        ({"online_bytes": 1 << 50}, "blocks-above-ram"),
    ],
)
def test_what_contradicts_the_hypervisor_is_dropped(change: dict[str, int], expected: str) -> None:
    assert kind(REPORT._replace(**change)) == expected


@pytest.mark.parametrize("sequence", [0, 6, 7])
def test_a_sequence_that_goes_back_is_a_former_report(sequence: int) -> None:
    assert kind(REPORT._replace(sequence=sequence), previous=good(), now=51.0) == "sequence-back"


def test_a_sequence_starts_again_after_a_hello_a_reboot_or_a_long_silence() -> None:
    again = REPORT._replace(sequence=0)
    good(again, previous=None)
    good(again._replace(boot_id_prefix="ffffffff"), previous=good(), now=51.0)
    good(again, previous=good(), now=50.0 + 20.0)


def test_a_floor_that_cannot_be_one_is_clamped() -> None:
    assert good(REPORT._replace(floor_bytes=400 * MIB)).floor_bytes == 128 * MIB


sizes = st.integers(0, 1 << 50)


@settings(deadline=None)
@given(
    st.builds(
        REPORT._replace,
        total_bytes=sizes,
        available_bytes=sizes,
        free_bytes=sizes,
        online_bytes=sizes,
        offline_bytes=sizes,
        movable_bytes=sizes,
        ballooned_bytes=sizes,
        floor_bytes=sizes,
    ),
    st.integers(64 * MIB, 8 * GIB),
    st.sampled_from([0, 1, 2 * MIB, 128 * MIB, 2 * GIB, 1 << 50]),
)
def test_no_report_is_believed_beyond_the_ram(report: wire.Report, ram: int, block: int) -> None:
    found = facts(report, ram, block_bytes=block)
    if isinstance(found, Contradiction):
        return
    assert 0 <= found.usable_bytes <= ram
    assert found.total_bytes <= found.usable_bytes
    assert 0 <= found.offline_bytes <= ram
    assert found.online_bytes <= ram
    assert found.floor_bytes <= ram // 4
    assert 0 <= found.demand_bytes <= ram


def from_stats(
    total: int, available: int, actual: int, ram: int, **more: object
) -> GuestFacts | Contradiction:
    stats = BalloonStats(total * MIB, available * MIB, updated=1)
    arguments = {"config": CONFIG, "now": 1.0, "sequence": 1} | more
    return facts_from_stats(stats, ram_bytes=ram * MIB, actual_bytes=actual * MIB, **arguments)  # type: ignore[arg-type]


def test_an_agentless_guest_is_judged_by_its_balloon() -> None:
    found = from_stats(404, 369, 512, 512)
    assert isinstance(found, GuestFacts)
    assert (found.usable_bytes, found.demand_bytes, found.from_agent) == (512 * MIB, 143 * MIB, False)


def test_an_offline_dimm_of_an_agentless_guest_is_seen_by_what_is_missing() -> None:
    found = from_stats(404, 369, 768, 768, kernel_bytes=108 * MIB)
    assert isinstance(found, GuestFacts)
    assert (found.usable_bytes, found.offline_bytes) == (512 * MIB, 256 * MIB)


def test_an_online_dimm_of_an_agentless_guest_is_usable() -> None:
    found = from_stats(656, 600, 768, 768, kernel_bytes=108 * MIB)
    assert isinstance(found, GuestFacts)
    assert (found.usable_bytes, found.offline_bytes) == (768 * MIB, 0)


def test_what_the_kernel_keeps_is_rather_estimated_too_high() -> None:
    assert kernel_estimate_bytes(512 * MIB) >= 108 * MIB


@pytest.mark.parametrize(
    ("total", "available", "expected"),
    [(600, 10, "total-above-ram"), (400, 401, "available-above-total"), (0, 0, "no-total")],
)
def test_statistics_that_cannot_be_true_are_dropped(total: int, available: int, expected: str) -> None:
    found = from_stats(total, available, 512, 512)
    assert isinstance(found, Contradiction)
    assert found.kind == expected
