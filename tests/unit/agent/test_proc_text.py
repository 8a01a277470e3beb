"""What the kernel's files say is found where it stands, also when their lines have moved."""

import itertools
import os
import random
from pathlib import Path

import pytest

from agent.proc_text import Columns, Table, parse_psi


def meminfo(**kib: int) -> bytes:
    """As the kernel writes it: eight columns, and more for what needs more [fs/proc/meminfo.c]."""
    return "".join(f"{name + ':':15} {size:>8} kB\n" for name, size in kib.items()).encode()


@pytest.mark.parametrize("name", ["MemAvailable", "Committed_AS"])
def test_a_figure_that_comes_to_have_nine_digits_is_no_tenth_of_itself(name):
    """Of 95.4 GiB: it is the last one that is wanted, so that nothing wanted moves with it."""
    columns = Columns(f"MemTotal {name}")
    for size in (99_999_999, 100_000_000, 99_999_999, 1_000_000_000, 7):
        found = columns.parse(meminfo(MemTotal=131_072_000, **{name: size}, VmallocTotal=34_359_738_367))
        assert found[name] == size << 10


def test_figures_with_more_and_fewer_digits_are_what_they_are_when_read_afresh():
    """Also where one line's digit makes up for another one's."""
    columns, sizes = Columns("MemTotal MemFree MemAvailable SwapCached"), (99_999_999, 100_000_000)
    names = ("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapCached", "Active")
    chosen = [dict(zip(names, one, strict=True)) for one in itertools.product(sizes, repeat=len(names))]
    for kib in random.Random(1).sample(chosen * 8, len(chosen) * 8):
        found = columns.parse(meminfo(**kib))
        assert found == {name: kib[name] << 10 for name in found}
        assert len(found) == 4


def test_counters_that_move_apart_and_a_line_that_is_cut_or_gone_are_told_as_they_are():
    table = Table("a b c", b"x 1\na 5\ny 1\nb 6\nc 7\n")
    assert table.parse(b"x 12\na 5\ny 1\nb 6\nc 7\n") == {"a": 5, "b": 6, "c": 7}
    assert table.parse(b"x 12\na 5\ny 123\nb 6\nc 8\n") == {"a": 5, "b": 6, "c": 8}
    assert table.parse(b"x 1\na 55\ny 1\nb 6\nc 80") == {"a": 55, "b": 6, "c": 80}
    assert table.parse(b"a 9\nc 80\n") == {"a": 9, "c": 80}
    with pytest.raises(ValueError, match="invalid literal"):
        table.parse(b"a 9\nb 6 6\nc 80\n")


@pytest.mark.skipif(not os.path.exists("/proc/pressure/memory"), reason="no PSI in this kernel")
def test_the_psi_of_this_machine_is_read():
    psi = parse_psi(Path("/proc/pressure/memory").read_bytes())
    assert 0 <= psi.full_avg10 <= psi.some_avg10 <= 100
