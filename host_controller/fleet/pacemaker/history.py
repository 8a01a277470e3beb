"""What the engine remembers of a VM's migrations, and how it forgets one that failed.

A clean-up deletes all that the engine knows of the VM on that host, which is then probed. If the VM had come
there by migration, the host that it came from still remembers having sent it. Without a record of its arrival
the engine takes that for a migration cut in half, and restarts the VM (fact: forgotten-arrival-restarts). So
what the other host remembers goes first, and the scheduler is asked before the rest goes.

Nor does a migration that is told as failed always leave the VM where it was: its agent may have been ended by
a timeout, or have lost its libvirt, when the VM had arrived. Once the failure is forgotten, the engine would
not know of it there, and start it a second time (fact: failed-and-arrived). So that is probed first.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.fleet.core.drain import in_words
from host_controller.fleet.errors import EngineError
from host_controller.fleet.pacemaker.cell import Engine, disturbed_by, forget, require_unchanged
from host_controller.fleet.pacemaker.cib import DOWN, PROBES, STATES, Cib
from host_controller.fleet.pacemaker.values import FALSE, number
from host_controller.neutral import shell_word

FOUND: Final = {
    "operation": "monitor",
    "transition-key": "1:1:7:00000000-0000-0000-0000-000000000000",
    "transition-magic": "0:0;1:1:7:00000000-0000-0000-0000-000000000000",
    "call-id": "1",
    "rc-code": "0",
    "op-status": "0",
    "interval": "0",
}
"""A probe that has found a VM running."""
MISSED: Final = FOUND | {"transition-magic": f"0:7;{FOUND['transition-key']}", "rc-code": "7"}
"""A probe that has found none."""


def departures(cib: Cib, vm: str, node: str) -> tuple[str, ...]:
    """Hosts other than this one that remember having sent the VM away, and that are up."""
    return tuple(one for one in _up(cib.root) if one != node and _sent(cib.root, vm, one) is not None)


def destination(cib: Cib, vm: str, node: str) -> str | None:
    """Where a VM was to go whose migration from this node failed; None where nobody tells, or it is down."""
    up, failed = _up(cib.root), _sent(cib.root, vm, node)
    found = failed.get("migrate_target") if failed is not None and node in up else None
    return found if found in up and found != node else None


def probed(cib: Cib, vm: str, node: str) -> bytes:
    """With nothing known of the VM on the host but that a probe found it running there. No I/O."""
    root = deepcopy(cib.root)
    # The VM's parameters, which the engine compares by their digest, are those that it had then.
    failed = _sent(root, vm, node)
    _put_finding(_history(root, vm, node), vm, {} if failed is None else failed.attrib, FOUND)
    return ElementTree.tostring(root)


def arrived(cib: Cib, vm: str, source: str, node: str) -> bytes:
    """With the VM of the source on this node and nowhere else, as probes would find it. No I/O."""
    root = deepcopy(cib.root)
    known = _history(root, vm, source)
    last = max(known.iterfind("lrm_rsc_op[@interval='0']"), key=_call, default=Element("lrm_rsc_op"))
    kind, parameters = dict(known.attrib), dict(last.attrib)
    for state in root.iterfind(STATES):
        resources = state.find("lrm/lrm_resources")
        if resources is None:
            continue
        for one in [one for one in resources if one.get("id") == vm]:
            resources.remove(one)
        found = FOUND if state.get("uname") == node else MISSED
        _put_finding(ElementTree.SubElement(resources, "lrm_resource", kind), vm, parameters, found)
    return ElementTree.tostring(root)


def look_there(engine: Engine, cib: Cib, vm: str, node: str) -> None:
    """Have the engine look whether a VM has arrived whose migration from this node is told as failed.

    Raises:
        EngineBusy, RaceLost, EngineError: nothing was changed.
    """
    if cib.options.get(PROBES, "true").lower() in FALSE:
        text = f"the failed migration of {vm} is not cleaned up: by {PROBES} the engine would not look for it"
        raise EngineError(text, hint="dynmem fleet init sets it to true")
    there = destination(cib, vm, node)
    if there is not None:
        require_unchanged(engine, cib)
        engine.refresh(vm, there)


def forget_move(engine: Engine, cib: Cib, vm: str, node: str) -> bool:
    """Have the engine forget that the VM's migration from there has failed. False: say it again at its rest.

    Raises:
        EngineBusy, RaceLost: nothing was changed.
        EngineError: it would disturb a VM for that, or cannot be asked.
    """
    older = departures(cib, vm, node)
    if older:
        require_unchanged(engine, cib)
        engine.refresh(vm, older[0])
        return False
    there = destination(cib, vm, node)
    probes = [] if there is None else _probes(cib, vm, there)
    if there is not None and not probes:
        return False
    if "0" in probes:
        hint = f"virsh domstate {shell_word(vm)} on both hosts tells; the engine leaves it alone"
        raise EngineError(
            f"the migration of {vm} from {node} has failed, and it is on {there} all the same", hint=hint
        )
    if disturbed := disturbed_by(engine, cib, probed(cib, vm, node)):
        hint = f"crm_mon -1 shows it; it runs on {node}, and the engine leaves it alone"
        raise EngineError(
            f"the failed migration of {vm} is not cleaned up: the engine would {in_words(disturbed)}",
            hint=hint,
        )
    forget(engine, cib, vm, node, "migrate_to")
    return True


def _up(root: Element) -> list[str]:
    """Names of the nodes whose controller is up."""
    return [one.get("uname", "") for one in root.iterfind(STATES) if one.get("crmd") not in DOWN]


def _history(root: Element, vm: str, node: str) -> Element:
    """What the status has of a VM on a node; an empty element of its own where it has nothing."""
    found = (
        one
        for state in root.iterfind(STATES)
        if state.get("uname") == node
        for one in state.iterfind("lrm/lrm_resources/lrm_resource")
        if one.get("id") == vm
    )
    return next(found, Element("lrm_resource"))


def _sent(root: Element, vm: str, node: str) -> Element | None:
    """That a VM was to leave this node, whatever came of it."""
    return _history(root, vm, node).find("lrm_rsc_op[@operation='migrate_to']")


def _probes(cib: Cib, vm: str, node: str) -> list[str]:
    """What probes and monitors of a VM have returned on a node."""
    known = _history(cib.root, vm, node)
    return [one.get("rc-code", "") for one in known.iterfind("lrm_rsc_op[@operation='monitor']")]


def _call(operation: Element) -> int:
    """Its place among all that the node was asked to do. A VM's parameters are those of the last: a probe may
    be older than they are, and what comes in by migration does not take its place.
    """
    call = number(operation.get("call-id", ""))
    return -1 if call is None else call


def _put_finding(resource: Element, vm: str, parameters: Mapping[str, str], found: Mapping[str, str]) -> None:
    """A probe's finding in the place of all that is known."""
    for one in list(resource):
        resource.remove(one)
    key = {"id": f"{vm}_last_0", "operation_key": f"{vm}_monitor_0"}
    resource.append(Element("lrm_rsc_op", {**parameters, **key, **found}))
