"""With virtio-mem a guest boots with as little as works: the rest can leave in whole blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.boot_ram import boot_ram, least_startup_bytes
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable
from host_controller.units import GIB, MIB, format_size
from tests.support.definitions import HOTADD, VIRTIO_MEM, with_cpu
from tests.unit.hypervisor.domains import NUMA, Q35, with_backing

SIZES = st.integers(160, 1 << 20).map(lambda mib: mib * MIB)


@pytest.mark.parametrize(
    ("minimum", "startup", "maximum", "boots_with", "why"),
    [
        (2048, 4096, 4096, 2048, "its minimum"),
        (512, 4096, 8192, 2048, "a quarter of maximum"),
        (128, 1024, 1024, 384, "its kernel may need to boot (256 MiB)"),  # 256 + 64 + 16, to a block
        (512, 1024, 65536, 1024, "all of startup"),  # beyond 3:1 it grows for its kernel
        (1024, 1024, 4096, 1024, "all of startup"),
        (160, 200, 4096, 200, "all of startup"),  # whoever names so little has tried it
        (512, 600, 1024, 600, "all of startup"),  # less than a block is no use
    ],
)
def test_boot_ram_is_the_most_of_minimum_kernel_and_a_quarter_but_no_more_than_startup(
    minimum: int, startup: int, maximum: int, boots_with: int, why: str
) -> None:
    found = boot_ram(Limits(startup * MIB, minimum * MIB, maximum * MIB), startup * MIB)
    assert (format_size(found.size_bytes), why in found.why) == (format_size(boots_with * MIB), True), found


def test_a_larger_bounce_buffer_is_room_that_the_kernel_needs() -> None:
    limits = Limits(2 * GIB, 128 * MIB, 2 * GIB)
    assert boot_ram(limits, 2 * GIB).size_bytes == 512 * MIB
    found = boot_ram(limits, 2 * GIB, 512 * MIB)
    assert found.size_bytes == 896 * MIB  # 256 + 512 + 32, to a block
    assert "512 MiB" in found.why
    line = "<cmdline>swiotlb=262144</cmdline>"  # of 2 KiB each
    view = read_domain(enable(Q35.replace("</os>", f"{line}</os>"), limits, VIRTIO_MEM).xml)
    assert view.boot_ram_bytes == 896 * MIB


@given(SIZES, SIZES, SIZES, st.sampled_from((1, 2, 256, 1024)))
def test_it_lies_between_minimum_and_startup_and_the_device_begins_at_a_block(
    one: int, two: int, three: int, granule_mib: int
) -> None:
    minimum, startup, maximum = sorted((one, two, three))
    startup += -startup % (granule_mib * MIB)
    limits = Limits(startup, min(minimum, startup), max(maximum, startup))
    found = boot_ram(limits, startup, granule_bytes=granule_mib * MIB).size_bytes
    assert limits.minimum_bytes <= found <= startup
    assert (startup - found) % (128 * MIB) == 0
    assert found % (granule_mib * MIB) == 0
    assert found == startup or 4 * found >= limits.maximum_bytes


@given(SIZES, st.sampled_from((0, 64 * MIB, 512 * MIB)))
def test_the_least_startup_boots_and_describes_what_it_grows_by(maximum: int, bounce: int) -> None:
    least = least_startup_bytes(maximum, bounce)
    movable = min(max(0, maximum - least), 3 * least)
    assert least - movable // 64 >= 96 * MIB + bounce
    assert least_startup_bytes(0, bounce) <= least


def test_the_definition_boots_with_it_and_has_a_device_for_all_the_rest() -> None:
    limits = Limits(2 * GIB, 512 * MIB, 4 * GIB)
    prepared = enable(Q35, limits, VIRTIO_MEM).xml
    view = read_domain(prepared)
    assert view.config is not None
    assert (view.boot_ram_bytes, view.actual_bytes, view.ceiling_bytes) == (GIB, GIB, 4 * GIB)
    assert (view.config.virtio_mem_bytes, view.virtio_mem_requested_bytes) == (3 * GIB, 0)
    assert view.problems == ()
    assert enable(prepared, limits, VIRTIO_MEM).xml == prepared, "twice changes nothing more"
    assert disable(prepared) == Q35
    by_dimms = read_domain(enable(prepared, limits, HOTADD).xml)
    assert (by_dimms.boot_ram_bytes, by_dimms.ceiling_bytes) == (2 * GIB, 4 * GIB)


@pytest.mark.parametrize(
    ("limits", "boot_mib", "device_mib", "reach_mib"),
    [
        (Limits(4 * GIB, 2 * GIB, 4 * GIB), 2048, 2048, 4096),
        (Limits(GIB, 256 * MIB, GIB + 50 * MIB), 384, 640, 1024),  # in whole blocks
        (Limits(GIB, 256 * MIB, 64 * GIB), 1024, 64512, 65536),
        (Limits(GIB, GIB, GIB), 1024, 128, 1152),  # there is no device of nothing
    ],
)
def test_the_device_is_what_is_missing_of_maximum(
    limits: Limits, boot_mib: int, device_mib: int, reach_mib: int
) -> None:
    view = read_domain(enable(Q35, limits, VIRTIO_MEM).xml)
    assert view.config is not None
    sizes = view.boot_ram_bytes, view.config.virtio_mem_bytes, view.ceiling_bytes
    assert sizes == (boot_mib * MIB, device_mib * MIB, reach_mib * MIB)


def test_numa_cells_share_it() -> None:
    view = read_domain(enable(NUMA, Limits(2 * GIB, 512 * MIB, 4 * GIB), VIRTIO_MEM).xml)
    assert sum(view.ram_blocks[:-1]) == view.boot_ram_bytes == GIB
    assert view.ram_blocks[-1] == 3 * GIB


@pytest.mark.parametrize("growth", [HOTADD, VIRTIO_MEM])
@given(st.lists(st.integers(1, 1 << 16), min_size=2, max_size=8), st.sampled_from((2, 64, 128)))
def test_no_cell_is_left_empty_however_small_its_part(
    growth: Growth, cells: list[int], page_mib: int
) -> None:
    if growth is VIRTIO_MEM:
        page_mib = 2
    written = "".join(f"<cell id='{i}' cpus='{i}' memory='{mib}' unit='MiB'/>" for i, mib in enumerate(cells))
    xml = NUMA[: NUMA.index("<cell")] + written + NUMA[NUMA.index("</numa>") :]
    xml = with_backing(xml, f"<hugepages><page size='{page_mib}' unit='MiB'/></hugepages>")
    limits = Limits(256 * MIB, 256 * MIB, GIB)
    prepared = enable(xml, limits, growth).xml
    view = read_domain(prepared)
    blocks = view.ram_blocks[: len(cells)]
    assert min(blocks) >= page_mib * MIB, blocks
    assert sum(blocks) == view.boot_ram_bytes
    assert all(one % (page_mib * MIB) == 0 for one in blocks)
    assert enable(prepared, limits, growth).xml == prepared


def test_boot_ram_has_a_page_for_each_cell() -> None:
    found = boot_ram(Limits(8 * GIB, 512 * MIB, 8 * GIB), 8 * GIB, granule_bytes=GIB, cells=4)
    assert (found.size_bytes, found.why) == (4 * GIB, "a page for each of its NUMA cells")


def test_in_huge_pages_it_boots_with_all_of_startup_as_nobody_would_give_it_the_rest() -> None:
    limits = Limits(2 * GIB, 512 * MIB, 4 * GIB)
    plan = enable(with_backing(Q35, "<hugepages/>"), limits, VIRTIO_MEM)
    view = read_domain(plan.xml)
    assert (view.boot_ram_bytes, view.ceiling_bytes) == (2 * GIB, 4 * GIB)
    assert any("2 GiB (all of startup, since nobody moves huge pages)" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("minimum_mib", "startup_mib", "maximum_mib", "boots_with_mib"),
    [
        (65536, 65536, 131072, 65664),
        (1024, 131072, 262144, 65664),  # a quarter of maximum
        (64000, 64000, 131072, 64128),
        (65664, 65664, 131072, 65664),
        (65539, 65539, 131072, 65539),
        (65536, 65536, 65536, 65536),  # it has no room to grow into
        (32768, 32768, 131072, 32768),
    ],
)
def test_ram_beyond_64_gib_ends_where_linux_takes_small_memory_blocks(
    minimum_mib: int, startup_mib: int, maximum_mib: int, boots_with_mib: int
) -> None:
    """Of blocks of 2 GiB its driver takes none that is not whole in what was asked for and 256 MiB more."""
    limits = Limits(startup_mib * MIB, minimum_mib * MIB, maximum_mib * MIB)
    prepared = enable(with_cpu("", "mode='host-passthrough'"), limits, VIRTIO_MEM)
    view = read_domain(prepared.xml)
    assert (view.boot_ram_bytes, view.actual_bytes) == (boots_with_mib * MIB, boots_with_mib * MIB)
    assert 0 <= maximum_mib * MIB - view.ceiling_bytes < 128 * MIB or maximum_mib == startup_mib
    assert enable(prepared.xml, limits, VIRTIO_MEM).xml == prepared.xml
    more = boots_with_mib in (startup_mib + 128, maximum_mib // 4 + 128)
    assert ("2 GiB at a time" in "; ".join(prepared.notes)) is more


@pytest.mark.parametrize(
    ("startup_mib", "maximum_mib", "boots_with_mib"),
    [
        (65536, 131072, 65664),
        (65536 + 256, 131072, 65536 + 384),  # blocks of 256 MiB
        (65664, 131072, 65664),
        (65536, 65536, 65536),  # it has no room to grow into
        (32768, 131072, 32768),
    ],
)
def test_so_does_that_of_a_guest_that_grows_by_dimms(
    startup_mib: int, maximum_mib: int, boots_with_mib: int
) -> None:
    """DIMMs are of 128 MiB as long as no agent tells of other blocks, and none of 2 GiB would be whole."""
    limits = Limits(startup_mib * MIB, GIB, maximum_mib * MIB)
    prepared = enable(with_cpu("", "mode='host-passthrough'"), limits, HOTADD)
    view = read_domain(prepared.xml)
    assert (view.boot_ram_bytes, view.actual_bytes) == (boots_with_mib * MIB, boots_with_mib * MIB)
    assert 0 <= maximum_mib * MIB - view.ceiling_bytes < 128 * MIB or maximum_mib == startup_mib
    assert enable(prepared.xml, limits, HOTADD).xml == prepared.xml
    assert ("rounded up" in "; ".join(prepared.notes)) is (boots_with_mib != startup_mib)


@pytest.mark.parametrize(
    ("boot", "architecture", "block"),
    [
        (64 * GIB, "x86_64", 2 * GIB),
        (64 * GIB + 512 * MIB, "x86_64", 512 * MIB),
        (64 * GIB + 256 * MIB, "x86_64", 4 * MIB),
        (64 * GIB + 128 * MIB, "x86_64", 4 * MIB),
        (32 * GIB, "x86_64", 4 * MIB),
        (64 * GIB, "aarch64", 4 * MIB),
    ],
)
def test_a_device_beside_ram_that_ends_otherwise_is_resized_by_whole_blocks(
    boot: int, architecture: str, block: int
) -> None:
    """Prepared before that was known, or adopted with its user's device."""
    xml = enable(Q35, Limits(GIB, GIB, 8 * GIB), VIRTIO_MEM).xml
    assert "memory='1048576'" in xml
    xml = xml.replace("memory='1048576'", f"memory='{boot >> 10}'").replace("x86_64", architecture)
    view = read_domain(xml)
    assert view.config is not None
    assert view.boot_ram_bytes == boot
    assert view.config.virtio_mem_block_bytes == block


@pytest.mark.parametrize("growth", [HOTADD, VIRTIO_MEM])
def test_in_huge_pages_ram_ends_where_it_ends(growth: Growth) -> None:
    limits = Limits(64 * GIB, 64 * GIB, 128 * GIB)
    huge = enable(with_backing(Q35, "<hugepages/>"), limits, growth).xml
    assert read_domain(huge).boot_ram_bytes == 64 * GIB
