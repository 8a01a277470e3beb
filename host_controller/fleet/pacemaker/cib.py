"""Pacemaker's configuration: which VMs and nodes have our attribute, and that attribute set anew. No I/O.

Only primitives that carry the attribute `dynmem` in a utilization of their own are ours. What a template or
a rule would set is left alone: nobody could say what is in force.
"""

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.fleet.core.publication import LARGEST_MIB
from host_controller.fleet.errors import EngineError
from host_controller.fleet.pacemaker.bans import PENDING, Banned
from host_controller.fleet.pacemaker.bounded_xml import read_xml
from host_controller.fleet.pacemaker.values import FALSE, Ids, number, settings

STATES: Final = "status/node_state"
DOWN: Final = ("offline", "0")
"""A node's controller is. Newer versions write since when it is up."""
ATTRIBUTE: Final = "dynmem"
"""Of utilizations. VirtualDomain sets hv_memory and host_memory at each monitor, so neither is used."""
UNFENCED: Final = "fencing is off: a VM of a host that is cut off may come to run twice"
PROBES: Final = "enable-startup-probes"
MAINTENANCE: Final = "maintenance-mode"
WITHOUT_QUORUM: Final = "this part of the cluster has no quorum: nothing is published, moved or tried again"


@dataclass(frozen=True, slots=True)
class Vm:
    """The resource of a VM, as it is configured."""

    name: str
    size_mib: int | None
    """None: what is set is no size."""
    config: str | None
    """The file with its domain, of VirtualDomain."""
    bans: Mapping[str, str]
    failed_on: frozenset[str] = frozenset()
    """Nodes that it is banned from by nothing but a start that failed there, as one does that was refused."""
    unsure: frozenset[str] = frozenset()
    """Nodes that something else than a constraint with a node and a score may permit."""


@dataclass(frozen=True, slots=True)
class Cib:
    """A configuration as it was read."""

    root: Element
    vms: tuple[Vm, ...]
    nodes: Mapping[str, int | None]
    """Each host's capacity; None: none is set. Nodes within VMs and containers are no hosts."""
    options: Mapping[str, str]
    """The cluster's properties (crm_config)."""
    defaults: Mapping[str, str]
    """What resources have that say nothing else (rsc_defaults)."""
    notes: tuple[str, ...]

    @property
    def text(self) -> bytes:
        """All of it, as the engine's tools take it."""
        return ElementTree.tostring(self.root)

    @property
    def quorate(self) -> bool:
        """Those who can be reached may decide for the whole cluster."""
        return self.root.get("have-quorum", "1").lower() not in FALSE

    @property
    def version(self) -> tuple[str, str, str]:
        """What a patch is checked against."""
        return version_of(self.root)


def version_of(root: Element) -> tuple[str, str, str]:
    """Of a configuration, also of one without its children."""
    return tuple(root.get(name, "0") for name in ("admin_epoch", "epoch", "num_updates"))  # type: ignore[return-value]


def with_copies(root: Element) -> list[str]:
    """Nodes that keep a copy of the configuration: a remote one has a state, and no controller of its own."""
    return [one.get("uname", "") for one in root.iterfind(STATES) if one.get("crmd", DOWN[0]) not in DOWN]


def read_cib(text: bytes) -> Cib:
    """What `cibadmin --query` says.

    Raises:
        EngineError: it is no CIB, or none that can be read.
    """
    root = read_xml(text, "cib")
    if root.find("configuration") is None:
        raise EngineError("the engine's XML has no configuration")
    notes: list[str] = []
    options = settings(root.find("configuration/crm_config"), "cluster_property_set")
    vms = tuple(_vms(root, Banned(root, options), notes))
    names = [one.name for one in vms]
    if len(set(names)) != len(names):
        raise EngineError("the engine has two resources of one name")
    guests = frozenset(_guests(root))
    nodes = {
        name: _size(_own(one), f"node {name}", notes)
        for one in root.iterfind("configuration/nodes/node")
        if (name := one.get("uname")) and name not in guests
    }
    if options.get("stonith-enabled", "true").lower() in FALSE:
        notes.append(UNFENCED)
    defaults = settings(root.find("configuration/rsc_defaults"), "meta_attributes")
    found = Cib(root, vms, nodes, options, defaults, tuple(notes))
    return found if found.quorate else replace(found, notes=(*notes, WITHOUT_QUORUM))


def changed(cib: Cib, vms: Mapping[str, int], nodes: Mapping[str, int]) -> bytes:
    """The configuration with these figures (MiB), as its next version.

    Raises:
        EngineError: there is no such VM or node, or the figure is none.
    """
    root = next_version(cib)
    ids = Ids(root)
    resources = {one.get("id"): one for one in root.iterfind("configuration/resources//primitive")}
    places = {one.get("uname"): one for one in root.iterfind("configuration/nodes/node")}
    for kind, figures, elements in (("resource", vms, resources), ("node", nodes, places)):
        for name, size_mib in figures.items():
            element = elements.get(name)
            if element is None:
                raise EngineError(f"the engine has no {kind} {name}")
            if not 0 <= size_mib <= LARGEST_MIB:
                raise EngineError(f"{size_mib} MiB for {kind} {name} cannot be")
            _set(element, name, size_mib, ids)
    return ElementTree.tostring(root)


def next_version(cib: Cib) -> Element:
    """A copy to be changed, as the next version: a patch to it is refused if anybody was faster.

    Raises:
        EngineError: it has no version.
    """
    root = deepcopy(cib.root)
    said = root.get("epoch", "0")
    epoch = number(said)
    if epoch is None:
        raise EngineError(f"the engine's configuration has the epoch {said[:20]!r}")
    root.set("epoch", str(epoch + 1))
    root.set("num_updates", "0")
    return root


def strangers(cib: Cib) -> frozenset[str]:
    """VMs of the engine's that are none of ours."""
    ours = {one.name for one in cib.vms}
    found = cib.root.iterfind("configuration/resources//primitive")
    templates = vm_templates(cib.root)
    return frozenset(one.get("id", "") for one in found if _is_vm(one, templates)) - ours


def vm_templates(root: Element) -> frozenset[str]:
    """Templates of VMs. A primitive of one has its agent from there."""
    return frozenset(
        one.get("id", "") for one in root.iterfind("configuration/resources//template[@type='VirtualDomain']")
    )


def _is_vm(primitive: Element, templates: Collection[str]) -> bool:
    return primitive.get("type") == "VirtualDomain" or primitive.get("template") in templates


def several_times(root: Element) -> frozenset[str]:
    """Primitives of which more than one may run."""
    return frozenset(
        one.get("id", "")
        for kind in ("clone", "master", "bundle")
        for whole in root.iterfind(f"configuration/resources//{kind}")
        for one in whole.iterfind(".//primitive")
    )


def _guests(root: Element) -> Iterator[str]:
    """Nodes that run in a VM or a container: no controller of ours is there, and no VM."""
    for pair in root.iterfind("configuration/resources//primitive/meta_attributes/nvpair"):
        if pair.get("name") == "remote-node":
            yield pair.get("value", "")
    bundles = [one.get("id", "") for one in root.iterfind("configuration/resources//bundle")]
    for one in root.iterfind("configuration/nodes/node[@type='remote']"):
        bundle, _, number = one.get("uname", "").rpartition("-")
        if bundle in bundles and number.isdecimal():
            yield one.get("uname", "")


def _vms(root: Element, banned: Banned, notes: list[str]) -> Iterator[Vm]:
    cloned, templates = several_times(root), vm_templates(root)
    for one in root.iterfind("configuration/resources//primitive"):
        name, pair = one.get("id", ""), _own(one)
        if name in cloned:
            if _is_vm(one, templates):
                notes.append(f"{name} is in a clone: it is not placed by demand")
            continue
        if pair is None:
            if _is_vm(one, templates):
                notes.append(f"{name} has no utilization {ATTRIBUTE}: it is not placed by demand")
            continue
        config = settings(one, "instance_attributes").get("config") if _is_vm(one, templates) else None
        yield Vm(name, _size(pair, f"resource {name}", notes), config, *banned.of(one))


def _own(element: Element) -> Element | None:
    """The one nvpair that sets our attribute; None where there is none, or more than one, or a rule."""
    found = [
        pair
        for block in element.iterfind("utilization")
        if block.find("rule") is None
        for pair in block.iterfind("nvpair")
        if pair.get("name") == ATTRIBUTE and pair.get("id") is not None
    ]
    return found[0] if len(found) == 1 else None


def _size(pair: Element | None, whose: str, notes: list[str]) -> int | None:
    if pair is None:
        return None
    value = pair.get("value", "")
    size = number(value)
    if size is not None and size <= LARGEST_MIB:
        return size
    notes.append(f"{whose}: {ATTRIBUTE} is {value[:40]!r}, which is no size in MiB")
    return None


def _set(element: Element, name: str, size_mib: int, ids: Ids) -> None:
    pair = _own(element)
    if pair is None:
        if element.tag != "node":  # `fleet init` gives VMs theirs; a new node may come at any time
            raise EngineError(f"the engine's resource {name} has no utilization {ATTRIBUTE} of its own")
        number = element.get("id", "")
        identity = {"id": ids.free(f"dynmem-{number}-utilization")}
        block = ElementTree.SubElement(element, "utilization", identity)
        attributes = {"id": ids.free(f"dynmem-{number}-capacity"), "name": ATTRIBUTE}
        pair = ElementTree.SubElement(block, "nvpair", attributes)
    pair.set("value", str(size_mib))


def failed_moves(cib: Cib) -> dict[str, str]:
    """VMs of ours whose live migration failed, and the hosts that they are still on. That blocks them.

    The engine counts no failure of an operation that blocks: it is in the history alone.
    """
    ours = {one.name for one in cib.vms}
    return {
        name: state.get("uname", "")
        for state in cib.root.iterfind("status/node_state")
        for resource in state.iterfind("lrm/lrm_resources/lrm_resource")
        if (name := resource.get("id", "")) in ours
        for one in resource.iterfind("lrm_rsc_op[@operation='migrate_to']")
        if one.get("rc-code") not in ("0", PENDING)
    }
