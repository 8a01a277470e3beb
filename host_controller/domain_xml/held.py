"""A mark in a running domain's XML: its operator has paused its management (`dynmem pause`). Pure.

    <held:held xmlns:held="urn:dynmem:held:1"/>

What a controller remembers stays on its host. The mark goes along where the VM is migrated or restored (fact:
paused-goes-along), and the controller there leaves the VM alone, too.
"""

from typing import Final
from xml.etree.ElementTree import Element

NAMESPACE: Final = "urn:dynmem:held:1"
PREFIX: Final = "held"
ELEMENT: Final = "<held/>"
"""As virDomainSetMetadata wants it: without prefix and namespace."""
_TAG: Final = f"{{{NAMESPACE}}}held"


def is_held(root: Element) -> bool:
    """Whether a <domain> has the mark."""
    return root.find(f"./metadata/{_TAG}") is not None
