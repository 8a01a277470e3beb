"""A cluster's configuration as text, and an engine without a cluster."""

from collections.abc import Callable, Mapping
from xml.etree import ElementTree

from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import Node
from host_controller.fleet.errors import RaceLost
from host_controller.fleet.pacemaker.cib import Cib, read_cib
from host_controller.fleet.pacemaker.simulation import Simulation


def cib_text(
    vms: Mapping[str, int], nodes: Mapping[str, int | None], more: str = "", status: str = ""
) -> bytes:
    """Primitives and nodes with our attribute; `more`: further resources."""
    places = "".join(
        f'<node id="{number}" uname="{name}">'
        + (
            f'<utilization id="u{number}"><nvpair id="c{number}" name="dynmem" value="{size}"/></utilization>'
            if size is not None
            else ""
        )
        + "</node>"
        for number, (name, size) in enumerate(nodes.items(), 1)
    )
    resources = "".join(
        f'<primitive class="ocf" provider="heartbeat" type="VirtualDomain" id="{name}">'
        f'<instance_attributes id="{name}-i"><nvpair id="{name}-c" name="config" value="/vms/{name}.xml"/>'
        f'</instance_attributes><utilization id="{name}-u">'
        f'<nvpair id="{name}-s" name="dynmem" value="{size}"/></utilization></primitive>'
        for name, size in vms.items()
    )
    return (
        '<cib validate-with="pacemaker-3.9" epoch="7" num_updates="3" admin_epoch="0">'
        '<configuration><crm_config><cluster_property_set id="o"><nvpair id="o1" name="stonith-enabled" '
        f'value="true"/></cluster_property_set></crm_config><nodes>{places}</nodes><resources>{resources}{more}'
        f"</resources><constraints/></configuration><status>{status}</status></cib>"
    ).encode()


class FakeEngine:
    """Holds a configuration; its scheduler leaves everything where it is unless it is told otherwise."""

    def __init__(self, text: bytes, places: Mapping[str, str]) -> None:
        self.text, self.places = text, dict(places)
        self.rests = True
        self.commits: list[bytes] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.obeys = True
        self.would: Callable[[Cib], tuple[Action, ...]] = lambda _: ()

    def idle(self) -> bool:
        return self.rests

    def query(self) -> Cib:
        return read_cib(self.text)

    def simulate(self, text: bytes) -> Simulation:
        cib = read_cib(text)
        places = dict(self.places)
        return Simulation(tuple(Node(name) for name in cib.nodes), places, self.would(cib), places)

    def replace(self, before: bytes, after: bytes) -> None:
        self.meanwhile()
        if before != ElementTree.tostring(read_cib(self.text).root):
            raise RaceLost("changed meanwhile")
        self.text = after
        self.commits.append(after)
        if self.obeys:
            self.obey(self.would(read_cib(after)))

    def obey(self, actions: tuple[Action, ...]) -> None:
        """What would be done is done."""
        for one in actions:
            if one.kind == "stop":
                self.places.pop(one.vm, None)
            elif one.destination is not None:
                self.places[one.vm] = one.destination
