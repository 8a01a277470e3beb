"""Ports of virtio-serial controllers, where channels and consoles hang. Pure."""

from typing import Final
from xml.etree.ElementTree import Element

from host_controller.domain_xml.values import attribute_number

PORTS: Final = 31
"""Of a controller that does not say how many it has (QEMU's default). No channel may have the first, 0."""


def has_free_port(root: Element) -> bool:
    """Whether a channel finds a port on the controllers that are there."""
    controllers = root.findall("./devices/controller[@type='virtio-serial']")
    ports = sum((attribute_number(one, "ports") or PORTS) - 1 for one in controllers)
    hanging = [*root.findall("./devices/channel"), *root.findall("./devices/console")]
    return sum(map(_has_port, hanging)) < ports


def _has_port(device: Element) -> bool:
    """It has one that a channel could have."""
    address = device.find("address")
    first = address is not None and address.get("port") == "0"
    return device.find("./target[@type='virtio']") is not None and not first
