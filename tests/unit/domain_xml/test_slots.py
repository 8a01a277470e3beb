"""PCI devices that `enable` brings find a slot, or it says before anything is written that they do not."""

import pytest

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.fitness.judge import refusals
from host_controller.domain_xml.growth_choice import choose
from host_controller.domain_xml.host_abilities import NOTHING_KNOWN
from host_controller.domain_xml.ports import has_free_port
from host_controller.domain_xml.restore import disable
from host_controller.domain_xml.values import parse_xml
from host_controller.units import MIB
from tests.support.slots import BALLOON, FULL, HOTADD, ROOMY, VIRTIO_MEM, conventional, express, serial

LIMITS = Limits(512 * MIB, 256 * MIB, 2048 * MIB)


@pytest.mark.parametrize(("xml", "growth", "what"), FULL)
def test_without_a_slot_for_what_it_brings_enable_refuses_and_names_a_device_that_can_go_elsewhere(
    xml: str, growth: Growth, what: str
) -> None:
    (refused,) = refusals(xml, LIMITS, growth)
    assert refused.reason == f"its PCI bus has no slot left for what comes in ({what})"
    way = refused.ways_out[-1]
    assert "out of its <rng> with virsh edit" in way.say
    after, *asked = way.follow(xml, LIMITS, growth)
    assert after.count("<address type='pci'") == xml.count("<address type='pci'") - 1
    assert not refusals(after, *asked)


@pytest.mark.parametrize(("xml", "growth"), ROOMY)
def test_where_libvirt_can_make_room_it_is_prepared(xml: str, growth: Growth) -> None:
    assert disable(enable(xml, LIMITS, growth).xml) == xml


def test_a_machine_to_which_libvirt_adds_roots_is_never_full() -> None:
    pseries = conventional(31).replace("arch='x86_64' machine='pc'", "arch='ppc64le' machine='pseries'")
    expander = "<controller type='pci' index='1' model='pci-expander-bus'/>"
    assert refusals(conventional(31), LIMITS, BALLOON)
    assert not refusals(pseries, LIMITS, BALLOON)
    assert not refusals(conventional(31, more=expander), LIMITS, BALLOON)


def test_growth_without_a_device_of_its_own_is_chosen_where_that_has_no_slot() -> None:
    growth, why = choose(express(6), LIMITS, NOTHING_KNOWN)
    assert growth is HOTADD
    assert any("no slot left" in one for one in why)
    (refused,) = refusals(express(6), LIMITS, VIRTIO_MEM)
    assert refused.ways_out[0].growth is HOTADD


def test_a_console_at_the_first_port_takes_none_that_a_channel_could_have() -> None:
    console = "<console type='pty'><target type='virtio'/><address type='virtio-serial' port='{}'/></console>"
    for port, free in (("0", True), ("1", False)):
        assert has_free_port(parse_xml(express(1, more=serial(1, 0, "") + console.format(port)))) is free
