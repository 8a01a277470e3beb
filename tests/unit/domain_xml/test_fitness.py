"""What `enable` refuses, with the element named and a way out that leads to acceptance."""

from dataclasses import replace

import pytest

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable
from host_controller.errors import DomainUnsuitable
from host_controller.units import GIB, KIB, MIB
from tests.unit.hypervisor.domains import I440FX, LIVE, NUMA, Q35, with_backing

LIMITS = Limits(1 * GIB, 512 * MIB, 4 * GIB)
HOTADD, BALLOON, VIRTIO_MEM = Growth


def with_args(*words: str) -> str:
    """Q35 with these passed to QEMU."""
    start, end = Q35.index("    <qemu:arg"), Q35.index("  </qemu:commandline>")
    args = "".join(f"    <qemu:arg value='{word.replace(chr(34), '&quot;')}'/>\n" for word in words)
    return Q35[:start] + args + Q35[end:]


def with_device(device: str, xml: str = Q35) -> str:
    return xml.replace("<devices>", f"<devices>{device}", 1)


def on(machine: str, arch: str = "x86_64", xml: str = Q35) -> str:
    return xml.replace("pc-q35-7.2", machine).replace("arch='x86_64'", f"arch='{arch}'")


def with_cpu(inside: str, attributes: str = "mode='custom'", domain_type: str = "kvm") -> str:
    cpu = "<cpu mode='host-passthrough' check='none' migratable='on'/>"
    assert cpu in Q35
    return Q35.replace(cpu, f"<cpu {attributes}>{inside}</cpu>").replace(
        "type='kvm'", f"type='{domain_type}'"
    )


def with_memtune(inside: str) -> str:
    return Q35.replace("  <vcpu", f"  <memtune>{inside}</memtune>\n  <vcpu", 1)


def bound(inside: str, xml: str = Q35) -> str:
    return xml.replace("  <vcpu", f"  <numatune>{inside}</numatune>\n  <vcpu", 1)


NVDIMM = (
    "<memory model='nvdimm'><source><path>/n</path></source>"
    "<target><size unit='MiB'>256</size><node>0</node></target></memory>"
)
DIMM = "<memory model='dimm'><target><size unit='KiB'>524288</size><node>0</node></target></memory>"
OWN_VIRTIO_MEM = "<memory model='virtio-mem'><target><size unit='KiB'>1048576</size></target></memory>"

REFUSED = [
    # who runs it
    (Q35.replace("type='kvm'", "type='xen'"), HOTADD, "type 'xen'"),
    (Q35.replace("type='kvm'", "type='lxc'"), BALLOON, "type 'lxc'"),
    (Q35.replace("type='kvm'", "type='test'"), HOTADD, "type 'test'"),
    (Q35.replace(">hvm<", ">exe<"), HOTADD, "'exe'"),
    # machines and architectures
    (on("isapc"), HOTADD, "'isapc' has no PCI bus"),
    (on("microvm"), BALLOON, "'microvm' has no PCI bus"),
    (on("none"), HOTADD, "'none' has no PCI bus"),
    (on("xenfv"), HOTADD, "'xenfv'"),
    (on("pc-i440fx-2.0"), HOTADD, "too old"),
    (on("pc-1.2"), VIRTIO_MEM, "too old"),
    (on("rhel6.6.0"), HOTADD, "too old"),
    (on("pc", "i686"), HOTADD, "32 bits"),
    (on("virt", "armv7l"), HOTADD, "32 bits"),
    (on("virt", "riscv64"), HOTADD, "riscv64"),
    (on("virt", "riscv64"), VIRTIO_MEM, "riscv64"),
    (on("s390-ccw-virtio", "s390x"), HOTADD, "s390x"),
    (on("pseries", "ppc64le"), HOTADD, "ppc64le"),
    (on("virt-4.1", "aarch64"), HOTADD, "'virt-4.1' cannot hot-add"),
    (on("raspi3b", "aarch64"), HOTADD, "'raspi3b' cannot hot-add"),
    (on("virt", "aarch64").replace("    <acpi/>\n", ""), HOTADD, "UEFI"),
    (Q35.replace("    <acpi/>\n", ""), HOTADD, "ACPI is off"),
    (Q35.replace("    <acpi/>\n", ""), VIRTIO_MEM, "ACPI is off"),
    (with_args("-no-acpi"), HOTADD, "ACPI is off"),
    (with_args("-machine", "q35,acpi=off"), HOTADD, "ACPI is off"),
    (with_cpu("<model>pentium3</model>"), HOTADD, "pentium3"),
    (with_cpu("<model>qemu32</model>"), HOTADD, "qemu32"),
    # passed-through arguments
    *((with_args(*words), growth, f"`{' '.join(words[:2])}") for growth in (HOTADD, BALLOON) for words in (
        ("-m", "2048"),
        ("--m", "2G,slots=4,maxmem=8G"),
        ("-numa", "node,nodeid=1"),
        ("-mem-path", "/dev/hugepages"),
        ("-readconfig", "/etc/more.cfg"),
        ("-machine", "memory-backend=ram0"),
        ("-device", "pc-dimm,memdev=x,id=d0"),
        ("-device", "nvdimm,memdev=x"),
        ("-device", "virtio-mem-pci,memdev=x"),
        ("-device", "virtio-pmem-pci,memdev=x"),
        ("-device", "virtio-balloon-pci"),
        ("-device", '{"driver":"virtio-balloon-pci","id":"b"}'),
        ("-global", "virtio-balloon-pci.deflate-on-oom=on"),
        ("-global", "driver=pc-dimm,property=slot,value=3"),
        ("-set", "device.balloon0.deflate-on-oom=on"),
        ("-set", "memory.x.size=1G"),
    )),
    # past libvirt in other ways
    (Q35.replace("<qemu:commandline>", "<qemu:override><qemu:device alias='balloon0'><qemu:frontend>"
     "<qemu:property name='deflate-on-oom' type='bool' value='true'/></qemu:frontend></qemu:device>"
     "</qemu:override><qemu:commandline>"), BALLOON, r"'balloon0' \(deflate-on-oom\)"),
    (Q35.replace("<qemu:commandline>", "<qemu:capabilities><qemu:del capability='virtio-mem-pci'/>"
     "</qemu:capabilities><qemu:commandline>"), VIRTIO_MEM, "virtio-mem-pci"),
    # encryption
    (Q35.replace("<devices>", "<launchSecurity type='sev'/><devices>", 1), HOTADD, "encrypted.*sev"),
    (Q35.replace("<devices>", "<launchSecurity type='s390-pv'/><devices>", 1), BALLOON, "s390-pv"),
    (with_args("-object", "tdx-guest,id=tdx0"), HOTADD, "encrypted.*tdx-guest"),
    # memory devices
    (with_device(DIMM), HOTADD, "<memory model='dimm'>"),
    (with_device(DIMM), BALLOON, "<memory model='dimm'>"),
    (with_device(NVDIMM), HOTADD, "<memory model='nvdimm'>"),
    (with_device(OWN_VIRTIO_MEM), VIRTIO_MEM, "<memory model='virtio-mem'>"),
    (with_device(OWN_VIRTIO_MEM), HOTADD, "<memory model='virtio-mem'>"),
    # what holds on to pages
    (with_backing(Q35, "<locked/>"), BALLOON, "<locked/> pins"),
    (with_backing(Q35, "<locked/>"), VIRTIO_MEM, "locked"),
    (with_device("<hostdev mode='subsystem' type='pci'/>"), BALLOON, "<hostdev type='pci'> pins"),
    (with_device("<interface type='vdpa'/>"), VIRTIO_MEM, "vDPA"),
    (with_device("<disk type='nvme'/>"), BALLOON, "<disk type='nvme'> pins"),
    (with_args("-overcommit", "mem-lock=on"), BALLOON, "mem-lock=on pins"),
    (with_args("-device", "vfio-pci,host=0000:01:00.0"), BALLOON, "vfio-pci.* pins"),
    # page sizes
    (with_backing(Q35, "<hugepages><page size='1' unit='GiB'/></hugepages>"), HOTADD, "huge pages of 1 GiB"),
    (with_backing(Q35, "<hugepages><page size='1' unit='GiB'/></hugepages>"), VIRTIO_MEM, "larger than"),
    (with_backing(Q35, "<hugepages><page size='512' unit='MiB'/></hugepages>"), HOTADD, "512 MiB"),
    # limits
    (with_memtune("<hard_limit unit='G'>4</hard_limit>"), HOTADD, "hard_limit is 4 GiB"),
    (with_memtune("<swap_hard_limit unit='GB'>4</swap_hard_limit>"), BALLOON, "swap_hard_limit"),
    (with_memtune("<soft_limit unit='bytes'>1073741824</soft_limit>"), HOTADD, "soft_limit is 1 GiB"),
]  # fmt: skip


@pytest.mark.parametrize(("xml", "growth", "why"), REFUSED)
def test_what_cannot_be_is_refused_with_the_element_and_the_way_out(
    xml: str, growth: Growth, why: str
) -> None:
    with pytest.raises(DomainUnsuitable, match=f"(?s){why}") as refused:
        enable(xml, LIMITS, growth)
    assert refused.value.hint


@pytest.mark.parametrize(("xml", "growth", "why"), REFUSED)
def test_every_way_out_leads_on_until_it_is_accepted_and_can_be_undone(
    xml: str, growth: Growth, why: str
) -> None:
    for refusal in refusals(xml, LIMITS, growth):
        for way in refusal.ways_out:
            now = way.follow(xml, LIMITS, growth)
            for _ in range(4):
                left = refusals(*now)
                if not left:
                    break
                assert refusal.reason not in [one.reason for one in left], "the hint changed nothing"
                now = left[0].ways_out[0].follow(*now)
            after, limits, how = now
            prepared = enable(after, limits, how).xml
            assert enable(prepared, limits, how).xml == prepared
            assert disable(prepared) == after


def test_another_growth_is_only_offered_where_it_is_accepted() -> None:
    locked = with_backing(Q35, "<locked/>")
    with pytest.raises(DomainUnsuitable, match="use --growth hotadd") as refused:
        enable(locked, LIMITS, VIRTIO_MEM)
    assert "balloon" not in str(refused.value)
    enable(locked, LIMITS, HOTADD)


ACCEPTED = [
    (on("pc"), HOTADD),
    (on("q35"), VIRTIO_MEM),
    (on("pc-i440fx-2.1"), HOTADD),
    (on("pc-q35-rhel7.6.0"), HOTADD),
    (on("pc-i440fx-focal"), HOTADD),
    (on("virt", "aarch64"), HOTADD),
    (on("virt-4.2", "aarch64"), VIRTIO_MEM),
    (on("virt", "riscv64"), BALLOON),
    (on("s390-ccw-virtio", "s390x"), BALLOON),
    (on("pc", "i686"), BALLOON),
    (Q35.replace("    <acpi/>\n", ""), BALLOON),
    (with_args("-object", "memory-backend-ram,id=shm,size=64M", "-mem-prealloc"), HOTADD),
    (with_args("-overcommit", "mem-lock=off", "-snapshot", "-m2"), HOTADD),
    (with_args("-machine", "q35,nvdimm=on"), HOTADD),
    (with_args("-device", "virtio-rng-pci", "-global", "PIIX4_PM.disable_s3=1"), BALLOON),
    (with_device(NVDIMM), BALLOON),
    (with_device(OWN_VIRTIO_MEM), BALLOON),
    (with_device("<hostdev mode='subsystem' type='usb'/>"), BALLOON),
    (with_device("<hostdev mode='subsystem' type='mdev' model='vfio-ap'/>"), BALLOON),
    (with_device("<hostdev mode='subsystem' type='mdev' model='vfio-ccw'/>"), VIRTIO_MEM),
    (with_device("<interface type='vdpa'/>"), HOTADD),
    (with_device("<filesystem><driver type='virtiofs'/></filesystem>"), HOTADD),
    (with_backing(Q35, "<hugepages><page size='2' unit='MiB'/></hugepages>"), VIRTIO_MEM),
    (with_backing(Q35, "<source type='memfd'/><access mode='shared'/>"), HOTADD),
    (with_memtune("<hard_limit unit='KiB'>9007199254740991</hard_limit>"), HOTADD),
    (with_memtune("<hard_limit unit='G'>5</hard_limit>"), HOTADD),
    (Q35.replace("memballoon model='virtio'", "memballoon model='none'"), HOTADD),
    (Q35.replace("memballoon model='virtio'", "memballoon model='virtio-transitional'"), HOTADD),
    (Q35.replace("memballoon model='virtio'", "memballoon model='virtio-non-transitional'"), BALLOON),
    *((bound(f"<memory mode='{mode}' nodeset='0'/>"),
       HOTADD) for mode in ("strict", "interleave", "preferred", "restrictive")),
]  # fmt: skip


@pytest.mark.parametrize(("xml", "growth"), ACCEPTED)
def test_what_can_be_is_accepted_once_and_again_and_comes_back(xml: str, growth: Growth) -> None:
    prepared = enable(xml, LIMITS, growth).xml
    assert enable(prepared, LIMITS, growth).xml == prepared
    assert disable(prepared) == xml
    view = read_domain(prepared)
    assert view.config is not None
    assert view.problems == ()


# --- the guest boots ---


@pytest.mark.parametrize("growth", [HOTADD, VIRTIO_MEM])
def test_a_startup_that_the_bounce_buffer_eats_is_refused(growth: Growth) -> None:
    small = Limits(128 * MIB, 64 * MIB, GIB)
    with pytest.raises(
        DomainUnsuitable, match=r"128 MiB.*64 MiB aside.*--growth balloon, or.*--startup 160M"
    ):
        enable(Q35, small, growth)
    enable(Q35, small, BALLOON)
    enable(Q35, replace(small, startup_bytes=160 * MIB), growth)


def test_what_enable_costs_and_changes_is_said() -> None:
    said = "\n".join(enable(Q35, LIMITS, HOTADD).notes)
    for part in ("64 MiB of startup aside", "virsh setmaxmem", "setvcpus --maximum", "MemTotal"):
        assert part in said
    assert "setmaxmem" not in "\n".join(enable(NUMA, LIMITS, HOTADD).notes), "it had a cell already"
    said = "\n".join(enable(I440FX, replace(LIMITS, maximum_bytes=2 * GIB), BALLOON).notes)
    assert "aside" not in said
    assert "setmaxmem" not in said


@pytest.mark.parametrize(
    ("xml", "part"),
    [
        (Q35.replace("balloon model='virtio'", "balloon model='none'"), "in place of model 'none'"),
        (with_backing(Q35, "<allocation mode='immediate'/>"), "allocated at once"),
        (bound("<memory mode='strict' nodeset='1'/>"), "node 1"),
        (bound("<memnode cellid='0' mode='strict' nodeset='2'/>", NUMA),
         "node 2"),
        (bound("<memory mode='interleave' placement='auto'/>"),
         "node auto"),
    ],
)  # fmt: skip
def test_what_memory_will_do_is_said(xml: str, part: str) -> None:
    assert part in "\n".join(enable(xml, LIMITS, HOTADD).notes)


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
        assert f"virsh memtune web --hard-limit {(4 * GIB + 272 * MIB) // KIB} --config" in str(refused.value)
        (refusal,) = refusals(xml, LIMITS, HOTADD)
        raised, lowered = (way.follow(xml, LIMITS, HOTADD) for way in refusal.ways_out)
        enable(*raised)
        enable(*lowered)
        assert 3 * GIB < lowered[1].maximum_bytes < 4 * GIB


def test_figures_that_round_to_the_same_are_told_apart() -> None:
    xml = with_memtune(f"<hard_limit unit='KiB'>{(4 * GIB + 272 * MIB) // KIB - 1}</hard_limit>")
    with pytest.raises(DomainUnsuitable, match=r"hard_limit is 4367 MiB.* needs 4368 MiB"):
        enable(xml, LIMITS, HOTADD)


def test_without_kvm_the_translation_cache_is_in_the_limit() -> None:
    kvm = with_memtune("<hard_limit unit='GiB'>5</hard_limit>")
    enable(kvm, LIMITS, HOTADD)
    tcg = kvm.replace("type='kvm'", "type='qemu'")
    with pytest.raises(DomainUnsuitable, match="hard_limit"):
        enable(tcg, LIMITS, HOTADD)
    small = "<features>\n    <tcg><tb-cache unit='MiB'>64</tb-cache></tcg>"
    enable(tcg.replace("<features>", small), LIMITS, HOTADD)


# --- addresses ---


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
    ],
)
def test_a_maximum_beyond_the_processors_addresses_is_refused_with_one_that_fits(
    xml: str, maximum: int, host_bits: int | None, fits: bool
) -> None:
    limits = replace(LIMITS, maximum_bytes=maximum)
    found = refusals(xml, limits, HOTADD, host_bits)
    assert (not found) is fits, found
    for one in found:
        assert "address bits" in one.reason
        for way in one.ways_out:
            if way.limits is not None or "-cpu" not in xml:
                assert refusals(*way.follow(xml, limits, HOTADD), host_bits) == ()
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
