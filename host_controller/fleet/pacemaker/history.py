"""What the engine remembers of a VM's migrations, and how it forgets one that failed.

A clean-up deletes all that the engine knows of the VM on that host, which is then probed. If the VM had come
there by migration, the host that it came from still remembers having sent it. Without a record of its arrival
the engine takes that for a migration cut in half, and restarts the VM (fact: forgotten-arrival-restarts). So
what the other host remembers goes first, and the scheduler is asked before the rest goes.
"""

from copy import deepcopy
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.fleet.core.drain import harm, in_words
from host_controller.fleet.errors import EngineError
from host_controller.fleet.pacemaker.cell import Engine, forget, unchanged
from host_controller.fleet.pacemaker.cib import Cib

DOWN: Final = ("offline", "0")
"""A node's controller is. Newer versions write since when it is up."""
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


def departures(cib: Cib, vm: str, node: str) -> tuple[str, ...]:
    """Hosts other than this one that remember having sent the VM away, and that are up."""
    return tuple(
        state.get("uname", "")
        for state in cib.root.iterfind("status/node_state")
        if state.get("uname") != node and state.get("crmd") not in DOWN
        for resource in state.iterfind("lrm/lrm_resources/lrm_resource")
        if resource.get("id") == vm and resource.find("lrm_rsc_op[@operation='migrate_to']") is not None
    )


def probed(cib: Cib, vm: str, node: str) -> bytes:
    """With nothing known of the VM on the host but that a probe found it running there. No I/O."""
    root = deepcopy(cib.root)
    for state in root.iterfind("status/node_state"):
        for resource in state.iterfind("lrm/lrm_resources/lrm_resource"):
            if state.get("uname") == node and resource.get("id") == vm:
                # The VM's parameters, which the engine compares by their digest, are those that it had then.
                failed = resource.find("lrm_rsc_op[@operation='migrate_to']")
                known = {} if failed is None else dict(failed.attrib)
                key = {"id": f"{vm}_last_0", "operation_key": f"{vm}_monitor_0"}
                for one in list(resource):
                    resource.remove(one)
                resource.append(Element("lrm_rsc_op", known | key | FOUND))
    return ElementTree.tostring(root)


def forget_move(engine: Engine, cib: Cib, vm: str, node: str) -> bool:
    """Have the engine forget that the VM's migration from there has failed. False: say it again at its rest.

    Raises:
        EngineBusy, RaceLost: nothing was changed.
        EngineError: it would disturb a VM for that, or cannot be asked.
    """
    older = departures(cib, vm, node)
    if older:
        unchanged(engine, cib)
        engine.refresh(vm, older[0])
        return False
    before = engine.simulate(ElementTree.tostring(cib.root)).actions
    disturbed = harm(engine.simulate(probed(cib, vm, node)).actions, before)
    if disturbed:
        hint = f"crm_mon -1 shows it; it runs on {node}, and the engine leaves it alone"
        raise EngineError(
            f"the failed migration of {vm} is not cleaned up: the engine would {in_words(disturbed)}",
            hint=hint,
        )
    forget(engine, cib, vm, node, "migrate_to")
    return True
