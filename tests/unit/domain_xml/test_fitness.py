"""What `enable` refuses, with the element named and a way out that leads to acceptance."""

import pytest

from host_controller.core.model import Growth
from host_controller.domain_xml.arguments import QEMU
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.fitness.refusal import LEFT_ALONE
from host_controller.domain_xml.growth_choice import choose
from host_controller.domain_xml.host_abilities import HostAbilities
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.restore import disable
from host_controller.errors import DomainUnsuitable
from tests.support.definitions import (
    ACCEPTED,
    BALLOON,
    DIMM,
    HOTADD,
    LIMITS,
    REFUSED,
    VIRTIO_MEM,
    on,
    with_args,
    with_device,
    with_memtune,
)
from tests.unit.hypervisor.domains import Q35, with_backing


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


@pytest.mark.parametrize(
    "written",
    [
        "<commandline xmlns='{0}'><arg value='-m'/><arg value='2G'/></commandline>",
        "<q:commandline xmlns:q='{0}'><q:arg value='-m'/><q:arg value='2G'/></q:commandline>",
        "<q:override xmlns:q='{0}'><q:device alias='balloon0'/></q:override>",
        "<capabilities xmlns='{0}'><del capability='virtio-mem-pci'/></capabilities>",
        "<commandline xmlns='{0}'><arg value='-append'/><arg value='mem=1G'/></commandline>",
    ],
)
def test_what_is_passed_to_qemu_may_have_any_prefix(written: str) -> None:
    """libvirt writes `qemu:`. A file need not, and the way out was not told of."""
    xml = Q35[: Q35.index("  <qemu:commandline>")] + written.format(QEMU) + "</domain>"
    (refusal,) = refusals(xml, LIMITS, VIRTIO_MEM)
    way = next(one for one in refusal.ways_out if one.edit is not None)
    assert not refusals(*way.follow(xml, LIMITS, VIRTIO_MEM))


@pytest.mark.parametrize(
    ("xml", "growth"),
    [
        (with_backing(on("isapc"), "<locked/>"), VIRTIO_MEM),
        (on("microvm", xml=with_args("-M", "pc,acpi=off", "-m", "2G")), HOTADD),
        (with_device(DIMM).replace("type='kvm'", "type='xen'"), HOTADD),
        (on("none", xml=with_memtune("<hard_limit unit='G'>1</hard_limit>")), BALLOON),
    ],
)
def test_where_one_obstacle_stays_no_way_around_the_others_is_offered(xml: str, growth: Growth) -> None:
    found = refusals(xml, LIMITS, growth)
    assert len(found) > 1
    assert {one.hint for one in found} == {LEFT_ALONE}


def test_an_argument_that_is_itself_the_obstacle_is_a_way_out_for_all() -> None:
    hints = [one.hint for one in refusals(with_args("-M", "q35,acpi=off", "-m", "2G"), LIMITS, HOTADD)]
    assert len(hints) == 2
    assert LEFT_ALONE not in hints


def test_another_growth_is_only_offered_where_it_is_accepted() -> None:
    locked = with_backing(Q35, "<locked/>")
    with pytest.raises(DomainUnsuitable, match="use --growth hotadd") as refused:
        enable(locked, LIMITS, VIRTIO_MEM)
    assert "balloon" not in str(refused.value)
    enable(locked, LIMITS, HOTADD)


@pytest.mark.parametrize(("xml", "growth"), ACCEPTED)
def test_what_can_be_is_accepted_once_and_again_and_comes_back(xml: str, growth: Growth) -> None:
    prepared = enable(xml, LIMITS, growth).xml
    assert enable(prepared, LIMITS, growth).xml == prepared
    assert disable(prepared) == xml
    view = read_domain(prepared)
    assert view.config is not None
    assert view.problems == ()


ENDLESS = "9" * 5000
"""Digits. Python reads no such number."""


@pytest.mark.parametrize(
    "xml",
    [
        on(f"pc-{ENDLESS}.1"),
        on(f"virt-{ENDLESS}.1", "aarch64"),
        with_backing(Q35, f"<hugepages><page size='2' unit='MiB' nodeset='{ENDLESS}'/></hugepages>"),
        with_backing(Q35, f"<hugepages><page size='2' unit='MiB' nodeset='0-{ENDLESS}'/></hugepages>"),
        with_device(f"<controller type='pci' model='pcie-root-port' index='{ENDLESS}'/>"),
        with_args("-append", f"swiotlb={ENDLESS}"),
        Q35.replace(
            "<metadata>",
            "<metadata><x:libosinfo xmlns:x='http://libosinfo.org/xmlns/libvirt/domain/1.0'>"
            f"<x:os id='http://debian.org/debian/{ENDLESS}'/></x:libosinfo>",
        ),
    ],
    ids=["machine", "virt", "nodeset", "nodes", "index", "kernel", "libosinfo"],
)
def test_a_number_of_thousands_of_digits_ends_nothing(xml: str) -> None:
    assert ENDLESS in xml
    read_domain(xml)
    choose(xml, LIMITS, HostAbilities())
    for growth in Growth:
        if not refusals(xml, LIMITS, growth):
            prepared = enable(xml, LIMITS, growth).xml
            disable(prepared.replace("<devices>", f"<devices>{LATER}", 1))


LATER = f"<controller type='pci' model='pcie-root-port' index='{ENDLESS}'/>"
"""What somebody has added since."""
