"""Bans of failed starts lifted, where the engine would disturb nobody for it."""

from copy import deepcopy
from xml.etree import ElementTree

from host_controller.fleet.core.bans import Lift
from host_controller.fleet.core.drain import Action
from host_controller.fleet.pacemaker.cell import Engine, disturbed_by, forget
from host_controller.fleet.pacemaker.cib import Cib


def forgiven(cib: Cib, vm: str, node: str) -> bytes:
    """The configuration and status without the starts of this VM that failed there. No I/O."""
    root = deepcopy(cib.root)
    names = {f"{kind}-{vm}#start_0" for kind in ("fail-count", "last-failure")}
    for state in root.iterfind("status/node_state"):
        if state.get("uname") != node:
            continue
        for block in state.iterfind("transient_attributes/instance_attributes"):
            for pair in [one for one in block if one.get("name") in names]:
                block.remove(pair)
        for resource in state.iterfind("lrm/lrm_resources/lrm_resource"):
            if resource.get("id") == vm:
                for operation in [one for one in resource if _failed_start(one)]:
                    resource.remove(operation)
    return ElementTree.tostring(root)


def lift(engine: Engine, one: Lift) -> tuple[Action, ...]:
    """Lift a ban, unless that would disturb a running VM: then these actions are why it stays.

    Raises:
        EngineBusy, RaceLost, EngineError: nothing was changed.
    """
    cib = engine.query()
    disturbed = disturbed_by(engine, cib, forgiven(cib, one.vm, one.node))
    if not disturbed:
        forget(engine, cib, one.vm, one.node)
    return disturbed


def _failed_start(operation: ElementTree.Element) -> bool:
    return operation.get("operation") == "start" and operation.get("rc-code") != "0"
