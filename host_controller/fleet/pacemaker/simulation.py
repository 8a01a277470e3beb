"""What Pacemaker's own scheduler would do, from `crm_simulate --output-as=xml`. No I/O."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import Node
from host_controller.fleet.errors import EngineError
from host_controller.fleet.pacemaker.bounded_xml import read_xml
from host_controller.fleet.pacemaker.cib import ATTRIBUTE
from host_controller.fleet.pacemaker.values import number

KINDS: Final = {"start": "start", "stop": "stop", "move": "move", "migrate": "migrate"}
TROUBLES: Final = (
    ("online", "false", "it is offline"),
    ("unclean", "true", "it is unclean and waits to be fenced"),
    ("pending", "true", "it is joining the cluster"),
    ("standby", "true", "it is in standby"),
    ("standby_onfail", "true", "it is in standby after a failure"),
    ("maintenance", "true", "it is in maintenance"),
    ("shutdown", "true", "it is shutting down"),
)


@dataclass(frozen=True, slots=True)
class Simulation:
    """The scheduler's view and its plan."""

    nodes: tuple[Node, ...]
    """Their capacities are in the configuration, not here."""
    places: Mapping[str, str]
    """Where it has each resource, or would bring it; where it would stop it, where it runs now."""
    actions: tuple[Action, ...]
    running: Mapping[str, str] = field(default_factory=dict)
    """Where each runs now."""
    several: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Those that may run on any of several nodes: a migration failed, and the engine has not looked since."""
    weights: tuple[tuple[str, str, int], ...] = ()
    """What it counts of our attribute: resource, node, MiB. Instances of a clone have names of their own."""


def read_simulation(text: bytes) -> Simulation:
    """Its answer with `-R -U`.

    Raises:
        EngineError: it failed, or its answer is not understood.
    """
    root = read_xml(text, "pacemaker-result")
    status = root.find("status")
    if status is None or status.get("code") != "0":
        said = "nothing" if status is None else status.get("message", "")
        raise EngineError(f"the engine's scheduler cannot work this out: {said}")
    if root.find("cluster_status") is None:
        raise EngineError("the engine's scheduler does not tell what there is")
    found = {
        one.get("id", ""): tuple(node.get("name", "") for node in one.iterfind("node"))
        for one in root.iterfind("cluster_status/resources//resource")
    }
    running = {name: nodes[0] for name, nodes in found.items() if nodes}
    several = {name: nodes for name, nodes in found.items() if len(nodes) > 1}
    places = running | {
        one.get("resource", ""): one.get("node", "") for one in root.iterfind("utilizations/utilization")
    }
    nodes = tuple(_node(one) for one in root.iterfind("cluster_status/nodes/node"))
    # A comment's tag is no text.
    actions = tuple(_action(one) for one in root.iterfind("actions/*") if isinstance(one.tag, str))
    return Simulation(nodes, places, actions, running, several, tuple(_weights(root)))


def _weights(root: Element) -> Iterator[tuple[str, str, int]]:
    for one in root.iterfind("utilizations/utilization"):
        size = number(one.findtext(ATTRIBUTE, ""))
        if size is not None:
            yield one.get("resource", ""), one.get("node", ""), size


def _node(element: Element) -> Node:
    troubles = [text for name, value, text in TROUBLES if element.get(name) == value]
    return Node(element.get("name", ""), not troubles, trouble=troubles[0] if troubles else "")


def _action(element: Element) -> Action:
    """An action on a resource; all others, such as fencing a node, disturb whatever runs there."""
    said = element.get("action", "")
    kind = KINDS.get(said, "other") if element.tag == "rsc_action" else "other"
    if element.get("blocked") == "true" and kind == "start":
        kind = "other"
    # Of a clone's instances each has the clone's name and a number; no other name has a colon.
    return Action(
        kind,  # type: ignore[arg-type] # from KINDS
        element.get("resource", "").partition(":")[0] or element.get("node") or "",
        element.get("source") or (element.get("node") if kind != "start" else None),
        element.get("dest") or (element.get("node") if kind == "start" else None),
        said or element.tag,
    )
