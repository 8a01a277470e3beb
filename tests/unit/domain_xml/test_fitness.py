"""What `enable` refuses, with the element named and a way out that leads to acceptance."""

import pytest

from host_controller.core.model import Growth
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable
from host_controller.errors import DomainUnsuitable
from tests.unit.domain_xml.variants import (
    BALLOON,
    DIMM,
    HOTADD,
    LIMITS,
    NVDIMM,
    OWN_VIRTIO_MEM,
    VIRTIO_MEM,
    bound,
    named_balloon,
    on,
    with_args,
    with_cpu,
    with_device,
    with_memtune,
)
from tests.unit.hypervisor.domains import Q35, with_backing

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
    (with_args("-M", "pc-i440fx-2.0"), HOTADD, "'pc-i440fx-2.0' is too old"),
    (with_args("-machine", "type=isapc"), BALLOON, "'isapc' has no PCI bus"),
    # past libvirt in other ways
    (named_balloon(with_args("-set", "device.ua-mine.deflate-on-oom=on")), HOTADD, "ua-mine"),
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
