"""Memory devices as libvirt is told of them: XML for attaching and updating one. Pure."""

from xml.etree import ElementTree

from host_controller.errors import DomainNotFound
from host_controller.units import KIB


def dimm_xml(size_bytes: int) -> str:
    """A DIMM of so many bytes on NUMA node 0, to be attached."""
    return (
        f"<memory model='dimm'><target><size unit='KiB'>{size_bytes // KIB}</size>"
        "<node>0</node></target></memory>"
    )


def resized(xml: str, requested_bytes: int) -> str:
    """The virtio-mem device of a running domain's XML, as it is asked for so much."""
    root = ElementTree.fromstring(xml)  # noqa: S314 # libvirt's own XML
    device = root.find("./devices/memory[@model='virtio-mem']")
    requested = None if device is None else device.find("./target/requested")
    if device is None or requested is None:
        raise DomainNotFound("there is no virtio-mem device")
    requested.set("unit", "KiB")
    requested.text = str(requested_bytes // KIB)
    return ElementTree.tostring(device, encoding="unicode")
