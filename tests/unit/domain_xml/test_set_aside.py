"""What a guest's kernel takes for good while it boots: `enable` knows it, and refuses what cannot boot."""

from dataclasses import replace

import pytest

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable
from host_controller.domain_xml.set_aside import set_aside
from host_controller.domain_xml.values import parse_xml
from host_controller.errors import DomainUnsuitable
from host_controller.units import GIB, MIB
from tests.support.definitions import BALLOON, HOTADD, VIRTIO_MEM, started_with, with_args
from tests.unit.hypervisor.domains import Q35


def with_vcpus(count: int, attributes: str = "placement='static'") -> str:
    return Q35.replace("<vcpu placement='static'>4<", f"<vcpu {attributes}>{count}<")


def with_tseg(tseg: str, state: str = "on") -> str:
    return Q35.replace("    <acpi/>\n", f"    <acpi/>\n    <smm state='{state}'>{tseg}</smm>\n")


@pytest.mark.parametrize(
    ("line", "mib"),
    [
        ("quiet", 0),
        ("crashkernel=256M", 256),
        ('crashkernel="256M" ro', 256),
        ("crashkernel=0x10000000@16M", 256),
        ("crashkernel=64M crashkernel=128M", 128),
        ("crashkernel=512M,high crashkernel=72M,low", 584),
        ("crashkernel=64M crashkernel=128M,cma", 64),
        ("crashkernel=512M-2G:64M,2G-:128M", 64),
        ("crashkernel=1G-2G:64M,2G-8G:192M,8G-:256M@16M", 64),
        ("crashkernel=2G-:128M", 0),
        ("crashkernel=auto crashkernel=,high", 0),
        ("hugepages=100", 200),
        ("hugepages=100 default_hugepagesz=1G", 100 * 1024),
        ("default_hugepagesz=1G hugepages=2 hugepagesz=2M hugepages=8", 2064),
        ("hugepagesz=1G hugepages=0:1,1:2", 3072),
        ("hugepages=x hugepagesz=y hugepages=3", 0),
        ("ro -- hugepages=100 crashkernel=256M", 0),
        ("cma=512M", 0),
    ],
)
def test_what_a_kernel_is_told_to_take_is_known_in_every_spelling(line: str, mib: int) -> None:
    for xml in (started_with(line), with_args("-kernel", "/k", "-append", line)):
        found = set_aside(parse_xml(xml), GIB)
        assert (found.told // MIB, found.bounce // MIB, found.processors) == (mib, 64, 0)
        assert bool(found.words) == bool(mib)


def test_the_firmwares_own_memory_is_none_of_the_guests() -> None:
    found = {
        mib: set_aside(parse_xml(with_tseg(tseg, state)), GIB).told // MIB
        for mib, tseg, state in (
            (48, "<tseg unit='MiB'>48</tseg>", "on"),
            (16, "<tseg>16</tseg>", "on"),
            (0, "<tseg unit='MiB'>48</tseg>", "off"),
            (-1, "", "on"),
        )
    }
    assert found == {48: 48, 16: 16, 0: 0, -1: 0}


@pytest.mark.parametrize(
    ("xml", "growth", "maximum", "least_mib", "why"),
    [
        (with_vcpus(255), HOTADD, GIB, 160 + 239, "239 MiB for its many vCPUs"),
        (with_vcpus(255, "current='2'"), HOTADD, GIB, 160 + 239, "239 MiB for its many vCPUs"),
        (with_vcpus(64), BALLOON, GIB, 96 + 16 + 48, "48 MiB for its many vCPUs"),
        (started_with("crashkernel=256M"), HOTADD, GIB, 160 + 256, "256 MiB as it is told .`crash"),
        (started_with("hugepages=512"), BALLOON, 2 * GIB, 96 + 32 + 1024, "1 GiB as it is told .`hugep"),
        (started_with("hugepages=512"), HOTADD, 2 * GIB, 160 + 1024, "aside for old devices, and 1 GiB"),
        (with_tseg("<tseg unit='MiB'>512</tseg>"), HOTADD, GIB, 160 + 512, "512 MiB as it is told .`<tseg>`"),
    ],
)  # fmt: skip
def test_a_startup_that_this_eats_is_refused_with_what_eats_it(
    xml: str, growth: Growth, maximum: int, least_mib: int, why: str
) -> None:
    least = Limits(least_mib * MIB, 64 * MIB, maximum)
    with pytest.raises(DomainUnsuitable, match=f"(?s){why}.*give --startup {least_mib}M or more"):
        enable(xml, replace(least, startup_bytes=least.startup_bytes - MIB), growth)
    plan = enable(xml, least, growth)
    assert enable(plan.xml, least, growth).xml == plan.xml
    assert disable(plan.xml) == xml
    assert any(why.split(" .")[0].split(", and ")[-1] in note for note in plan.notes)


def test_with_virtio_mem_it_boots_with_room_for_all_of_it() -> None:
    limits = Limits(2 * GIB, 128 * MIB, 2 * GIB)
    plain = read_domain(enable(Q35, limits, VIRTIO_MEM).xml)
    many = read_domain(enable(with_vcpus(64), limits, VIRTIO_MEM).xml)
    crash = read_domain(enable(started_with("crashkernel=512M"), limits, VIRTIO_MEM).xml)
    # 256 for the kernel, 64 for the bounce buffer, 32 to describe 2 GiB, to a block.
    assert [one.boot_ram_bytes // MIB for one in (plain, many, crash)] == [512, 512, 896]


def test_sixteen_processors_ask_for_nothing_more() -> None:
    assert set_aside(parse_xml(with_vcpus(16)), GIB).processors == 0
    assert set_aside(parse_xml(with_vcpus(17)), GIB).processors == MIB
