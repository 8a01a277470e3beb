"""What libvirt's networks say about the memory of domains that use them. Blocking calls, for commands."""

from typing import Any
from xml.etree import ElementTree

import libvirt


def device_networks(connection: Any) -> frozenset[str]:
    """Names of the networks that hand out devices of the host, running or not; none where nobody says."""
    try:
        return frozenset(
            str(one.name()) for one in connection.listAllNetworks() if _hands_out(str(one.XMLDesc()))
        )
    except (libvirt.libvirtError, ElementTree.ParseError):  # a driver, or a host, without networks
        return frozenset()


def _hands_out(xml: str) -> bool:
    forward = ElementTree.fromstring(xml).find("forward")  # noqa: S314 # libvirt's own
    return forward is not None and forward.get("mode") == "hostdev"
