"""Changes of the engine's configuration that move VMs: a VM pinned to a host for a move, a host in standby.

No I/O. Each gives the next version of a configuration, which its scheduler is asked about before it is
committed. A move takes several steps, and whoever makes them may die between any two. So what is left to do
is always in the configuration: a pin while a VM is to move, and from the same change that takes away the pin
or the standby, a mark for each VM whose migration failed. A mark has no score, so the scheduler goes by none.
It stays until the failure is forgotten: before that, the engine leaves the VM alone.
"""

from collections.abc import Collection, Mapping
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.fleet.errors import EngineError
from host_controller.fleet.pacemaker.cib import Cib, failed_moves, next_version

PIN: Final = "dynmem-move-"
MARK: Final = "dynmem-moved-"
"""Of a VM whose failed move is to be forgotten."""
AVOID: Final = "dynmem-avoid-"
"""Of bans of a drain: destinations that refused a VM. They last as long as the drain."""
STANDBY: Final = "dynmem-drain"
"""The value of our own mark beside `standby`, by which `undrain` knows a drain of ours."""


def pinned(cib: Cib, vm: str, node: str) -> bytes:
    """The VM is to be on this node."""
    root = next_version(cib)
    _let_go(root, PIN, [vm])
    _hold(root, PIN, {vm: node}, "INFINITY")
    return ElementTree.tostring(root)


def pins(cib: Cib) -> tuple[str, ...]:
    """VMs that are pinned by us."""
    return tuple(_held(cib, PIN))


def unpinned(cib: Cib, vms: Collection[str]) -> bytes:
    """Without our pins of these VMs. Those of them whose move failed are marked."""
    root = next_version(cib)
    _let_go(root, PIN, vms)
    _mark(root, {vm: node for vm, node in failed_moves(cib).items() if vm in vms})
    return ElementTree.tostring(root)


def marks(cib: Cib) -> dict[str, str]:
    """VMs whose failed move is to be forgotten, and the nodes that they stayed on."""
    return _held(cib, MARK)


def unmarked(cib: Cib, vms: Collection[str]) -> bytes:
    """Without the marks of these VMs."""
    root = next_version(cib)
    _let_go(root, MARK, vms)
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
    """The node takes VMs again, and the bans of its drain are gone. VMs whose move from there failed are
    marked.
    """
    root = next_version(cib)
    _allow(root, node)
    _mark(root, {vm: where for vm, where in failed_moves(cib).items() if where == node})
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


def _held(cib: Cib, prefix: str) -> dict[str, str]:
    found = cib.root.iterfind("configuration/constraints/rsc_location")
    return {one.get("rsc", ""): one.get("node", "") for one in found if one.get("id", "").startswith(prefix)}


def _hold(root: Element, prefix: str, nodes: Mapping[str, str], score: str) -> None:
    for vm, node in sorted(nodes.items()):
        attributes = {"id": f"{prefix}{vm}", "rsc": vm, "node": node, "score": score}
        _constraints(root).append(Element("rsc_location", attributes))


def _let_go(root: Element, prefix: str, vms: Collection[str]) -> None:
    constraints, ids = _constraints(root), {f"{prefix}{vm}" for vm in vms}
    for one in list(constraints):
        identity = str(one.get("id", ""))
        # A VM that was renamed has left its old name in the id, and an id can be there once.
        if identity in ids or (identity.startswith(prefix) and one.get("rsc", "") in vms):
            constraints.remove(one)


def _mark(root: Element, nodes: Mapping[str, str]) -> None:
    _let_go(root, MARK, nodes.keys())
    _hold(root, MARK, nodes, "0")


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
