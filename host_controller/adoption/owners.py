"""Tools that write a domain's XML themselves: what others write into it is lost, or fought over."""

from typing import Final
from xml.etree.ElementTree import Element

NAMESPACES: Final = {
    "http://openstack.org/xmlns/libvirt/nova/": "nova",
    "http://ovirt.org/vm/": "oVirt",
    "http://kubevirt.io": "KubeVirt",
    "http://opennebula.org/xmlns/libvirt/": "OpenNebula",
}
"""Beginnings of the namespaces that they use in <metadata>, and who they are."""
VAGRANTFILE: Final = "/Vagrantfile"
"""vagrant-libvirt has no metadata; its <description> names the file that the domain was made from."""


def owner_of(root: Element) -> str | None:
    """The tool that a domain belongs to; None where its definition is its user's own."""
    metadata = root.find("metadata")
    for one in () if metadata is None else metadata.iter():
        namespace = one.tag.partition("}")[0].removeprefix("{")
        for beginning, name in NAMESPACES.items():
            if namespace.startswith(beginning):
                return name
    description = (root.findtext("description") or "").strip()
    return "Vagrant" if description.startswith("Source: ") and description.endswith(VAGRANTFILE) else None
