"""What a guest derives from MemTotal is part of what it needs: a refused allocation reaches no report."""

import pytest

from agent import codec, wire
from host_controller.core.model import Growth, Limits
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.guest_limits import KILL_MARGIN_BYTES, least_usable_bytes
from host_controller.core.vm.report_validation import facts_from_report
from host_controller.units import MIB
from tests.support import build

KERNEL = 108 * MIB


def report(total: int, **more: int) -> wire.Report:
    fields = {"available_bytes": total // 2, "free_bytes": total // 4} | more
    return wire.Report("0123abcd", 7, 100.0, total_bytes=total, **fields)


def test_a_strict_kernel_needs_what_keeps_its_commitments_under_the_limit() -> None:
    # Seen in the field: squeezed to 200 MiB, MemTotal 92 MiB, CommitLimit 46 MiB, and 40 MiB promised.
    squeezed = report(92 * MIB, commit_limit_bytes=46 * MIB, committed_bytes=40 * MIB)
    least = least_usable_bytes(squeezed, 200 * MIB)
    limit_then = (least - KERNEL) // 2
    assert limit_then == pytest.approx(40 * MIB + 64 * MIB, abs=MIB)


def test_swap_is_promised_too_so_less_memory_is_needed() -> None:
    without = report(92 * MIB, commit_limit_bytes=46 * MIB, committed_bytes=40 * MIB)
    with_swap = report(
        92 * MIB, commit_limit_bytes=(46 + 256) * MIB, committed_bytes=40 * MIB, swap_total_bytes=256 * MIB
    )
    assert least_usable_bytes(with_swap, 200 * MIB) == 0
    assert least_usable_bytes(without, 200 * MIB) > 200 * MIB


def test_where_the_kernel_does_not_refuse_by_a_limit_nothing_is_needed_for_it() -> None:
    assert least_usable_bytes(report(92 * MIB, committed_bytes=900 * MIB), 200 * MIB) == 0
    no_share = {"commit_limit_bytes": 10 * MIB, "swap_total_bytes": 10 * MIB, "committed_bytes": MIB}
    hopeless = report(92 * MIB, **no_share)
    assert least_usable_bytes(hopeless, 200 * MIB) == 0  # a ratio of 0: memory does not help


@pytest.mark.parametrize("percent", [3, 10, 50])
def test_above_a_daemon_that_kills_at_a_share_the_guest_keeps_that_share_and_a_margin(percent: int) -> None:
    usable, kernel, available = 512 * MIB, KERNEL, 200 * MIB
    said = report(usable - kernel, kill_percent=percent, available_bytes=available)
    least = least_usable_bytes(said, usable)
    available_then = least - (usable - available)
    assert available_then - (least - kernel) * percent / 100 == pytest.approx(KILL_MARGIN_BYTES, abs=MIB)


@pytest.mark.parametrize("percent", [91, 100])
def test_an_absurd_share_is_bounded(percent: int) -> None:
    said = report(404 * MIB, kill_percent=percent)
    assert least_usable_bytes(said, 512 * MIB) == least_usable_bytes(
        said._replace(kill_percent=90), 512 * MIB
    )


@pytest.mark.parametrize(
    ("said", "usable_mib", "least_mib"),
    [
        # (committed + 64 or an eighth of it, without swap) ÷ the ratio, and what the kernel keeps
        ({"commit_limit_bytes": 46 * MIB, "committed_bytes": 40 * MIB}, 200, 108 + 2 * 104),
        ({"commit_limit_bytes": 46 * MIB, "committed_bytes": 800 * MIB}, 200, 108 + 2 * 900),
        ({"commit_limit_bytes": 92 * MIB, "committed_bytes": 40 * MIB}, 92, 104),
        (
            {"commit_limit_bytes": 146 * MIB, "committed_bytes": 40 * MIB, "swap_total_bytes": 100 * MIB},
            200,
            108 + 2 * 4,
        ),
        # (what is used, and 16 - the share of what the kernel keeps) ÷ the rest
        ({"kill_percent": 50, "available_bytes": 46 * MIB}, 200, 2 * (154 + 16) - 108),
        ({"kill_percent": 10, "available_bytes": 92 * MIB}, 92, 17.777777),
    ],
)
def test_the_least_that_a_guest_can_do_with_is_worked_out_in_whole_bytes(
    said: dict[str, int], usable_mib: int, least_mib: float
) -> None:
    least = least_usable_bytes(report(92 * MIB, **said), usable_mib * MIB)
    assert least == pytest.approx(least_mib * MIB, abs=2)
    assert type(least) is int


def test_swap_that_is_as_large_as_the_promises_and_the_margin_needs_no_memory() -> None:
    limits = {"commit_limit_bytes": 146 * MIB, "committed_bytes": 36 * MIB, "swap_total_bytes": 100 * MIB}
    assert least_usable_bytes(report(92 * MIB, **limits), 200 * MIB) == 0


def test_it_is_part_of_need_and_of_what_cannot_be_taken_and_stops_at_the_maximum() -> None:
    config = build.config(growth=Growth.BALLOON)
    said = report(404 * MIB, kill_percent=50, available_bytes=50 * MIB, online_bytes=512 * MIB)
    facts = facts_from_report(said, config=config, ram_bytes=512 * MIB, now=1.0, previous=None)
    assert facts.least_usable_bytes > 512 * MIB
    demand = Demand()
    demand.observe(facts)
    wide = demand.estimate(Limits(512 * MIB, 256 * MIB, 4096 * MIB), 1.0)
    assert wide is not None
    assert wide.need_bytes >= wide.irreducible_bytes >= facts.least_usable_bytes
    narrow = demand.estimate(Limits(512 * MIB, 256 * MIB, 600 * MIB), 1.0)
    assert narrow is not None
    assert narrow.need_bytes == 600 * MIB


def test_the_counters_of_a_kernel_with_large_pages_are_in_its_own_pages() -> None:
    config = build.config()
    small, large = (
        facts_from_report(
            report(404 * MIB, swap_in_pages=10, refault_pages=20, page_bytes=page),
            config=config,
            ram_bytes=512 * MIB,
            now=1.0,
            previous=None,
        )
        for page in (4096, 65536)
    )
    assert (large.swap_in_bytes, large.refault_bytes) == (16 * small.swap_in_bytes, 16 * small.refault_bytes)


@pytest.mark.parametrize("page", [0, 1, 2048, 5000, 1 << 19])
def test_a_page_size_that_no_kernel_has_is_refused(page: int) -> None:
    line = codec.encode(report(404 * MIB)).replace(b"}", b',"pg":%d}' % page)
    with pytest.raises(codec.BadField, match="page_bytes"):
        codec.decode_from_guest(line)
