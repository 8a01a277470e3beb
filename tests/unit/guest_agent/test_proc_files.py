"""A guest's files of /proc become a reading, or are refused."""

from pathlib import Path

import pytest

from agent.probe import Probe
from agent.proc_text import PAGE_BYTES
from host_controller.guest_agent.errors import GuestAgentNonsense
from host_controller.guest_agent.proc_files import reading

RECORDED = Path(__file__).parents[1] / "agent" / "recorded"
MEMINFO = b"MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\n"
PSI = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n"


@pytest.mark.parametrize("name", ["debian12", "here"])
def test_it_says_what_our_agent_would_say(name: str) -> None:
    root = RECORDED / name
    proc = root / "proc"
    files = ("meminfo", "vmstat", "pressure/memory", "swaps")
    found = reading(*((proc / file).read_bytes() for file in files))
    said = Probe(str(root)).sample()
    assert found.total_bytes == said.total_bytes
    assert found.available_bytes == said.available_bytes
    assert found.free_bytes == said.free_bytes
    assert found.reclaimable_bytes == said.reclaimable_bytes
    assert found.refault_bytes == said.refault_pages * PAGE_BYTES
    assert found.swap_in_bytes == said.swap_in_pages * PAGE_BYTES
    assert said.psi is not None
    assert found.stall_us == said.psi.some_total_us


def test_a_kernel_without_psi_and_with_little_else_will_do() -> None:
    found = reading(MEMINFO, b"", b"", b"")
    assert (found.total_bytes, found.available_bytes, found.stall_us) == (1000 << 10, 400 << 10, None)
    assert reading(MEMINFO, b"", PSI, b"").stall_us == 7


@pytest.mark.parametrize(
    ("swaps", "used_kib"),
    [
        ("/dev/zram0 partition 500 300 100\n", 0),  # as Fedora has it: memory, and counted as that
        ("/dev/vda3 partition 500 300 -2\n", 280),
        ("/dev/zram0 partition 300 200 100\n/swapfile file 200 100 -2\n", 80),
        ("/dev/block/zram0 partition 500 300 100\n", 0),  # as Android has it
        ("/srv/zram/swap file 500 300 -2\n", 280),  # a file on a disk, whatever it is called
        ("/dev/ramdisk/swap file 500 300 -2\n", 280),
        ("/dev/vda3 partition 900 900 -2\n", 280),  # more than meminfo has
        ("", 0),
    ],
)
def test_swap_that_lies_in_memory_is_none(swaps: str, used_kib: int) -> None:
    meminfo = MEMINFO + b"SwapTotal: 500 kB\nSwapFree: 200 kB\nSwapCached: 20 kB\n"
    found = reading(meminfo, b"", b"", f"Filename Type Size Used Priority\n{swaps}".encode())
    assert found.swap_used_bytes == used_kib << 10
    assert reading(meminfo, b"", b"", b"").swap_used_bytes == 280 << 10, "what cannot be read hides no demand"


def test_what_programs_were_promised_has_no_end() -> None:
    """Where vm.overcommit_memory is 1 a program may reserve what it likes, and some reserve all they can."""
    found = reading(MEMINFO + b"Committed_AS: 9999999999999 kB\nCommitLimit: 1 kB\n", b"", b"", b"")
    assert found.available_bytes == 400 << 10


def test_a_kernel_that_does_not_say_what_is_available_will_do() -> None:
    """Red Hat's of version 6, as our agent works it out."""
    caches = b"Active(file): 700 kB\nInactive(file): 300 kB\nSReclaimable: 400 kB\n"
    found = reading(b"MemTotal: 6400 kB\nMemFree: 1100 kB\n" + caches, b"", b"", b"")
    assert found.available_bytes == (1000 + 900 + 300) << 10, "a 64th of it stays free, and of each cache"


@pytest.mark.parametrize(
    ("free_pages", "page_bytes"),
    [
        (b"nr_free_pages 1600\n", 64 << 10),
        (b"nr_free_pages 1450\n", 64 << 10),  # it has changed between the two files
        (b"nr_free_pages 6400\n", 16 << 10),
        (b"nr_free_pages 25600\n", 4 << 10),
        (b"nr_free_pages 0\n", PAGE_BYTES),
        (b"nr_free_pages 3\n", PAGE_BYTES),
        (b"nr_free_pages 12800\n", PAGE_BYTES),  # what a container puts in place of one of the files
        (b"nr_free_pages -1600\n", PAGE_BYTES),
        (b"", PAGE_BYTES),
    ],
)
def test_a_guests_pages_may_be_larger_than_ours(free_pages: bytes, page_bytes: int) -> None:
    """A kernel of arm64 for pages of 64 KiB on a host of 4 KiB: each page that it counts is sixteen here."""
    meminfo = b"MemTotal: 1024000 kB\nMemFree: 102400 kB\nMemAvailable: 409600 kB\n"
    found = reading(meminfo, free_pages + b"pswpin 3\nworkingset_refault_file 5\n", b"", b"")
    assert (found.swap_in_bytes, found.refault_bytes) == (3 * page_bytes, 5 * page_bytes)


def test_what_zfs_gives_back_is_available() -> None:
    """As our agent and the host have it: a guest with an ARC would be given memory for its cache."""
    arcstats = b"c_min 4 102400\nsize 4 307200\n"
    assert reading(MEMINFO, b"", b"", b"", arcstats).available_bytes == 600 << 10
    assert reading(MEMINFO, b"", b"", b"", b"size 4 999999999\nc_min 4 0").available_bytes == 1000 << 10
    with pytest.raises(GuestAgentNonsense):
        reading(MEMINFO, b"", b"", b"", b"size 4 " + b"9" * 5000 + b"\nc_min 4 0\n")


def test_nor_is_what_zswap_keeps_in_memory() -> None:
    meminfo = (
        MEMINFO + b"SwapCached: 0 kB\nSwapTotal: 500 kB\nSwapFree: 200 kB\nZswap: 40 kB\nZswapped: 120 kB\n"
    )
    assert reading(meminfo, b"", b"", b"").swap_used_bytes == 180 << 10
    with pytest.raises(GuestAgentNonsense):
        reading(meminfo.replace(b"120", b"9" * 30), b"", b"", b"")


@pytest.mark.parametrize(
    ("meminfo", "vmstat", "psi"),
    [
        (b"", b"", b""),
        (b"MemTotal: 1000 kB\n", b"", b""),
        (b"MemTotal: 0 kB\nMemAvailable: 0 kB\n", b"", b""),
        (b"MemTotal: 10 kB\nMemAvailable: 11 kB\n", b"", b""),
        (b"MemTotal: -5 kB\nMemAvailable: -9 kB\n", b"", b""),
        (b"MemTotal: much kB\nMemAvailable: 1 kB\n", b"", b""),
        (b"MemTotal: " + b"9" * 5000 + b" kB\nMemAvailable: 1 kB\n", b"", b""),
        (MEMINFO, b"pswpin -1\n", b""),
        (MEMINFO, b"pswpin " + b"9" * 30 + b"\n", b""),
        (MEMINFO, b"", b"none"),
        (MEMINFO, b"", b"some avg10=x\nfull avg10=y\n"),
        (MEMINFO, b"", PSI.replace(b"total=7", b"total=-7")),
        (b"\xff" * 100, b"\xff", b"\xff"),
    ],
)
def test_what_no_kernel_writes_is_nonsense(meminfo: bytes, vmstat: bytes, psi: bytes) -> None:
    with pytest.raises(GuestAgentNonsense):
        reading(meminfo, vmstat, psi, b"")
    with pytest.raises(GuestAgentNonsense):
        reading(MEMINFO, b"", b"", b"\n/dev/vda3 partition much 1 -2\n")
