"""What becomes of a guest's words: facts where they can be true, else a contradiction of a named kind."""

from typing import Any

import pytest

from host_controller.core.model import BalloonStats, GuestFacts
from host_controller.core.vm.report_validation import (
    RESTART_SECONDS,
    Contradiction,
    facts_from_report,
    facts_from_stats,
    is_block_size,
    kernel_estimate_bytes,
)
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import GIB, MIB
from tests.support import build
from tests.support.words import REPORT

KERNEL = 108 * MIB
BLOCK = 128 * MIB


def believed(
    ram_mib: int = 512,
    *,
    now: float = 100.0,
    previous: GuestFacts | None = None,
    virtio_mem: VirtioMem | None = None,
    block_bytes: int = BLOCK,
    config: dict[str, Any] | None = None,
    **said: Any,
) -> GuestFacts | Contradiction:
    return facts_from_report(
        REPORT._replace(**said),
        config=build.config(**config or {}),
        ram_bytes=ram_mib * MIB,
        now=now,
        previous=previous,
        block_bytes=block_bytes,
        virtio_mem=virtio_mem,
    )


def facts(*arguments: Any, **more: Any) -> GuestFacts:
    found = believed(*arguments, **more)
    assert isinstance(found, GuestFacts), found
    return found


def kind(*arguments: Any, **more: Any) -> str:
    found = believed(*arguments, **more)
    assert isinstance(found, Contradiction), found
    return found.kind


def test_what_an_honest_guest_says_is_taken_as_it_is() -> None:
    found = facts(
        reclaimable_bytes=30 * MIB,
        movable_bytes=20 * MIB,
        swap_disk_used_bytes=50 * MIB,
        swap_cached_bytes=10 * MIB,
        swap_disk_free_bytes=70 * MIB,
        swap_in_pages=3,
        refault_pages=5,
        page_bytes=4096,
        psi_some_total_us=1234,
    )
    assert found == GuestFacts(
        at=100.0,
        boot_id="0123abcd",
        sequence=7,
        from_agent=True,
        usable_bytes=512 * MIB,
        available_bytes=369 * MIB,
        free_bytes=300 * MIB,
        reclaimable_bytes=30 * MIB,
        total_bytes=404 * MIB,
        online_bytes=512 * MIB,
        offline_bytes=0,
        movable_bytes=20 * MIB,
        floor_bytes=8 * MIB,
        swap_used_bytes=40 * MIB,
        swap_free_bytes=70 * MIB,
        swap_in_bytes=3 * 4096,
        refault_bytes=5 * 4096,
        stall_us=1234,
        least_usable_bytes=0,
        block_bytes=BLOCK,
    )
    assert (found.demand_bytes, found.kernel_bytes) == (143 * MIB, KERNEL)


def test_swap_that_is_cached_too_is_no_swap_and_never_less_than_none() -> None:
    assert facts(swap_disk_used_bytes=10 * MIB, swap_cached_bytes=50 * MIB).swap_used_bytes == 0


@pytest.mark.parametrize(
    ("said", "usable_mib", "offline_mib"),
    [
        ({"ballooned_bytes": 100 * MIB}, 412, 0),
        ({"online_bytes": 384 * MIB, "offline_bytes": 128 * MIB, "total_bytes": 300 * MIB}, 384, 128),
        ({"online_bytes": 512 * MIB, "offline_bytes": 128 * MIB}, 512, 256),  # 128 MiB it has not seen yet
        ({"online_bytes": 640 * MIB, "offline_bytes": 0}, 640, 128),
        ({"online_bytes": 0, "offline_bytes": 0}, 768, 0),  # a kernel without memory blocks
    ],
)
def test_what_was_plugged_and_not_seen_or_not_online_is_not_usable(
    said: dict[str, int], usable_mib: int, offline_mib: int
) -> None:
    ram = 512 if usable_mib + offline_mib <= 512 else 768
    found = facts(ram, **said)
    assert found.usable_bytes == usable_mib * MIB
    assert found.offline_bytes == offline_mib * MIB


def test_blocks_that_overstate_the_ram_are_bounded_by_it() -> None:
    found = facts(online_bytes=640 * MIB, movable_bytes=GIB)
    assert (found.online_bytes, found.movable_bytes) == (512 * MIB, 512 * MIB)
    assert found.usable_bytes == 512 * MIB
    assert facts(online_bytes=0, offline_bytes=0).online_bytes == 512 * MIB


def test_a_watermark_is_no_more_than_a_quarter_of_ram() -> None:
    assert facts(floor_bytes=GIB).floor_bytes == 128 * MIB


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"total_bytes": 512 * MIB}, None),
        ({"total_bytes": 512 * MIB + 1}, "total-above-ram"),
        ({"ballooned_bytes": 108 * MIB}, None),
        ({"ballooned_bytes": 512 * MIB + 1}, "ballooned-above-ram"),
        ({"online_bytes": 768 * MIB}, None),  # two blocks of slack
        ({"online_bytes": 512 * MIB, "offline_bytes": 256 * MIB, "total_bytes": 200 * MIB}, None),
        ({"online_bytes": 768 * MIB + 1}, "blocks-above-ram"),
        ({"online_bytes": 512 * MIB, "offline_bytes": 256 * MIB + 1}, "blocks-above-ram"),
        ({"ballooned_bytes": 512 * MIB - 276 * MIB}, None),  # a block of doubt
        ({"ballooned_bytes": 512 * MIB - 276 * MIB + 1}, "total-above-usable"),
    ],
)
def test_what_cannot_be_true_is_refused_under_its_kind(said: dict[str, int], found: str | None) -> None:
    got = believed(**said)
    assert (got.kind if isinstance(got, Contradiction) else None) == found


def test_a_contradiction_says_the_figures() -> None:
    got = believed(total_bytes=GIB)
    assert isinstance(got, Contradiction)
    assert got.detail == f"{GIB} bytes; {512 * MIB} at most can be true"
    other = believed(ballooned_bytes=300 * MIB)
    assert isinstance(other, Contradiction)
    assert other.detail == f"{404 * MIB} of {212 * MIB} usable bytes"


def test_what_is_online_is_what_the_guest_counts() -> None:
    said = {"online_bytes": 384 * MIB, "offline_bytes": 128 * MIB, "total_bytes": 300 * MIB}
    assert facts(**said).online_bytes == 384 * MIB


def previous(at: float = 90.0, sequence: int = 7, **more: Any) -> GuestFacts:
    return build.facts(512, 200, at=at, sequence=sequence, total_bytes=404 * MIB, **more)


@pytest.mark.parametrize(
    ("sequence", "silence", "believed_again"),
    [(8, 1.0, True), (7, 1.0, False), (6, 1.0, False), (6, RESTART_SECONDS - 0.1, False),
     (6, RESTART_SECONDS, True)],
)  # fmt: skip
def test_a_sequence_that_goes_back_is_late_until_the_silence_says_that_the_agent_is_new(
    sequence: int, silence: float, believed_again: bool
) -> None:
    got = believed(sequence=sequence, previous=previous(at=100.0 - silence))
    assert isinstance(got, GuestFacts) is believed_again
    if isinstance(got, Contradiction):
        assert (got.kind, got.detail) == ("sequence-back", f"{sequence} after 7")


@pytest.mark.parametrize("other", [{"boot_id": "ffffffff"}, {"from_agent": False}])
def test_a_sequence_says_nothing_about_another_kernel_or_the_balloons_driver(other: dict[str, Any]) -> None:
    assert facts(sequence=1, previous=previous(99.0, **other)).sequence == 1


def test_a_guest_that_has_more_than_the_hypervisor_knows_yet_has_what_its_kernel_says() -> None:
    more = {"ballooned_bytes": 200 * MIB}  # 312 MiB by the balloon, 404 by the kernel
    assert facts(**more).usable_bytes == 404 * MIB
    assert facts(**more, sequence=8, previous=previous()).usable_bytes == (404 + 108) * MIB


# --- virtio-mem ---


def device(current_mib: int, requested_mib: int | None = None, **more: Any) -> VirtioMem:
    asked = current_mib if requested_mib is None else requested_mib
    return VirtioMem(current_mib * MIB, asked * MIB, **more)


def with_device(virtio_mem: VirtioMem, **more: Any) -> GuestFacts:
    return facts(virtio_mem=virtio_mem, config={"virtio_mem_bytes": 1024 * MIB}, **more)


def test_what_a_device_has_plugged_comes_on_top() -> None:
    found = with_device(device(256), online_bytes=768 * MIB, total_bytes=650 * MIB)
    assert (found.usable_bytes, found.online_bytes, found.offline_bytes) == (768 * MIB, 768 * MIB, 0)


def test_once_its_kernel_is_known_what_is_usable_is_what_it_counts_and_that() -> None:
    known = previous(sequence=6)
    said = {"online_bytes": 640 * MIB, "offline_bytes": 128 * MIB, "total_bytes": 500 * MIB}
    assert with_device(device(256), previous=known, **said).usable_bytes == (500 + 108) * MIB
    large = build.facts(512, 200, at=90.0, sequence=6, total_bytes=300 * MIB)  # more than a block
    assert with_device(device(256), previous=large, **said).usable_bytes == (500 + 212) * MIB
    moving = device(128, moved_at=99.5)
    said = {"online_bytes": 768 * MIB, "offline_bytes": 0, "total_bytes": 600 * MIB}
    assert with_device(moving, previous=known, **said).usable_bytes == (600 + 108) * MIB
    steady = {"online_bytes": 768 * MIB, "total_bytes": 640 * MIB}
    assert with_device(device(256), previous=known, **steady).usable_bytes == 768 * MIB


def test_until_then_what_is_missing_in_the_blocks_is_missing_in_those_that_are_offline() -> None:
    # 32 of the 128 MiB of the last block are plugged, and it is offline.
    said = {"online_bytes": 512 * MIB, "offline_bytes": 128 * MIB, "total_bytes": 404 * MIB}
    assert with_device(device(32), **said).usable_bytes == (512 + 32 - 128 + 96) * MIB
    odd = {"online_bytes": 512 * MIB, "offline_bytes": 128 * MIB, "total_bytes": 300 * MIB}
    found = believed(
        480,
        virtio_mem=device(32),
        config={"virtio_mem_bytes": 1024 * MIB, "boot_ram_bytes": 480 * MIB},
        **odd,
    )
    assert isinstance(found, GuestFacts)
    assert found.usable_bytes == (480 + 32 - 128 + 96) * MIB, "boot RAM itself ends within a block"


def test_while_a_device_moves_its_guest_may_have_what_it_may_come_to() -> None:
    moving = device(128, 512, moved_at=99.0)
    found = with_device(moving, online_bytes=896 * MIB, total_bytes=788 * MIB)
    assert found.usable_bytes == 896 * MIB
    limit = {"virtio_mem": moving, "config": {"virtio_mem_bytes": 1024 * MIB}}
    assert kind(total_bytes=1024 * MIB + 1, **limit) == "total-above-ram"
    still = {"virtio_mem": device(128), "config": {"virtio_mem_bytes": 1024 * MIB}}
    assert kind(total_bytes=640 * MIB + 1, **still) == "total-above-ram"


@pytest.mark.parametrize(
    ("requested_mib", "online_mib", "offline_mib", "found_mib"),
    [
        (512, 768, 0, 0),  # 256 of the 512 MiB that are to leave have left
        (512, 640, 128, 128),  # a block that nobody brought online is still there
        (768, 768, 0, 0),
        (896, 768, 0, 128),  # so much it is to have, and has in none of its blocks
        (1024, 768, 0, 256),
        (1024, 768, 128, 256),
        (512, 1536, 0, 0),
    ],
)
def test_what_has_left_a_device_as_it_was_asked_to_is_not_offline_until_qemu_tells_of_it(
    requested_mib: int, online_mib: int, offline_mib: int, found_mib: int
) -> None:
    """QEMU told 1 GiB last."""
    leaving = device(512, requested_mib - 512, moved_at=90.0, asked_at=99.0)
    said = {"online_bytes": online_mib * MIB, "offline_bytes": offline_mib * MIB, "total_bytes": 300 * MIB}
    found = with_device(leaving, previous=previous(sequence=6), **said)
    assert found.offline_bytes == found_mib * MIB
    assert found.usable_bytes == (300 + 108) * MIB


def test_blocks_of_a_device_may_be_plugged_in_part_so_all_of_it_may_be_counted() -> None:
    limit = {"virtio_mem": device(0), "config": {"virtio_mem_bytes": 1024 * MIB}}
    assert facts(online_bytes=512 * MIB, offline_bytes=1280 * MIB, total_bytes=300 * MIB, **limit)
    more = {"online_bytes": 512 * MIB, "offline_bytes": 1280 * MIB + 1}
    assert kind(**more, **limit) == "blocks-above-ram"


# --- without an agent ---


def by_stats(
    total_mib: float,
    available_mib: float = 100,
    *,
    ram_mib: int = 512,
    actual_mib: int = 512,
    kernel_mib: int | None = 108,
    **more: Any,
) -> GuestFacts | Contradiction:
    stats = BalloonStats(int(total_mib * MIB), int(available_mib * MIB), 5)
    return facts_from_stats(
        stats,
        config=build.config(),
        ram_bytes=ram_mib * MIB,
        actual_bytes=actual_mib * MIB,
        now=50.0,
        sequence=3,
        kernel_bytes=None if kernel_mib is None else kernel_mib * MIB,
        **more,
    )


def test_statistics_stand_in_for_an_agent() -> None:
    assert by_stats(404, 300) == GuestFacts(
        at=50.0,
        boot_id="",
        sequence=3,
        from_agent=False,
        usable_bytes=512 * MIB,
        available_bytes=300 * MIB,
        free_bytes=0,
        reclaimable_bytes=0,
        total_bytes=404 * MIB,
        online_bytes=512 * MIB,
        offline_bytes=0,
        movable_bytes=0,
        floor_bytes=0,
        counted=False,
        block_bytes=BLOCK,
    )


@pytest.mark.parametrize(
    ("total_mib", "offline_mib"), [(660, 0), (533, 0), (532, 128), (405, 128), (404, 256), (300, 256)]
)
def test_what_neither_the_kernel_nor_the_balloon_explains_is_offline_in_whole_blocks(
    total_mib: int, offline_mib: int
) -> None:
    found = by_stats(total_mib, ram_mib=768, actual_mib=768)
    assert isinstance(found, GuestFacts)
    assert found.offline_bytes == offline_mib * MIB
    assert found.usable_bytes == (768 - offline_mib) * MIB
    assert found.online_bytes == (768 - offline_mib) * MIB


@pytest.mark.parametrize(
    ("kernel_mib", "more_mib", "usable_mib"), [(None, 0, 420), (60, 0, 480), (108, 0, 512), (108, 64, 528)]
)
def test_a_guest_has_no_less_than_its_kernel_counts_and_keeps_and_no_more_than_its_ram(
    kernel_mib: int | None, more_mib: int, usable_mib: int
) -> None:
    """Its balloon said to hold 256 MiB more than it did, and what it had beyond that was asked for twice."""
    above = by_stats(420, actual_mib=300, kernel_mib=kernel_mib, unseen_bytes=more_mib * MIB)
    assert isinstance(above, GuestFacts)
    assert above.usable_bytes == usable_mib * MIB
    wrapped = by_stats(404, actual_mib=5000)
    assert isinstance(wrapped, GuestFacts)
    assert wrapped.usable_bytes == 512 * MIB


def test_before_a_kernel_was_seen_what_it_keeps_is_estimated_from_boot_ram() -> None:
    found = by_stats(768 - 96 - 32 - 128, ram_mib=768, actual_mib=768, kernel_mib=None)
    assert isinstance(found, GuestFacts)
    assert found.offline_bytes == 128 * MIB
    assert kernel_estimate_bytes(512 * MIB) == 128 * MIB
    assert kernel_estimate_bytes(64 * GIB) == 96 * MIB + GIB


@pytest.mark.parametrize(
    ("total_mib", "available_mib", "found", "detail"),
    [
        (512, 512, None, ""),
        (513, 100, "total-above-ram", f"{513 * MIB} of {512 * MIB} bytes of RAM"),
        (400, 401, "available-above-total", f"{401 * MIB} of {400 * MIB} bytes"),
        (0, 0, "no-total", "the driver has not answered yet"),
    ],
)
def test_statistics_that_cannot_be_true_are_refused_under_their_kind(
    total_mib: int, available_mib: int, found: str | None, detail: str
) -> None:
    got = by_stats(total_mib, available_mib)
    assert (got.kind if isinstance(got, Contradiction) else None) == found
    if isinstance(got, Contradiction):
        assert got.detail == detail


def test_what_a_device_may_have_plugged_unseen_may_be_counted() -> None:
    assert isinstance(by_stats(612, unseen_bytes=100 * MIB), GuestFacts)
    assert isinstance(by_stats(613, unseen_bytes=100 * MIB), Contradiction)


@pytest.mark.parametrize(
    ("size", "found"),
    [(16 * MIB, True), (2 * GIB, True), (128 * MIB, True), (8 * MIB, False), (4 * GIB, False),
     (48 * MIB, False), (0, False)],
)  # fmt: skip
def test_a_block_has_a_size_that_some_kernel_has(size: int, found: bool) -> None:
    assert is_block_size(size) is found


def test_sizes_are_whole_bytes() -> None:
    assert type(kernel_estimate_bytes(512 * MIB + 1)) is int
    assert kernel_estimate_bytes(512 * MIB + 1) == 128 * MIB
    found = facts(ram_mib=511, floor_bytes=1 << 40)
    assert found.floor_bytes == 511 * MIB // 4
    assert type(found.floor_bytes) is int


@pytest.mark.parametrize(("ballooned_mib", "usable_mib"), [(108, 404), (109, 404 + 108), (150, 404 + 108)])
def test_where_the_hypervisors_word_is_the_older_one_what_the_kernel_took_stays(
    ballooned_mib: int, usable_mib: int
) -> None:
    later = facts(previous=facts(), sequence=8, ballooned_bytes=ballooned_mib * MIB)
    assert later.usable_bytes == usable_mib * MIB


@pytest.mark.parametrize("size", [3, 6, 24 * MIB, 128 * MIB + 2, 96 * MIB])
def test_a_block_is_a_power_of_two(size: int) -> None:
    assert not is_block_size(size)


def test_of_memory_that_nobody_plugged_nothing_is_taken_for_offline() -> None:
    found = by_stats(200)
    assert isinstance(found, GuestFacts)
    assert (found.offline_bytes, found.online_bytes, found.usable_bytes) == (0, 512 * MIB, 512 * MIB)
    small = by_stats(200, block_bytes=64 * MIB)
    assert isinstance(small, GuestFacts)
    assert small.block_bytes == 64 * MIB
