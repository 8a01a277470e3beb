"""What libvirt's networks say about the memory of domains that use them. Blocking calls, for commands."""

from typing import Any
from xml.etree import ElementTree

import libvirt


def device_networks(connection: Any) -> frozenset[str]:
    """Names of the networks that hand out devices of the host, running or not; none where nobody says."""
    try:
        networks = connection.listAllNetworks()
    except libvirt.libvirtError:  # a driver, or a host, without networks
        return frozenset()
    return frozenset(str(one.name()) for one in networks if _hands_out(one))


def _hands_out(network: Any) -> bool:
    try:
        root = ElementTree.fromstring(network.XMLDesc())  # noqa: S314 # libvirt's own
    except (libvirt.libvirtError, ElementTree.ParseError):  # it went while we looked: no other goes with it
        return False
    forward = root.find("forward")
    return forward is not None and forward.get("mode") == "hostdev"
