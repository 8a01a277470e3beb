"""Changes of the engine's configuration that move VMs: a VM pinned to a host for a move, a host in standby.

No I/O. Each gives the next version of a configuration, which its scheduler is asked about before it is
committed. Pins carry our prefix, so that whoever comes after an arbiter that died finds and clears them.
"""

from collections.abc import Collection
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.fleet.errors import EngineError
from host_controller.fleet.pacemaker.cib import Cib, next_version

PREFIX: Final = "dynmem-move-"
AVOID: Final = "dynmem-avoid-"
"""Of bans of a drain: destinations that refused a VM. They last as long as the drain."""
STANDBY: Final = "dynmem-drain"
"""The value of our own mark beside `standby`, by which `undrain` knows a drain of ours."""


def pinned(cib: Cib, vm: str, node: str) -> bytes:
    """The VM is to be on this node."""
    root = next_version(cib)
    attributes = {"id": f"{PREFIX}{vm}", "rsc": vm, "node": node, "score": "INFINITY"}
    _constraints(root).append(Element("rsc_location", attributes))
    return ElementTree.tostring(root)


def pins(cib: Cib) -> tuple[str, ...]:
    """VMs that are pinned by us."""
    found = cib.root.iterfind("configuration/constraints/rsc_location")
    return tuple(one.get("rsc", "") for one in found if one.get("id", "").startswith(PREFIX))


def unpinned(cib: Cib, vms: Collection[str]) -> bytes:
    """Without our pins of these VMs."""
    root = next_version(cib)
    constraints = _constraints(root)
    for one in list(constraints):
        if str(one.get("id", "")).startswith(PREFIX) and one.get("rsc") in vms:
            constraints.remove(one)
    return ElementTree.tostring(root)


def in_standby(cib: Cib, node: str, avoid: Collection[tuple[str, str]] = ()) -> bytes:
    """The node takes no VMs, and gives away those that it has. `avoid`: a VM, and where it is not to go."""
    root = next_version(cib)
    _allow(root, node)
    for vm, other in sorted(avoid):
        identity = {"id": f"{AVOID}{node}-{vm}-{other}", "rsc": vm, "node": other, "score": "-INFINITY"}
        _constraints(root).append(Element("rsc_location", identity))
    element = _node(root, node)
    block = element.find("instance_attributes")
    if block is None:
        identity = {"id": f"nodes-{element.get('id', '')}"}
        block = ElementTree.SubElement(element, "instance_attributes", identity)
    for name, value in (("standby", "on"), (STANDBY, "yes")):
        _attribute(block, name).set("value", value)
    return ElementTree.tostring(root)


def drained(cib: Cib, node: str) -> bool | None:
    """Whether the node is in standby by our wish; None: by somebody else's."""
    block = _node(cib.root, node).find("instance_attributes")
    values = {one.get("name"): one.get("value") for one in (block if block is not None else ())}
    if values.get("standby") not in ("on", "true"):
        return False
    return True if values.get(STANDBY) == "yes" else None


def avoided(cib: Cib, node: str) -> bool:
    """Whether a drain of the node has left bans."""
    return any(_avoids(one, node) for one in _constraints(cib.root))


def allowed(cib: Cib, node: str) -> bytes:
    """Without the bans of a drain of the node."""
    root = next_version(cib)
    _allow(root, node)
    return ElementTree.tostring(root)


def active(cib: Cib, node: str) -> bytes:
    """The node takes VMs again, and the bans of its drain are gone."""
    root = next_version(cib)
    _allow(root, node)
    block = _node(root, node).find("instance_attributes")
    for one in list(block if block is not None else ()):
        if one.get("name") in ("standby", STANDBY):
            block.remove(one)  # type: ignore[union-attr] # it had this child
    return ElementTree.tostring(root)


def _constraints(root: Element) -> Element:
    found = root.find("configuration/constraints")
    if found is None:
        raise EngineError("the engine's configuration has no constraints")
    return found


def _avoids(constraint: Element, node: str) -> bool:
    """A ban of this node's drain: names hold dashes, so all of the id is compared."""
    return constraint.get("id") == f"{AVOID}{node}-{constraint.get('rsc')}-{constraint.get('node')}"


def _allow(root: Element, node: str) -> None:
    constraints = _constraints(root)
    for one in [one for one in constraints if _avoids(one, node)]:
        constraints.remove(one)


def _node(root: Element, name: str) -> Element:
    for one in root.iterfind("configuration/nodes/node"):
        if one.get("uname") == name:
            return one
    raise EngineError(f"the cluster has no node {name}", hint="dynmem fleet status names them")


def _attribute(block: Element, name: str) -> Element:
    for one in block.iterfind("nvpair"):
        if one.get("name") == name:
            return one
    return ElementTree.SubElement(block, "nvpair", {"id": f"{block.get('id', '')}-{name}", "name": name})
