"""Sizes in a domain: what boots, what fits under limits and into addresses; units and pages."""

from dataclasses import replace

import pytest

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.fitness.running import natural_growth, obstacles
from host_controller.domain_xml.fitness.sizes import beside_ram
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable
from host_controller.domain_xml.values import parse_xml
from host_controller.errors import DomainUnsuitable
from host_controller.rules.matching import Subject
from host_controller.units import GIB, KIB, MIB
from tests.support.definitions import (
    BALLOON,
    HOTADD,
    LIMITS,
    NVDIMM,
    VIRTIO_MEM,
    bound,
    with_args,
    with_cpu,
    with_device,
    with_memtune,
    with_room,
)
from tests.unit.hypervisor.domains import I440FX, LIVE, NUMA, Q35, with_backing

# --- the guest boots ---


@pytest.mark.parametrize(
    ("growth", "maximum", "least_mib"),
    # Of what virtio-mem adds the page structures lie in what was there, up to 3:1.
    [(HOTADD, GIB, 160), (VIRTIO_MEM, GIB, 168), (VIRTIO_MEM, 64 * GIB, 168), (VIRTIO_MEM, 256 * MIB, 162)],
)
def test_a_startup_that_bounce_buffer_and_page_structures_eat_is_refused(
    growth: Growth, maximum: int, least_mib: int
) -> None:
    small = Limits(128 * MIB, 64 * MIB, maximum)
    by_balloon = "use --growth balloon, or " if maximum <= GIB else ""
    with pytest.raises(
        DomainUnsuitable, match=rf"128 MiB.*64 MiB aside.*; {by_balloon}give --startup {least_mib}M"
    ):
        enable(Q35, small, growth)
    if by_balloon:
        enable(Q35, small, BALLOON)
    with pytest.raises(DomainUnsuitable):
        enable(Q35, replace(small, startup_bytes=(least_mib - 1) * MIB), growth)
    enable(Q35, replace(small, startup_bytes=least_mib * MIB), growth)


@pytest.mark.parametrize(
    ("arch", "maximum", "least_mib"),
    [
        ("x86_64", 2 * GIB, 96 + 32),
        ("x86_64", 8 * GIB, 96 + 64 + 128),
        ("aarch64", 64 * GIB, 96 + 64 + 1024),
        ("s390x", 64 * GIB, 96 + 1024),
        ("ppc64le", 64 * GIB, 96 + 64),  # its pages are of 64 KiB
    ],
)
def test_a_startup_that_describing_the_maximum_eats_is_refused_by_balloon(
    arch: str, maximum: int, least_mib: int
) -> None:
    """The balloon would take all above startup, where the kernel has more than that for itself."""
    xml = Q35.replace("arch='x86_64' machine='pc-q35-7.2'", f"arch='{arch}'")
    assert arch in xml or arch == "x86_64"
    small = Limits((least_mib - 1) * MIB, 64 * MIB, maximum)
    with pytest.raises(DomainUnsuitable, match=f"leave it nothing.*give --startup {least_mib}M"):
        enable(xml, small, BALLOON)
    enable(xml, replace(small, startup_bytes=least_mib * MIB), BALLOON)
    enable(xml, Limits(64 * MIB, 32 * MIB, 64 * MIB), BALLOON)  # of which its balloon takes nothing at boot


def test_virtio_mem_in_the_large_blocks_of_some_arm64_kernels_is_said() -> None:
    arm = Q35.replace("arch='x86_64' machine='pc-q35-7.2'", "arch='aarch64' machine='virt'")
    assert "512 MiB at a time" in "\n".join(enable(arm, LIMITS, VIRTIO_MEM).notes)
    assert "at a time" not in "\n".join(enable(arm, LIMITS, HOTADD).notes)
    assert "at a time" not in "\n".join(enable(Q35, LIMITS, VIRTIO_MEM).notes)


def test_what_enable_costs_and_changes_is_said() -> None:
    said = "\n".join(enable(Q35, LIMITS, HOTADD).notes)
    parts = (
        "64 MiB of what it boots with aside",
        "virsh setmaxmem",
        "setvcpus --maximum",
        "another <memory>",
        "MemTotal",
    )
    for part in parts:
        assert part in said
    assert "neither suspended nor hibernated" in "\n".join(enable(Q35, LIMITS, VIRTIO_MEM).notes)
    assert "not to be hibernated" in "\n".join(enable(Q35, LIMITS, HOTADD).notes)
    awake = "<pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='no'/></pm>"
    for xml, growth in ((Q35, BALLOON), (Q35.replace("  <clock", f"  {awake}<clock", 1), VIRTIO_MEM)):
        assert "hibernated" not in "\n".join(enable(xml, LIMITS, growth).notes)
    assert "setmaxmem" not in "\n".join(enable(NUMA, LIMITS, HOTADD).notes), "it had a cell already"
    said = "\n".join(enable(I440FX, replace(LIMITS, maximum_bytes=2 * GIB), BALLOON).notes)
    assert "aside" not in said
    assert "`virsh setmaxmem` changes what it boots with" in said


@pytest.mark.parametrize(
    ("xml", "part"),
    [
        (Q35.replace("balloon model='virtio'", "balloon model='none'"), "in place of model 'none'"),
        (with_backing(Q35, "<allocation mode='immediate'/>"), "allocated at once"),
        (with_backing(Q35, "<source type='file'/><access mode='shared'/>"), "shared in files"),
        (with_backing(NUMA.replace("cpus='0-1'", "cpus='0-1' memAccess='shared'"), "<source type='file'/>"),
         "shared in files"),
        (bound("<memory mode='strict' nodeset='1'/>"), "node 1"),
        (bound("<memnode cellid='0' mode='strict' nodeset='2'/>", NUMA),
         "node 2"),
        (bound("<memory mode='interleave' placement='auto'/>"),
         "node auto"),
    ],
)  # fmt: skip
def test_what_memory_will_do_is_said(xml: str, part: str) -> None:
    assert part in "\n".join(enable(xml, LIMITS, HOTADD).notes)


@pytest.mark.parametrize("inside", ["<source type='file'/>", "<source type='memfd'/><access mode='shared'/>"])
def test_memory_that_no_file_of_a_disk_holds_is_not_called_so(inside: str) -> None:
    assert "files" not in "\n".join(enable(with_backing(Q35, inside), LIMITS, HOTADD).notes)


def test_a_preferred_node_is_no_binding() -> None:
    xml = bound("<memory mode='preferred' nodeset='1'/>")
    assert "bound" not in "\n".join(enable(xml, LIMITS, HOTADD).notes)


# --- limits ---


def test_a_limit_leaves_room_for_qemu_and_the_figures_differ() -> None:
    for kib in (4 << 20, (4 << 20) - 1, (4 << 20) + 100 * 1024):
        xml = with_memtune(f"<hard_limit unit='KiB'>{kib}</hard_limit>")
        with pytest.raises(DomainUnsuitable) as refused:
            enable(xml, LIMITS, HOTADD)
        assert "needs 4.27 GiB" in refused.value.message
        assert f"virsh memtune --hard-limit {(4 * GIB + 272 * MIB) // KIB} --config web" in str(refused.value)
        (refusal,) = refusals(xml, LIMITS, HOTADD)
        raised, lowered = (way.follow(xml, LIMITS, HOTADD) for way in refusal.ways_out)
        enable(*raised)
        enable(*lowered)
        assert 3 * GIB < lowered[1].maximum_bytes < 4 * GIB


def test_a_file_whose_slots_are_no_number_is_read_as_one_without_slots() -> None:
    odd = with_device(NVDIMM, with_room()).replace("slots='2'", "slots='two'")
    assert "<maxMemory slots='1'" in enable(odd, LIMITS, BALLOON).xml


def test_limits_that_depend_on_each_other_are_raised_by_one_command() -> None:
    xml = with_memtune(
        "<hard_limit unit='GiB'>4</hard_limit><swap_hard_limit unit='MiB'>4200</swap_hard_limit>"
    )
    kib = (4 * GIB + 272 * MIB) // KIB
    with pytest.raises(
        DomainUnsuitable, match=rf"memtune --hard-limit {kib} --swap-hard-limit {kib} --config web"
    ):
        enable(xml, LIMITS, HOTADD)
    (refusal,) = refusals(xml, LIMITS, HOTADD)
    for way in refusal.ways_out:
        assert refusals(*way.follow(xml, LIMITS, HOTADD)) == ()


def test_figures_that_round_to_the_same_are_told_apart() -> None:
    xml = with_memtune(f"<hard_limit unit='KiB'>{(4 * GIB + 272 * MIB) // KIB - 1}</hard_limit>")
    with pytest.raises(DomainUnsuitable, match=r"hard_limit is 4367 MiB.* needs 4368 MiB"):
        enable(xml, LIMITS, HOTADD)


@pytest.mark.parametrize(
    ("device", "needed"),
    [
        ("<shmem name='glass'><model type='ivshmem-plain'/><size unit='M'>128</size></shmem>", "4.39"),
        ("<shmem name='in-bytes'><size>134217728</size></shmem>", "4.39"),
        ("<shmem name='a'><size unit='M'>64</size></shmem><shmem name='b'><size unit='M'>60</size></shmem>"
         "<shmem name='of-its-default'/>", "4.39"),
        ("<video><model type='qxl' ram='65536' vram='65536' vram64='262144'/></video>", "4.64"),
    ],
)  # fmt: skip
def test_what_a_device_shares_or_shows_is_in_the_limit(device: str, needed: str) -> None:
    xml = with_device(device, with_memtune("<hard_limit unit='MiB'>4370</hard_limit>"))
    enable(with_memtune("<hard_limit unit='MiB'>4370</hard_limit>"), LIMITS, HOTADD)
    with pytest.raises(DomainUnsuitable, match=f"needs {needed} GiB"):
        enable(xml, LIMITS, HOTADD)


@pytest.mark.parametrize(
    "word", ["memory-backend-ram,id=m,size=128M", '{"qom-type":"memory-backend-file","size":134217728}']
)
def test_memory_that_is_made_past_libvirt_is_in_the_limit(word: str) -> None:
    xml = with_args("-object", word)
    assert beside_ram(parse_xml(xml), 4 * GIB) - beside_ram(parse_xml(Q35), 4 * GIB) == 128 * MIB
    for odd in ("size=much", "id=m", "size="):
        strange = with_args("-object", f"memory-backend-ram,{odd}")
        assert beside_ram(parse_xml(strange), 4 * GIB) == beside_ram(parse_xml(Q35), 4 * GIB)


def test_without_kvm_the_translation_cache_is_in_the_limit() -> None:
    kvm = with_memtune("<hard_limit unit='GiB'>5</hard_limit>")
    enable(kvm, LIMITS, HOTADD)
    tcg = kvm.replace("type='kvm'", "type='qemu'")
    with pytest.raises(DomainUnsuitable, match="hard_limit"):
        enable(tcg, LIMITS, HOTADD)
    small = "<features>\n    <tcg><tb-cache unit='MiB'>64</tb-cache></tcg>"
    enable(tcg.replace("<features>", small), LIMITS, HOTADD)


# --- addresses ---


def with_window(size_gib: int) -> str:
    """A processor of 40 bits, and a PCI window of so much, as for the memory of graphics cards."""
    root = "<controller type='pci' index='0' model='pcie-root'"
    window = f"{root}><pcihole64 unit='GiB'>{size_gib}</pcihole64></controller>"
    return with_cpu("<model>Haswell</model>").replace(f"{root}/>", window)


@pytest.mark.parametrize(
    ("xml", "maximum", "host_bits", "fits"),
    [
        (with_cpu("<model>Haswell</model>"), 900 * GIB, None, True),
        (with_cpu("<model>Haswell</model>"), 980 * GIB, None, False),
        (with_cpu("<maxphysaddr mode='emulate' bits='36'/>"), 8 * GIB, None, True),
        (with_cpu("<maxphysaddr mode='emulate' bits='36'/>"), 20 * GIB, None, False),
        (with_cpu("<maxphysaddr mode='emulate' bits='42'/>"), 2 << 40, None, True),
        (with_cpu("<maxphysaddr mode='passthrough' limit='39'/>"), 600 * GIB, 46, False),
        (with_cpu("", "mode='host-passthrough'"), 600 * GIB, 39, False),
        (with_cpu("", "mode='host-passthrough'"), 600 * GIB, 46, True),
        (with_cpu("", "mode='host-passthrough'"), 600 * GIB, None, True),
        (with_cpu("", "mode='maximum'", "qemu"), 1100 * GIB, 46, False),
        (with_args("-cpu", "max,phys-bits=36"), 20 * GIB, 46, False),
        (with_args("-cpu", "max"), 2 << 40, 46, True),
        (with_args("-cpu", "max,host-phys-bits=off"), 2 << 40, 46, False),
        (with_args("-cpu", "Haswell,phys-bits=0"), 980 * GIB, 46, False),
        (with_args("-cpu", "Haswell,host-phys-bits=on"), 2 << 40, 46, True),
        (with_args("-cpu", "host,host-phys-bits-limit=39"), 600 * GIB, 46, False),
        (with_args("-cpu", "max,phys-bits=36", "-cpu", "max,phys-bits=42"), 2 << 40, 46, True),
        (with_args("-cpu", "max,phys-bits=" + "9" * 20), 2 << 40, 46, True),
        (with_args("-cpu", "max,phys-bits=" + "9" * 5000), 2 << 40, 46, True),
        (with_args("-cpu", "host,host-phys-bits-limit=" + "9" * 5000), 2 << 40, 46, True),
        (with_cpu(f"<maxphysaddr mode='emulate' bits='{'9' * 20}'/>"), 2 << 40, 46, True),
        (with_window(350), 350 * GIB, 46, True),
        (with_window(600), 350 * GIB, 46, True),
        (with_window(600), 400 * GIB, 46, False),
        (with_args("-global", "q35-pcihost.pci-hole64-size=600G"), 400 * GIB, 40, False),
        (
            with_args("-global", "driver=q35-pcihost,property=pci-hole64-size,value=644245094400"),
            400 * GIB,
            40,
            False,
        ),
        (with_args("-global", "q35-pcihost.pci-hole64-size=much"), 400 * GIB, 40, True),
    ],
)
def test_a_maximum_beyond_the_processors_addresses_is_refused_with_one_that_fits(
    xml: str, maximum: int, host_bits: int | None, fits: bool
) -> None:
    limits = replace(LIMITS, maximum_bytes=maximum)
    host = HostAbilities(address_bits=host_bits)
    found = refusals(xml, limits, HOTADD, host)
    assert (not found) is fits, found
    for one in found:
        assert "address bits" in one.reason
        for way in one.ways_out:
            assert refusals(*way.follow(xml, limits, HOTADD), host) == ()
        if "limit='39'" not in xml:
            assert one.ways_out


# --- sizes ---


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("<memory unit='KiB'>1048576", GIB),
        ("<memory unit='KB'>1000000", 10**9),
        ("<memory unit='k'>1048576", GIB),
        ("<memory>1048576", GIB),
        ("<memory unit='b'>1073741824", GIB),
        ("<memory unit='bytes'>1073741824", GIB),
        ("<memory unit='M'>1024", GIB),
        ("<memory unit='MB'>1000", 10**9),
        ("<memory unit='G'>1", GIB),
        ("<memory unit='GB'>1", 10**9),
        ("<memory unit='TiB'> 1 ", 1 << 40),
        ("<memory unit='PiB'>1", 1 << 50),
        ("<memory unit='furlong'>1", 0),
        (f"<memory unit='KiB'>{'9' * 400}", 0),
        ("<memory unit='KiB'>-5", 0),
    ],
)
def test_every_spelling_of_a_size_is_read(text: str, size: int) -> None:
    assert read_domain(f"<domain>{text}</memory></domain>").ram_bytes == size


def test_cells_in_different_units_keep_their_proportion() -> None:
    xml = NUMA.replace("memory='1572864' unit='KiB'", "memory='1536' unit='MiB'")
    assert read_domain(enable(xml, LIMITS, HOTADD).xml).ram_blocks == (768 * MIB, 256 * MIB)
    assert disable(enable(xml, LIMITS, HOTADD).xml) == xml


def test_boot_memory_is_made_of_whole_pages() -> None:
    xml = with_backing(Q35, "<hugepages><page size='64' unit='MiB'/></hugepages>")
    plan = enable(xml, replace(LIMITS, startup_bytes=GIB + MIB), HOTADD)
    assert read_domain(plan.xml).boot_ram_bytes == GIB + 64 * MIB
    assert any("rounded up" in note for note in plan.notes)


def test_our_cell_follows_the_number_of_vcpus() -> None:
    prepared = enable(Q35, LIMITS, HOTADD).xml
    more = prepared.replace("<vcpu placement='static'>4<", "<vcpu placement='static'>6<")
    assert "cpus='0-5'" in enable(more, LIMITS, HOTADD).xml
    assert disable(enable(more, LIMITS, HOTADD).xml) == Q35.replace(">4</vcpu>", ">6</vcpu>")


def test_an_nvdimm_stays_where_nothing_is_hot_added() -> None:
    own = "  <maxMemory slots='2' unit='GiB'>8</maxMemory>\n  <memory unit='KiB'>2097152"
    xml = with_device(NVDIMM).replace("  <memory unit='KiB'>2097152", own, 1)
    prepared = enable(xml, LIMITS, BALLOON).xml
    view = read_domain(prepared)
    assert (view.boot_ram_bytes, view.ceiling_bytes) == (4 * GIB, 8 * GIB)
    assert f"<memory unit='KiB'>{(4 * GIB + 256 * MIB) // KIB}<" in prepared, "libvirt counts the NVDIMM"
    assert disable(prepared) == xml
    tight = xml.replace("<maxMemory slots='2' unit='GiB'>8<", "<maxMemory slots='0' unit='GiB'>3<")
    view = read_domain(enable(tight, LIMITS, BALLOON).xml)
    assert view.ceiling_bytes == 4 * GIB + 256 * MIB
    assert view.config is not None
    assert view.config.slots == 1


def test_dimms_of_ours_in_a_definition_are_taken_out_by_enable() -> None:
    plan = enable(LIVE, Limits(512 * MIB, 256 * MIB, 2 * GIB), HOTADD)
    assert read_domain(plan.xml).dimms == ()
    assert read_domain(plan.xml).boot_ram_bytes == 512 * MIB


@pytest.mark.parametrize(
    ("label", "owner"), [("+107:+107", 107), ("+" + "9" * 5000, None), ("+x", None), ("root", None)]
)
def test_a_label_that_is_no_users_number_names_nobody(label: str, owner: int | None) -> None:
    xml = with_cpu("").replace(
        "</domain>", f"<seclabel model='dac'><label>{label}</label></seclabel></domain>"
    )
    assert read_domain(xml).owner == owner


# --- huge pages ---

HUGE = "<hugepages><page size='{}' unit='MiB'/></hugepages>"
OWN_PAGES = (
    "<memory model='virtio-mem'><source><pagesize unit='{}'>{}</pagesize></source>"
    "<target><size unit='GiB'>4</size><node>0</node><block unit='MiB'>2</block>"
    "<requested unit='KiB'>0</requested></target></memory>"
)


@pytest.mark.parametrize(
    ("backing", "unit", "own", "found"),
    [
        (HUGE.format(2), "KiB", 2048, 2 * MIB),
        (HUGE.format(2), "KiB", 4, None),
        (HUGE.format(2), "GiB", 1, None),
        ("<hugepages/>", "MiB", 2, None),  # the default may be another
        ("<nosharepages/>", "MiB", 2, None),
    ],
)
def test_a_memory_device_with_pages_of_its_own_may_lie_outside_of_the_pool(
    backing: str, unit: str, own: int, found: int | None
) -> None:
    """What it takes of ordinary memory would be charged to huge pages."""
    xml = with_device(OWN_PAGES.format(unit, own), with_backing(with_room(), backing))
    assert read_domain(xml).huge_page_bytes == found


def test_ram_in_huge_pages_does_not_count_in_libvirts_limits() -> None:
    limited = with_memtune("<hard_limit unit='GiB'>1</hard_limit>")
    with pytest.raises(DomainUnsuitable, match="hard_limit"):
        enable(limited, LIMITS, HOTADD)
    enable(with_backing(limited, HUGE.format(2)), LIMITS, HOTADD)


def test_what_runs_in_pages_larger_than_a_dimm_grows_by_none() -> None:
    """QEMU makes no backend smaller than its page: each DIMM would be refused."""
    for size, growth in ((2, HOTADD), (1024, BALLOON)):
        root = parse_xml(with_backing(with_room(), HUGE.format(size)))
        assert natural_growth(root) is growth
        refused = [one.reason for one in obstacles(root, LIMITS, HOTADD)]
        assert any("larger than what memory grows by" in one for one in refused) is (growth is BALLOON)


def test_what_libvirt_is_told_that_its_qemu_lacks_is_not_grown_by() -> None:
    hidden = "<qemu:capabilities><qemu:del capability='device.pc-dimm'/></qemu:capabilities></domain>"
    assert natural_growth(parse_xml(with_room())) is HOTADD
    assert natural_growth(parse_xml(with_room().replace("</domain>", hidden))) is BALLOON


def test_a_name_is_what_libvirt_says_with_the_space_around_it() -> None:
    """What the start hook and libvirt's own look-ups call it: ` web ` and `web` are two domains."""
    spaced = Q35.replace("<name>web<", "<name> web <")
    assert (read_domain(spaced).name, Subject.of(spaced).name) == (" web ", " web ")
