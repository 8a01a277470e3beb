"""Which networks hand out devices of the host, by libvirt's own test driver."""

from types import SimpleNamespace
from typing import Any

import libvirt

from host_controller.hypervisor.networks import device_networks

POOL = "<address type='pci' domain='0' bus='4' slot='0' function='1'/>"


def test_only_networks_that_hand_out_devices_are_told_also_while_they_are_off() -> None:
    connection = libvirt.open("test:///default")
    for name, forward in (
        ("pool", f"<forward mode='hostdev' managed='yes'>{POOL}</forward>"),
        (
            "routed",
            "<forward mode='nat'/><bridge name='virbr7'/><ip address='10.9.9.1' netmask='255.255.255.0'/>",
        ),
        ("alone", "<bridge name='virbr8'/>"),
    ):
        connection.networkDefineXML(f"<network><name>{name}</name>{forward}</network>")
    assert device_networks(connection) == {"pool"}
    connection.close()


def test_where_nobody_says_there_are_none() -> None:
    def refuses() -> Any:
        raise libvirt.libvirtError("no networks here")

    gone = SimpleNamespace(name=lambda: "pool", XMLDesc=refuses)
    for listed in (refuses, lambda: [gone]):
        assert device_networks(SimpleNamespace(listAllNetworks=listed)) == frozenset()


def test_a_network_that_goes_while_it_is_looked_at_hides_no_other() -> None:
    """Else a VM with a device of the host was offered growth by balloon, which would free nothing."""

    def refuses() -> Any:
        raise libvirt.libvirtError("network not found")

    pool = "<network><name>pool</name><forward mode='hostdev'/></network>"
    listed = [
        SimpleNamespace(name=lambda: "gone", XMLDesc=refuses),
        SimpleNamespace(name=lambda: "pool", XMLDesc=lambda: pool),
    ]
    assert device_networks(SimpleNamespace(listAllNetworks=lambda: listed)) == {"pool"}
