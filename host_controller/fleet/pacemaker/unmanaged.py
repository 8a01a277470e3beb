"""What the engine leaves alone for now: in maintenance, or not managed. No I/O.

Its scheduler tells of nothing that it would do to such a resource afterwards (fact: maintenance-hides).
"""

from typing import Final
from xml.etree import ElementTree

from host_controller.fleet.pacemaker.bounded_xml import read_xml
from host_controller.fleet.pacemaker.cib import MAINTENANCE

MANAGED: Final = {
    MAINTENANCE: "false",
    "maintenance": "false",
    "is-managed": "true",
    "is-managed-default": "true",
}
"""Options of the cluster, and attributes of nodes and resources, by which nothing is left alone."""


def as_managed(text: bytes) -> bytes:
    """A configuration with nothing left alone; the same where nothing is.

    Raises:
        EngineError: it is none.
    """
    root = read_xml(text, "cib")
    for pair in root.iter("nvpair"):
        name = pair.get("name", "")
        if name in MANAGED:
            pair.set("value", MANAGED[name])
    return ElementTree.tostring(root)
