"""What the engine leaves alone for now: in maintenance, or not managed. No I/O.

Its scheduler tells of nothing that it would do to such a resource afterwards (fact: maintenance-hides).
"""

from typing import Final
from xml.etree import ElementTree

from host_controller.fleet.pacemaker.cib import MAINTENANCE, Cib, read_cib

MANAGED: Final = {
    MAINTENANCE: "false",
    "maintenance": "false",
    "is-managed": "true",
    "is-managed-default": "true",
}
"""Options of the cluster, and attributes of nodes and resources, by which nothing is left alone."""


def as_managed(text: bytes) -> Cib:
    """A configuration in which nothing is left alone.

    Raises:
        EngineError: it is none.
    """
    cib = read_cib(text)
    for pair in cib.root.iter("nvpair"):
        name = pair.get("name", "")
        if name in MANAGED:
            pair.set("value", MANAGED[name])
    return read_cib(ElementTree.tostring(cib.root))
