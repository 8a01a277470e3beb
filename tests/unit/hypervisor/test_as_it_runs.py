"""Limits that were judged when a VM was prepared are carried out as far as what runs bears them."""

from typing import Any

import pytest

from host_controller.core.model import Growth, Limits
from host_controller.domain_xml.edit import enable
from host_controller.domain_xml.read import read_domain
from host_controller.domain_xml.view import DomainView
from host_controller.host.limits import Limit
from host_controller.hypervisor import libvirt_calls
from host_controller.hypervisor.as_it_runs import SEVERAL_DEVICES
from host_controller.units import GIB, KIB, MIB
from tests.unit.hypervisor.domains import LIVE, Q35
from tests.unit.hypervisor.test_inspection import Connection, Domain

LIMITS = Limits(4 * GIB, 512 * MIB, 8 * GIB)
SECOND = (
    "<memory model='virtio-mem'><target><size unit='GiB'>4</size><node>0</node><block unit='MiB'>2</block>"
    "<requested unit='GiB'>1</requested><current unit='GiB'>1</current></target></memory>"
)


def looked_at(xml: str, limit: Limit | None = None) -> DomainView:
    connection: Any = Connection(Domain(xml=xml))
    found = libvirt_calls.inspect(connection, "uuid", own_limit=lambda _uuid, _owner: limit)
    assert found is not None
    return found.view


def with_second_device(xml: str) -> str:
    return xml.replace("  </devices>", f"    {SECOND}\n  </devices>", 1)


def test_what_was_prepared_and_left_so_is_carried_out_as_it_is() -> None:
    prepared = enable(Q35, LIMITS, Growth.VIRTIO_MEM).xml
    assert looked_at(prepared) == read_domain(prepared)


def test_of_several_virtio_mem_devices_none_is_asked_for_a_size() -> None:
    """The sum is what libvirt's figures say: our device would get a size that counts the other's memory."""
    config = looked_at(with_second_device(enable(Q35, LIMITS, Growth.VIRTIO_MEM).xml)).config
    assert config is not None
    assert (config.growth, config.pinned) == (Growth.BALLOON, SEVERAL_DEVICES)
    assert config.virtio_mem_bytes == 10 * GIB, "all of it is charged as it comes"
    assert config.limits.startup_bytes == config.boot_ram_bytes == 2 * GIB
    assert not config.limits.problems()


@pytest.mark.parametrize("name", ["hard_limit", "swap_hard_limit", "soft_limit"])
def test_a_memtune_limit_that_came_after_enable_bounds_the_maximum(name: str) -> None:
    """The host's kernel would kill QEMU, or hold it, on the way there."""
    limit = f"<memtune><{name} unit='KiB'>{3 * GIB // KIB}</{name}></memtune>"
    live = LIVE.replace('maximum="2097152"', 'maximum="8388608"').replace("2097152", "8388608")
    assert looked_at(live).config == read_domain(live).config
    tight = live.replace("  <vcpu", f"  {limit}<vcpu", 1)
    view = looked_at(tight)
    assert view.config is not None
    assert GIB < view.config.limits.maximum_bytes < 3 * GIB
    assert any(name in one for one in view.problems)
    assert read_domain(tight).config == read_domain(live).config, "its definition is as its user wants it"


def test_a_limit_on_its_control_group_that_libvirt_does_not_tell_bounds_the_maximum() -> None:
    """`systemctl set-property machine-qemu….scope MemoryMax=3G` stands in no XML."""
    live = LIVE.replace('maximum="2097152"', 'maximum="8388608"').replace("2097152", "8388608")
    view = looked_at(live, Limit(3 * GIB, "memory.max of machine-qemu.scope"))
    assert view.config is not None
    assert GIB < view.config.limits.maximum_bytes < 3 * GIB
    assert any("memory.max of machine-qemu.scope of 3 GiB bounds it" in one for one in view.problems)
    assert view.config.defaults == (("maximum", "memory.max of machine-qemu.scope"),)
    assert (
        looked_at(live, Limit(32 * GIB, "memory.max of machine-qemu.scope")).config
        == read_domain(live).config
    )


def test_of_two_limits_the_tighter_one_counts() -> None:
    live = LIVE.replace('maximum="2097152"', 'maximum="8388608"').replace("2097152", "8388608")
    both = live.replace("  <vcpu", "  <memtune><hard_limit unit='GiB'>5</hard_limit></memtune><vcpu", 1)
    limit = Limit(3 * GIB, "memory.high of x.scope")
    found, alone = looked_at(both, limit), looked_at(live, limit)
    assert (found.config, found.problems) == (alone.config, alone.problems)


@pytest.mark.parametrize(("plugged", "slots"), [(0, 4), (3, 4), (6, 6)])
def test_beside_a_vhost_user_back_end_slots_that_no_dimm_can_have_are_none(plugged: int, slots: int) -> None:
    """Prepared before that was known, or adopted with slots of its own."""
    dimm = "<memory model='dimm'><target><size unit='MiB'>128</size></target><alias name='dimm{}'/></memory>"
    dimms = "".join(dimm.format(one) for one in range(plugged))
    xml = enable(Q35, LIMITS, Growth.HOTADD).xml.replace("  </devices>", f"{dimms}  </devices>")
    served = xml.replace("  </devices>", "<interface type='vhostuser'/>  </devices>")
    passed = "<qemu:arg value='-netdev'/><qemu:arg value='vhost-user,id=n,chardev=c'/></qemu:commandline>"
    also_served = xml.replace("</qemu:commandline>", passed)
    for text, found in ((xml, 16), (served, slots), (also_served, slots)):
        config = looked_at(text).config
        assert config is not None
        assert config.slots == found
