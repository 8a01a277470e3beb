"""What the host's kernel says of its memory: what can be ordinary pages, and what is available of it."""

from pathlib import Path

import pytest

from agent.evictable import arc_evictable_bytes, available_bytes
from host_controller.core.model import HugePool
from host_controller.host.memory import (
    RESERVES_ALL,
    overcommit_memory,
    read_memory,
    read_pressure,
    transparent_huge_page_bytes,
    vfio_mappings,
)
from host_controller.units import GIB, MIB
from tests.support.fake_host import FakeHost


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def test_this_host_can_be_read() -> None:
    memory = read_memory()
    assert 0 < memory.available_bytes < memory.ordinary_bytes <= memory.total_bytes


@pytest.mark.parametrize("share", [75, 60, 49])
def test_memory_in_huge_pages_is_no_ordinary_memory(host: FakeHost, share: int) -> None:
    huge = 128 * GIB * share // 100 // (2 * MIB) * 2 * MIB
    host.meminfo(MemTotal=128 * GIB, Hugetlb=huge, MemAvailable=(128 * GIB - huge) - GIB)
    host.huge_pages(2 * MIB, huge // (2 * MIB), free=1024)
    memory = read_memory(host.root)
    assert memory.ordinary_bytes == 128 * GIB - huge
    assert memory.used_bytes == GIB
    assert memory.pools == (HugePool(2 * MIB, huge, 2 * GIB),)


def test_huge_pages_of_every_size_count_also_where_meminfo_tells_one_size_only(host: FakeHost) -> None:
    """Linux before 4.20 has no Hugetlb line; gigantic pages are in MemTotal all the same."""
    host.meminfo(HugePages_Total=1024, Hugepagesize=2 * MIB)
    host.huge_pages(2 * MIB, 1024)
    host.huge_pages(GIB, 16, free=3, resv_hugepages=1)
    memory = read_memory(host.root)
    assert memory.ordinary_bytes == 64 * GIB - 2 * GIB - 16 * GIB
    assert memory.pools[1] == HugePool(GIB, 16 * GIB, 2 * GIB)


def test_surplus_pages_are_huge_pages_and_more_may_come_on_demand(host: FakeHost) -> None:
    host.meminfo(Hugetlb=3 * GIB)
    host.huge_pages(2 * MIB, 1536, surplus_hugepages=512, nr_overcommit_hugepages=2048)
    memory = read_memory(host.root)
    assert memory.ordinary_bytes == 61 * GIB
    assert memory.pools == (HugePool(2 * MIB, 3 * GIB, 0, growable_bytes=3 * GIB),)


def test_pages_that_are_promised_beyond_those_that_are_free_leave_none(host: FakeHost) -> None:
    host.huge_pages(2 * MIB, 1024, free=10, resv_hugepages=40, nr_overcommit_hugepages=100)
    assert read_memory(host.root).pools[0].free_bytes == 0


def test_cache_that_a_slice_protects_is_not_available(host: FakeHost) -> None:
    """MemoryMin= of system.slice, as beside Ceph: the kernel would rather kill a VM than take it."""
    host.meminfo(MemTotal=64 * GIB, MemAvailable=40 * GIB)
    host.write("sys/fs/cgroup/system.slice/memory.min", f"{8 * GIB}\n")
    host.write("sys/fs/cgroup/system.slice/memory.current", f"{9 * GIB}\n")
    host.write("sys/fs/cgroup/system.slice/memory.stat", f"inactive_file {3 * GIB}\nactive_file {2 * GIB}\n")
    host.write("sys/fs/cgroup/machine.slice/memory.min", "0\n")
    memory = read_memory(host.root)
    assert memory.available_bytes == 36 * GIB
    assert memory.evictable_bytes == 0


def test_a_size_without_pages_is_no_pool(host: FakeHost) -> None:
    host.huge_pages(GIB, 0)
    host.write("sys/kernel/mm/hugepages/hugepages-oddkB/nr_hugepages", "7\n")
    assert read_memory(host.root).pools == ()


def test_the_size_of_transparent_huge_pages_is_known_where_the_kernel_makes_some(host: FakeHost) -> None:
    assert transparent_huge_page_bytes(host.root) is None
    place = host.root / "sys/kernel/mm/transparent_hugepage"
    place.mkdir(parents=True)
    (place / "hpage_pmd_size").write_text("33554432\n")
    assert transparent_huge_page_bytes(host.root) == 32 * MIB


def test_how_much_a_vfio_device_may_map_is_known_where_its_module_is_loaded(host: FakeHost) -> None:
    assert vfio_mappings(host.root) is None
    host.write("sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "65535\n")
    assert vfio_mappings(host.root) == 65535


@pytest.mark.parametrize(("mode", "reserves"), [("0", False), ("1", False), ("2", True)])
def test_whether_the_kernel_reserves_all_that_is_mapped_is_known(
    host: FakeHost, mode: str, reserves: bool
) -> None:
    assert overcommit_memory(host.root) != RESERVES_ALL
    host.write("proc/sys/vm/overcommit_memory", f"{mode}\n")
    assert (overcommit_memory(host.root) == RESERVES_ALL) is reserves


def test_pages_that_broke_are_no_ordinary_memory(host: FakeHost) -> None:
    host.meminfo(HardwareCorrupted=GIB)
    assert read_memory(host.root).ordinary_bytes == 63 * GIB


def test_in_a_container_the_cache_of_the_whole_machine_is_not_available(host: FakeHost) -> None:
    """lxcfs tells of the container's memory alone, and the module of ZFS is the machine's."""
    host.meminfo(MemTotal=16 * GIB, MemAvailable=5 * GIB, AnonPages=9 * GIB, Shmem=GIB, Hugetlb=0)
    host.arc(60 * GIB, 3 * GIB)
    memory = read_memory(host.root)
    assert memory.evictable_bytes == GIB
    assert memory.used_bytes == 10 * GIB, "what VMs and others hold is in use, not all of it cache"


def test_the_arc_above_its_least_size_is_available(host: FakeHost) -> None:
    host.meminfo(MemAvailable=2 * GIB)
    host.arc(31 * GIB, 3 * GIB)
    memory = read_memory(host.root)
    assert memory.available_bytes == 30 * GIB
    assert memory.evictable_bytes == 28 * GIB


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"size 4 1000\n",
        b"c_min 4 1000\n",
        b"size 4 1000\nc_min 4 2000\n",
        b"size 4 -5\nc_min 4 1\n",
        b"size 4 1e30\nc_min 4 0\n",
        b"size\nc_min\n\xff\xfe\0",
        b"size 4 99 99\nc_min 4 1\n",
    ],
)
def test_an_arc_that_does_not_say_both_figures_gives_nothing_back(text: bytes) -> None:
    assert arc_evictable_bytes(text) == 0


def test_no_file_makes_more_available_than_there_is(host: FakeHost) -> None:
    host.arc(1 << 60, 0)
    host.meminfo(Hugetlb=16 * GIB)
    memory = read_memory(host.root)
    assert memory.available_bytes == memory.ordinary_bytes == 48 * GIB


def test_a_kernel_without_mem_available_has_its_caches_counted() -> None:
    figures = {
        "MemTotal": 64 * GIB,
        "MemFree": 10 * GIB,
        "Active(file)": 8 * GIB,
        "Inactive(file)": 12 * GIB,
        "SReclaimable": 4 * GIB,
    }
    assert available_bytes(figures) == (10 - 1 + 20 - 1 + 4 - 1) * GIB
    assert available_bytes({**figures, "MemAvailable": 3 * GIB}) == 3 * GIB
    assert available_bytes({"MemTotal": 64 * GIB}) == 0


def test_pressure_and_swap_traffic_are_read_and_unknown_without_their_files(host: FakeHost) -> None:
    memory = read_memory(host.root)
    assert (memory.psi_some_percent, memory.psi_full_percent) == (None, None)
    assert (memory.swap_in_bytes, memory.swap_out_bytes) == (None, None)
    host.write(
        "proc/pressure/memory",
        "some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=3.25 avg60=0.00 avg300=0.00 total=1\n",
    )
    host.write("proc/vmstat", "nr_free_pages 5\npswpin 10\npswpout 20\n")
    memory = read_memory(host.root)
    assert (memory.psi_some_percent, memory.psi_full_percent) == (12.5, 3.25)
    assert (memory.swap_in_bytes, memory.swap_out_bytes) == (10 * 4096, 20 * 4096)


def test_a_garbled_pressure_file_is_unknown() -> None:
    assert read_pressure("some avg10=x\n\nfull\n") == (None, None)
    assert read_pressure("some avg10=nan\nfull avg10=1e9\n") == (None, None)
