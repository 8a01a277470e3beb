"""Changes of the engine's configuration that move VMs: a VM pinned to a host for a move, a host in standby.

No I/O. Each gives the next version of a configuration, which its scheduler is asked about before it is
committed. A move takes several steps, and whoever makes them may die between any two. So what is left to do
is always in the configuration: a pin while a VM is to move, and from the same change that takes away the pin
or the standby, a mark for each VM whose migration failed. It stays until the failure is forgotten: before
that, the engine leaves the VM alone. The change that takes away a pin also says when that was.

Marks and times are meta attributes of the VM, which the scheduler does not know. A constraint would not do:
in a cluster where VMs run only where one permits it, any score permits (fact: a-score-permits).
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.fleet.errors import EngineError
from host_controller.fleet.pacemaker.cib import Cib, failed_moves, next_version
from host_controller.fleet.pacemaker.values import Ids, block, number, pairs, put

PIN: Final = "dynmem-move-"
MARK: Final = "dynmem-stayed-on"
"""Of a VM whose failed move is to be forgotten: the node that it stayed on."""
MOVED: Final = "dynmem-moved-at"
"""When a VM was let go after a move: whole seconds since 1970."""
NOTES: Final = "dynmem-notes-"
"""Of the blocks that hold both."""
OLD_MARK: Final = "dynmem-moved-"
"""Of constraints that earlier versions left as marks."""
AVOID: Final = "dynmem-avoid-"
"""Of bans of a drain: destinations that refused a VM. They last as long as the drain."""
AVOIDS: Final = re.compile(rf"{AVOID}([0-9]{{1,4}})\.([0-9]{{1,4}})\.(.*)", re.DOTALL)
"""Names hold dashes, so an id begins with the length of the node's and of the VM's."""
STANDBY: Final = "dynmem-drain"
"""The value of our own mark beside `standby`, by which `undrain` knows a drain of ours."""
ATTRIBUTES: Final = "instance_attributes"
TRUE: Final = ("true", "on", "yes", "y", "1")


def pinned(cib: Cib, vm: str, node: str) -> bytes:
    """The VM is to be on this node."""
    root = next_version(cib)
    _let_go(root, PIN, [vm])
    _hold(root, PIN, {vm: node}, "INFINITY")
    return ElementTree.tostring(root)


def pins(cib: Cib) -> tuple[str, ...]:
    """VMs that are pinned by us."""
    return tuple(_held(cib, PIN))


def unpinned(cib: Cib, vms: Collection[str], now: float, kept_seconds: float) -> bytes:
    """Without our pins of these VMs. Those of them whose move failed are marked, and all are moved now.

    `now`: seconds since 1970. What is older than `kept_seconds` is forgotten.
    """
    root = next_version(cib)
    _let_go(root, PIN, vms)
    _mark(root, {vm: node for vm, node in failed_moves(cib).items() if vm in vms})
    _forget(root, MOVED, {vm for vm, at in moved_at(cib).items() if abs(now - at) >= kept_seconds})
    _note(root, MOVED, dict.fromkeys(vms, str(int(now))))
    return ElementTree.tostring(root)


def moved_at(cib: Cib) -> dict[str, float]:
    """When VMs were let go after a move, in seconds since 1970 by the clock of whoever did it."""
    found = ((vm, number(at)) for vm, at in _noted(cib.root, MOVED))
    return {vm: float(at) for vm, at in found if at is not None}


def marks(cib: Cib) -> dict[str, str]:
    """VMs whose failed move is to be forgotten, and the nodes that they stayed on."""
    return _held(cib, OLD_MARK) | dict(_noted(cib.root, MARK))


def unmarked(cib: Cib, vms: Collection[str]) -> bytes:
    """Without the marks of these VMs."""
    root = next_version(cib)
    _let_go(root, OLD_MARK, vms)
    _forget(root, MARK, vms)
    return ElementTree.tostring(root)


def in_standby(cib: Cib, node: str, avoid: Collection[tuple[str, str]] = ()) -> bytes:
    """The node takes no VMs, and gives away those that it has. `avoid`: a VM, and where it is not to go."""
    root = next_version(cib)
    _allow(root, node)
    _avoid(root, node, avoid)
    element = _node(root, node)
    own, ids = block(element, ATTRIBUTES), Ids(root)
    if own is None:
        identity = {"id": ids.free(f"nodes-{element.get('id', '')}")}
        own = ElementTree.SubElement(element, ATTRIBUTES, identity)
    for name, value in (("standby", "on"), (STANDBY, "yes")):
        put(own, name, value, ids)
    return ElementTree.tostring(root)


def drained(cib: Cib, node: str) -> bool | None:
    """Whether the node is in standby by our wish; None: by somebody else's, also where that lasts until the
    node starts again, or as long as a rule says.
    """
    element, states = _node(cib.root, node), cib.root.iterfind("status/node_state")
    mine = block(element, ATTRIBUTES)
    own = {} if mine is None else pairs(mine)
    ours = own.get("standby", "").lower() in TRUE and own.get(STANDBY) == "yes"
    blocks = [
        *(one for one in element.iterfind(ATTRIBUTES) if one is not mine or not ours),
        *(
            one
            for state in states
            if state.get("uname") == node
            for one in state.iterfind(f"transient_attributes/{ATTRIBUTES}")
        ),
    ]
    theirs = any(pairs(one).get("standby", "").lower() in TRUE for one in blocks)
    return None if theirs else ours


def avoided(cib: Cib, node: str) -> bool:
    """Whether a drain of the node has left bans."""
    return any(_avoids(one, node) for one in _constraints(cib.root))


def allowed(cib: Cib, node: str) -> bytes:
    """Without the bans of a drain of the node."""
    root = next_version(cib)
    _allow(root, node)
    return ElementTree.tostring(root)


def active(cib: Cib, node: str, avoid: Collection[tuple[str, str]] = ()) -> bytes:
    """The node takes VMs again, and the bans of its drain are gone but for these. VMs whose move from there
    failed are marked.
    """
    root = next_version(cib)
    _allow(root, node)
    _avoid(root, node, avoid)
    _mark(root, {vm: where for vm, where in failed_moves(cib).items() if where == node})
    own = block(_node(root, node), ATTRIBUTES)
    for one in [] if own is None else list(own):
        if one.get("name") in ("standby", STANDBY):
            own.remove(one)  # type: ignore[union-attr] # it had this child
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
    _let_go(root, OLD_MARK, nodes.keys())
    _note(root, MARK, nodes)


def _noted(root: Element, name: str) -> Iterator[tuple[str, str]]:
    for one in _primitives(root):
        for pair in one.iterfind(f"meta_attributes/nvpair[@name='{name}']"):
            yield one.get("id", ""), pair.get("value", "")


def _note(root: Element, name: str, values: Mapping[str, str]) -> None:
    """Of VMs that are there."""
    _forget(root, name, values.keys())
    ids = Ids(root)
    for one in _primitives(root):
        vm = one.get("id", "")
        if vm not in values:
            continue
        notes = next((own for own in one.iterfind("meta_attributes") if _ours(own)), None)
        if notes is None:
            notes = ElementTree.SubElement(one, "meta_attributes", {"id": ids.free(f"{NOTES}{vm}")})
        pair = {"id": ids.free(f"{name}-{vm}"), "name": name, "value": values[vm]}
        ElementTree.SubElement(notes, "nvpair", pair)


def _forget(root: Element, name: str, vms: Collection[str]) -> None:
    for one in _primitives(root):
        for meta in one.findall("meta_attributes") if one.get("id") in vms else ():
            for pair in meta.findall(f"nvpair[@name='{name}']"):
                meta.remove(pair)
            if _ours(meta) and not len(meta):
                one.remove(meta)


def _ours(meta: Element) -> bool:
    return meta.get("id", "").startswith(NOTES)


def _primitives(root: Element) -> list[Element]:
    return root.findall("configuration/resources//primitive")


def _avoids(constraint: Element, node: str) -> bool:
    """A ban of this node's drain, whatever its VM is called by now."""
    identity = constraint.get("id", "")
    found = AVOIDS.fullmatch(identity)
    if found is not None:
        return int(found[1]) == len(node) and found[3].startswith(f"{node}-")
    # Earlier versions wrote no lengths.
    return identity == f"{AVOID}{node}-{constraint.get('rsc')}-{constraint.get('node')}"


def _allow(root: Element, node: str) -> None:
    constraints = _constraints(root)
    for one in [one for one in constraints if _avoids(one, node)]:
        constraints.remove(one)


def _avoid(root: Element, node: str, ways: Collection[tuple[str, str]]) -> None:
    for vm, other in sorted(ways):
        name = f"{AVOID}{len(node)}.{len(vm)}.{node}-{vm}-{other}"
        identity = {"id": name, "rsc": vm, "node": other, "score": "-INFINITY"}
        _constraints(root).append(Element("rsc_location", identity))


def _node(root: Element, name: str) -> Element:
    for one in root.iterfind("configuration/nodes/node"):
        if one.get("uname") == name:
            return one
    raise EngineError(f"the cluster has no node {name}", hint="dynmem fleet status names them")
