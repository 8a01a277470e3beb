"""The kernel's figures, read from recorded files and from this machine."""

import errno
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from agent import disk_swap, probe, proc_text
from agent.codec import decode_from_guest, encode
from agent.evictable import ARCSTATS
from agent.probe import Probe
from agent.proc_text import PAGE_BYTES, Psi
from agent.report import Blocks, Reporter
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


def with_programs(root, mib):
    """They hold so much that could go to swap."""
    set_kib(root, **{"Active(anon)": mib << 9, "Inactive(anon)": mib << 9})


def test_zram_is_not_disk_swap(guest):
    with_programs(guest, 300)
    facts = Probe(str(guest)).sample()
    assert facts.swap_disk_used_bytes == 20 * MIB
    assert facts.swap_disk_free_bytes == 236 * MIB  # of 256 MiB on the disk: nothing is gained by zram


@pytest.mark.parametrize(
    ("enabled", "pool_mib", "pages_mib", "used_mib", "free_mib"),
    [
        ("N", 10, 15, 5, 236),  # what lies there stays there
        ("Y", 0, 0, 20, 236 - 404 // 5),  # half would stay, if the pool took as much
        ("Y", 40, 64, 0, 236 - 404 // 5 + 40),  # more lies there than on the disk: zram's is in it
        ("Y", 4, 16, 4, 236 - 236 // 4),
        ("Y", 90, 90, 0, 236),  # its pool is full
        ("Y", None, None, 20, 236 - 404 // 5),  # before Linux 5.19 it does not say
        ("1", 0, 16, 4, 236),  # pages of one value take nothing
    ],
)
def test_what_zswap_keeps_in_memory_is_neither_on_the_disk_nor_free_there(
    guest, enabled, pool_mib, pages_mib, used_mib, free_mib
):
    with_programs(guest, 300)
    parameters = guest / disk_swap.ZSWAP
    parameters.mkdir(parents=True)
    (parameters / "enabled").write_text(f"{enabled}\n")
    (parameters / "max_pool_percent").write_text("20\n")
    if pool_mib is not None:
        with (guest / "proc/meminfo").open("a") as file:
            file.write(f"Zswap: {pool_mib << 10} kB\nZswapped: {pages_mib << 10} kB\n")
    facts = Probe(str(guest)).sample()
    assert facts.swap_used_bytes == 60 * MIB
    assert facts.swap_disk_used_bytes == used_mib * MIB
    assert abs(facts.swap_disk_free_bytes - free_mib * MIB) < MIB


@pytest.mark.parametrize(("programs_mib", "free_mib"), [(300, 236), (100, 100), (0, 0)])
def test_no_more_can_go_to_free_swap_than_programs_hold_and_have_not_locked(guest, programs_mib, free_mib):
    """The kernel's own memory, huge pages and what a database has locked go nowhere."""
    with_programs(guest, programs_mib)
    assert Probe(str(guest)).sample().swap_disk_free_bytes == free_mib * MIB


def group(guest, path, swap_max, swap_current=0, anon_mib=0):
    directory = guest / "sys/fs/cgroup" / path
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.swap.max").write_text(f"{swap_max}\n")
    (directory / "memory.swap.current").write_text(f"{swap_current << 20}\n")
    (directory / "memory.stat").write_text(
        f"anon 1\nactive_anon {anon_mib << 19}\ninactive_anon {anon_mib << 19}\n"
    )


def test_nor_more_than_services_and_containers_may_put_there(guest):
    """MemorySwapMax= of a database, --memory-swap of a container."""
    with_programs(guest, 300)
    group(guest, "system.slice", "max", anon_mib=250)
    group(guest, "system.slice/db.service", 0, anon_mib=120)
    group(guest, "system.slice/db.service/worker", 0, anon_mib=100)
    group(guest, "system.slice/web.service", 50 << 20, swap_current=30, anon_mib=60)
    group(guest, "system.slice/small.service", 90 << 20, anon_mib=60)
    one = Probe(str(guest))
    assert one.sample().swap_disk_free_bytes == (300 - 120 - (60 - 20)) * MIB
    group(guest, "system.slice/db.service", 0, anon_mib=300)
    one.refresh()
    assert one.sample().swap_disk_free_bytes == 0
    (guest / "sys/fs/cgroup/system.slice/db.service/memory.swap.max").unlink()
    one.look_around()
    assert one.sample().swap_disk_free_bytes == 236 * MIB, "it was stopped"
    group(guest, "user.slice", "max")
    group(guest, "user.slice/job.scope", 0, anon_mib=200)
    one.refresh()
    assert one.sample().swap_disk_free_bytes == 236 * MIB, "nobody has looked for it yet"
    one.look_around()
    assert one.sample().swap_disk_free_bytes == 60 * MIB


def test_a_limit_within_a_limit_counts_and_nothing_counts_twice(guest):
    """A slice that may swap some of what its services hold, though one of them may swap nothing."""
    with_programs(guest, 300)
    group(guest, "shop.slice", 200 << 20, swap_current=20, anon_mib=280)
    group(guest, "shop.slice/db.service", 0, anon_mib=150)
    group(guest, "shop.slice/run.slice", "max", anon_mib=40)
    group(guest, "shop.slice/run.slice/job.scope", 10 << 20, anon_mib=40)
    one = Probe(str(guest))
    assert one.sample().swap_disk_free_bytes == (300 - 150 - 30) * MIB
    group(guest, "shop.slice", 60 << 20, swap_current=20, anon_mib=280)
    one.refresh()
    assert one.sample().swap_disk_free_bytes == (300 - 240) * MIB, "the slice keeps more than they do"


@pytest.mark.parametrize(
    ("least_mib", "cache_mib", "programs_mib"),
    [("0", 0, 0), ("60", 0, 50), ("150", 40, 100), ("170", 60, 100), ("500", 90, 100), ("max", 90, 100)],
)
def test_what_slices_protect_is_neither_available_nor_goes_to_swap(guest, least_mib, cache_mib, programs_mib):
    """MemoryMin=: the kernel kills before it takes that, and its MemAvailable counts the cache of it."""
    before = Probe(str(guest)).sample()
    with_programs(guest, 150)
    group(guest, "db.slice", "max", anon_mib=100)
    group(guest, "db.slice/db.service", "max", anon_mib=100)
    group(guest, "app.slice", "max", anon_mib=50)
    place = guest / "sys/fs/cgroup/db.slice"
    with (place / "memory.stat").open("a") as file:
        file.write(f"active_file {60 << 20}\ninactive_file {20 << 20}\nslab_reclaimable {10 << 20}\n")
    (place / "memory.current").write_text(f"{200 << 20}\n")
    least = least_mib if least_mib == "max" else int(least_mib) << 20
    (place / "memory.min").write_text(f"{least}\n")
    one = Probe(str(guest))
    now = one.sample()
    assert one.look().available_bytes == now.available_bytes
    assert now.available_bytes == max(0, before.available_bytes - cache_mib * MIB)
    assert now.reclaimable_bytes == max(0, before.reclaimable_bytes - cache_mib * MIB)
    assert now.swap_disk_free_bytes == (150 - programs_mib) * MIB
    (place / "memory.min").write_text("0\n")
    one.look_around()
    assert one.sample().available_bytes == before.available_bytes


def test_where_programs_may_put_nothing_into_swap_no_swap_is_free(guest):
    with_programs(guest, 300)
    one = Probe(str(guest))
    one.swapless = True
    facts = one.sample()
    assert (facts.swap_disk_free_bytes, facts.swap_disk_used_bytes) == (0, 20 * MIB)


def test_zswap_is_looked_for_at_each_refresh(guest):
    with_programs(guest, 300)
    one = Probe(str(guest))
    parameters = guest / disk_swap.ZSWAP
    parameters.mkdir(parents=True)
    (parameters / "enabled").write_text("Y\n")
    assert one.sample().swap_disk_free_bytes == 236 * MIB
    one.refresh()
    assert one.sample().swap_disk_free_bytes < 160 * MIB


def test_without_swap_none_is_free(guest):
    (guest / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/ram0 partition 262144 0 5\n")
    assert Probe(str(guest)).sample().swap_disk_free_bytes == 0


def test_ballooned_is_what_the_driver_took_and_did_not_give_back(guest):
    assert Probe(str(guest)).sample().ballooned_bytes == 25600 * PAGE_BYTES


def test_a_new_kernel_is_asked_for_its_balloon_outright(guest):
    path = guest / "proc/vmstat"
    path.write_text(path.read_text() + "nr_balloon_pages 7\n")
    assert Probe(str(guest)).sample().ballooned_bytes == 7 * PAGE_BYTES


def test_the_floor_is_the_sum_of_the_high_watermarks_of_zones_with_pages(guest):
    assert Probe(str(guest)).sample().floor_bytes == (264 + 1350) * PAGE_BYTES


def test_the_floor_is_read_again_when_asked(guest):
    one = Probe(str(guest))
    path = guest / "proc/zoneinfo"
    path.write_text(path.read_text().replace("high     1350", "high     2350"))
    assert one.sample().floor_bytes == (264 + 1350) * PAGE_BYTES
    one.refresh_floor()
    assert one.sample().floor_bytes == (264 + 2350) * PAGE_BYTES


def test_the_floor_is_not_read_again_while_the_kernels_minimum_is_about_the_same(guest):
    minimum, zoneinfo = guest / "proc/sys/vm/min_free_kbytes", guest / "proc/zoneinfo"
    minimum.parent.mkdir(parents=True, exist_ok=True)
    minimum.write_text("4000\n")
    one = Probe(str(guest))
    text = zoneinfo.read_text()

    def floor_at(kib: int, pages: int, *, anew: bool = False) -> int:
        minimum.write_text(f"{kib}\n")
        zoneinfo.write_text(text.replace("high     1350", f"high     {pages}"))
        one.refresh_floor(anew=anew)
        return one.sample().floor_bytes // PAGE_BYTES - 264

    assert floor_at(4000, 1351) == floor_at(4200, 1352) == 1350
    assert floor_at(4400, 1450) == 1450
    assert floor_at(4400, 1500, anew=True) == 1500


def test_where_swap_lies_is_read_again_when_it_has_moved_and_at_each_refresh(guest):
    one, path = Probe(str(guest)), guest / "proc/swaps"
    disk = one.sample().swap_disk_used_bytes
    path.write_text(path.read_text().replace("partition", "file"))
    assert one.sample().swap_disk_used_bytes == disk
    one.refresh()
    assert one.sample().swap_disk_used_bytes == 60 * MIB
    path.write_text("")
    set_kib(guest, SwapFree=0)
    assert one.sample().swap_disk_used_bytes == one.sample().swap_total_bytes == 384 * MIB


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
    assert facts.floor_bytes == (75 + 15444 + 9822) * PAGE_BYTES


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


def loaded_anew(module: ModuleType) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_anew", module.__file__)
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    return anew


def test_a_long_file_is_read_whole_where_pages_have_64_kib(tmp_path, monkeypatch):
    """The lists of each processor make zoneinfo long, and the zones that matter stand behind them."""
    zone = "Node 0, zone {}\n        high     1000\n        managed  5000\n" + "    cpu: 1\n" * 3000
    (tmp_path / "zoneinfo").write_text(zone.format("DMA") + zone.format("Normal"))
    monkeypatch.setattr(os, "sysconf", lambda _name: 65536)
    text = loaded_anew(proc_text)
    monkeypatch.setitem(sys.modules, proc_text.__name__, text)
    large = loaded_anew(probe)
    fd = os.open(tmp_path / "zoneinfo", os.O_RDONLY)
    try:
        assert text.parse_floor(large._read_all(fd)) == 2000 * 65536
    finally:
        os.close(fd)


def report_of(guest) -> bytes:
    reporter = Reporter("0b1c2d3e", 0.0)
    return encode(reporter.report(Probe(str(guest)).sample(), Blocks(), "heartbeat", 0.0))


def test_no_figure_is_so_large_that_the_host_hears_nothing_at_all(guest):
    """Nine programs that reserve all of their address space are enough, where nothing is refused."""
    set_kib(guest, Committed_AS=9 << 37)
    with (guest / "proc/meminfo").open("a") as meminfo:
        meminfo.write(f"CommitLimit: {1 << 60} kB\n")
    pressure = guest / "proc/pressure/memory"
    pressure.write_text(pressure.read_text().replace("avg10=1.25", "avg10=198.98"))
    (guest / "proc/sys/vm").mkdir(parents=True, exist_ok=True)
    (guest / "proc/sys/vm/overcommit_memory").write_text("2\n")
    heard = decode_from_guest(report_of(guest))
    assert heard.committed_bytes == heard.commit_limit_bytes == 1 << 50
    assert heard.psi_some_avg10 == 100.0


@pytest.mark.parametrize("text", ["", "x" * 36, "\xff" * 36, "0b1c2d3e"])
def test_a_boot_id_that_is_none_is_zeros(guest, text):
    (guest / "proc/sys/kernel/random/boot_id").write_text(text, encoding="latin-1")
    assert Probe(str(guest)).boot_id() == "00000000-0000-0000-0000-000000000000"


def test_a_meminfo_that_somebody_has_emptied_is_named(guest):
    (guest / "proc/meminfo").write_text("")
    with pytest.raises(OSError, match="MemTotal") as found:
        Probe(str(guest))
    assert found.value.filename.endswith("proc/meminfo")


def unreadable(monkeypatch, *descriptors: int | None) -> None:
    """From now on the kernel refuses these."""
    pread = os.pread

    def refuse(fd: int, size: int, offset: int) -> bytes:
        if fd in descriptors:
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", refuse)


def test_what_can_be_read_is_told_where_other_files_cannot_be_read_any_more(guest, monkeypatch):
    one = Probe(str(guest))
    before = one.sample()
    unreadable(monkeypatch, one._zoneinfo, one._swaps, one._psi)
    one.refresh()
    after = one.sample()
    assert (after.available_bytes, after.floor_bytes) == (before.available_bytes, before.floor_bytes)
    assert after.psi is None
    # Nobody knows what of it is zram: all of it counts.
    assert (after.swap_disk_used_bytes, after.swap_disk_free_bytes) == (after.swap_used_bytes, 0)


@pytest.mark.parametrize("path", ["proc/zoneinfo", "proc/swaps"])
def test_a_file_that_no_kernel_writes_costs_no_other_figure(guest, path):
    (guest / path).write_text("a b c d e high x\n high y managed z\nb c d e f\n" * 9, encoding="latin-1")
    facts = Probe(str(guest)).sample()
    assert facts.available_bytes == 369 * MIB
    assert facts.swap_disk_free_bytes == 0 or path != "proc/swaps"


def test_an_arc_counts_from_when_its_module_is_loaded_until_it_goes(guest, monkeypatch):
    one = Probe(str(guest))
    set_kib(guest, MemAvailable=100 << 10)
    path = guest / ARCSTATS
    path.parent.mkdir(parents=True)
    path.write_text(f"size 4 {64 * MIB}\nc_min 4 {16 * MIB}\n")
    one.refresh()
    assert one.sample().available_bytes == one.look().available_bytes == 148 * MIB
    unreadable(monkeypatch, one._arcstats)
    assert one.sample().available_bytes == 100 * MIB
    monkeypatch.undo()
    one.refresh()
    assert one.look().available_bytes == 148 * MIB
