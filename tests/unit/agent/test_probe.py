"""The kernel's figures, read from recorded files and from this machine."""

import os
import shutil
from pathlib import Path

import pytest

from agent import probe
from agent.probe import Probe, Psi, parse_psi
from tests.unit.agent.record import copy_of, set_kib

MIB = 1 << 20


@pytest.fixture
def guest(tmp_path):
    return copy_of("debian12", tmp_path)


def test_the_figures_of_a_small_guest(guest):
    facts = Probe(str(guest)).sample()
    assert facts.total_bytes == 404 * MIB
    assert facts.available_bytes == 369 * MIB
    assert facts.free_bytes == 294 * MIB
    assert facts.swap_total_bytes == 384 * MIB
    assert facts.swap_used_bytes == 60 * MIB
    assert facts.swap_cached_bytes == 1 * MIB
    assert facts.committed_bytes == 40 * MIB
    assert facts.swap_in_pages == 333
    assert facts.refault_pages == 1211
    assert facts.major_faults == 555
    assert facts.uptime_seconds == 83.42
    assert facts.psi == Psi(1.25, 0.5, 123456, 45678)


def test_reclaimable_is_clean_file_cache_and_slab(guest):
    assert Probe(str(guest)).sample().reclaimable_bytes == (30208 + 40960 + 12288 - 300 - 100) << 10


def test_zram_is_not_disk_swap(guest):
    facts = Probe(str(guest)).sample()
    assert facts.swap_disk_used_bytes == 20 * MIB
    assert facts.swap_disk_free_bytes == 236 * MIB  # of 256 MiB on the disk: nothing is gained by zram


def test_without_swap_none_is_free(guest):
    (guest / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/ram0 partition 262144 0 5\n")
    assert Probe(str(guest)).sample().swap_disk_free_bytes == 0


def test_ballooned_is_what_the_driver_took_and_did_not_give_back(guest):
    assert Probe(str(guest)).sample().ballooned_bytes == 25600 * probe.PAGE_BYTES


def test_a_new_kernel_is_asked_for_its_balloon_outright(guest):
    path = guest / "proc/vmstat"
    path.write_text(path.read_text() + "nr_balloon_pages 7\n")
    assert Probe(str(guest)).sample().ballooned_bytes == 7 * probe.PAGE_BYTES


def test_the_floor_is_the_sum_of_the_high_watermarks_of_zones_with_pages(guest):
    assert Probe(str(guest)).sample().floor_bytes == (264 + 1350) * probe.PAGE_BYTES


def test_the_floor_is_read_again_when_asked(guest):
    one = Probe(str(guest))
    path = guest / "proc/zoneinfo"
    path.write_text(path.read_text().replace("high     1350", "high     2350"))
    assert one.sample().floor_bytes == (264 + 1350) * probe.PAGE_BYTES
    one.refresh_floor()
    assert one.sample().floor_bytes == (264 + 2350) * probe.PAGE_BYTES


def test_a_kernel_without_psi_gives_none(guest):
    shutil.rmtree(guest / "proc/pressure")
    one = Probe(str(guest))
    assert not one.has_psi
    assert one.sample().psi is None


def test_psi_that_was_turned_off_at_boot_gives_none(guest):
    (guest / "proc/pressure/memory").write_text("")
    one = Probe(str(guest))
    assert not one.has_psi
    assert one.sample().psi is None


def test_figures_that_contradict_each_other_are_made_to_agree(guest):
    set_kib(guest, MemAvailable=500000, MemFree=500000, SwapFree=400000, Dirty=999999)
    facts = Probe(str(guest)).sample()
    assert facts.available_bytes == facts.free_bytes == facts.total_bytes
    assert facts.swap_used_bytes == facts.swap_disk_used_bytes == 0
    assert facts.reclaimable_bytes == 0


def test_what_changes_is_seen_through_the_open_file(guest):
    one = Probe(str(guest))
    one.sample()
    set_kib(guest, MemAvailable=1024)
    assert one.sample().available_bytes == MIB


def test_a_recording_of_a_large_machine_is_read():
    here = Path(__file__).parent / "recorded/here"
    facts = Probe(str(here)).sample()
    assert facts.total_bytes == 24684092 << 10
    assert facts.floor_bytes == (75 + 15444 + 9822) * probe.PAGE_BYTES


@pytest.mark.parametrize(
    "grown", [{"MemFree": 123456789}, {"MemFree": 123456789, "Dirty": 1}, {"Committed_AS": 1}]
)
def test_lines_that_move_are_found_again(guest, grown):
    """A figure of nine digits moves all lines after it, and back again."""
    one = Probe(str(guest))
    before = one.sample()
    set_kib(guest, MemTotal=200000000, **grown)
    moved, fresh = one.sample(), Probe(str(guest)).sample()
    assert moved == fresh != before


def test_counters_are_found_wherever_they_have_moved_to(guest):
    one, path = Probe(str(guest)), guest / "proc/vmstat"
    text = path.read_text()
    for moved in ("nr_new_counter 1234567890\n" * 20 + text, text, text.replace(" ", " 11")):
        path.write_text(moved)
        told = {name: int(count) for name, count in (line.split() for line in moved.splitlines())}
        assert one.sample().swap_in_pages == told["pswpin"]
        assert one.sample().major_faults == told["pgmajfault"]


def test_a_look_is_what_a_sample_of_the_same_moment_says(guest):
    one = Probe(str(guest))
    look = one.look()
    set_kib(guest, MemAvailable=1024)
    sample = one.sample(look)
    assert look[:3] == (sample.total_bytes, sample.available_bytes, sample.floor_bytes)
    assert one.look().available_bytes == MIB


def test_this_machine_is_read():
    one = Probe()
    facts = one.sample()
    assert facts.total_bytes > facts.available_bytes > 0
    assert 0 < facts.floor_bytes < facts.total_bytes
    assert len(one.boot_id()) == 36


@pytest.mark.skipif(not os.path.exists("/proc/pressure/memory"), reason="no PSI in this kernel")
def test_the_psi_of_this_machine_is_read():
    psi = parse_psi(Path("/proc/pressure/memory").read_bytes())
    assert 0 <= psi.full_avg10 <= psi.some_avg10 <= 100


def test_closing_closes_every_file(guest):
    before = len(os.listdir("/proc/self/fd"))
    one = Probe(str(guest))
    one.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_commit_limit_is_told_where_the_kernel_refuses_by_it(guest):
    assert Probe(str(guest)).sample().commit_limit_bytes == 0
    mode = guest / "proc/sys/vm/overcommit_memory"
    mode.parent.mkdir(parents=True, exist_ok=True)
    mode.write_text("2\n")
    meminfo = guest / "proc/meminfo"
    meminfo.write_text(meminfo.read_text() + "CommitLimit:     47104 kB\n")
    assert Probe(str(guest)).sample().commit_limit_bytes == 46 * MIB


def test_a_kernel_without_memavailable_is_given_what_it_would_have_said(guest):
    meminfo = guest / "proc/meminfo"
    lines = meminfo.read_text().splitlines(keepends=True)
    meminfo.write_text("".join(line for line in lines if not line.startswith("MemAvailable")))
    probe = Probe(str(guest))
    facts = probe.sample()
    # Half of the cache stays, at most as much as the watermarks: for files and for slab.
    cache, slab, floor = (30208 + 40960) << 10, 12288 << 10, facts.floor_bytes
    kept = floor + min(cache // 2, floor) + min(slab // 2, floor)
    assert facts.available_bytes == facts.free_bytes + cache + slab - kept


def test_what_the_arc_gives_back_is_available(guest):
    before = Probe(str(guest)).sample().available_bytes
    arcstats = guest / "proc/spl/kstat/zfs/arcstats"
    arcstats.parent.mkdir(parents=True)
    arcstats.write_text(f"name type data\nsize 4 {40 * MIB}\nc_min 4 {10 * MIB}\n")
    assert Probe(str(guest)).sample().available_bytes == before + 30 * MIB
    arcstats.write_text("damaged \xff\n")
    assert Probe(str(guest)).sample().available_bytes == before
