"""A cluster's configuration as text, and an engine without a cluster."""

from collections.abc import Callable, Mapping
from xml.etree import ElementTree

from host_controller.fleet.core.drain import Action
from host_controller.fleet.core.model import Node
from host_controller.fleet.errors import RaceLost
from host_controller.fleet.pacemaker.cib import Cib, read_cib
from host_controller.fleet.pacemaker.lifting import forgiven
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


def failed_start(vm: str, node: str) -> str:
    """What the status says of a node where a start of the VM has failed."""
    return (
        f'<node_state uname="{node}"><transient_attributes id="t{node}"><instance_attributes id="s{node}">'
        f'<nvpair id="f{node}" name="fail-count-{vm}#start_0" value="INFINITY"/>'
        f'<nvpair id="l{node}" name="last-failure-{vm}#start_0" value="1700000000"/>'
        f'<nvpair id="m{node}" name="fail-count-{vm}#monitor_10000" value="1"/></instance_attributes>'
        f'</transient_attributes><lrm id="{node}"><lrm_resources><lrm_resource id="{vm}">'
        f'<lrm_rsc_op id="{vm}_last_0" operation="stop" rc-code="0"/>'
        f'<lrm_rsc_op id="{vm}_last_failure_0" operation="start" rc-code="1"/></lrm_resource></lrm_resources>'
        "</lrm></node_state>"
    )


def failed_move(vm: str, node: str, code: int = 1) -> str:
    """The status of an engine after a migration from this node was refused: it counts no failure."""
    return (
        f'<node_state uname="{node}"><lrm id="1"><lrm_resources><lrm_resource id="{vm}">'
        f'<lrm_rsc_op id="{vm}_migrate_to_0" operation="migrate_to" rc-code="{code}"/>'
        "</lrm_resource></lrm_resources></lrm></node_state>"
    )


class FakeEngine:
    """Holds a configuration; its scheduler leaves everything where it is unless it is told otherwise."""

    def __init__(self, text: bytes, places: Mapping[str, str]) -> None:
        self.text, self.places = text, dict(places)
        self.rests = True
        self.commits: list[bytes] = []
        self.cleaned: list[tuple[str, str]] = []
        self.refreshed: list[tuple[str, str]] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.obeys = True
        self.would: Callable[[Cib], tuple[Action, ...]] = lambda _: ()

    def lose(self, races: int) -> None:
        """The next commits find the configuration changed, as by the result of a monitor."""
        left = iter(range(races))

        def faster() -> None:
            if next(left, None) is not None:
                cib = read_cib(self.text)
                cib.root.set("num_updates", str(int(cib.version[-1]) + 1))
                self.text = cib.text

        self.meanwhile = faster

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
        if before != read_cib(self.text).text:
            raise RaceLost("changed meanwhile")
        self.text = after
        self.commits.append(after)
        if self.obeys:
            self.obey(self.would(read_cib(after)))

    def clean_up(self, vm: str, node: str, operation: str = "start") -> None:
        self.cleaned.append((vm, node))
        if operation == "start":
            self.text = forgiven(read_cib(self.text), vm, node)
        root = self.query().root
        for resource in root.iterfind(f"status/node_state/lrm/lrm_resources/lrm_resource[@id='{vm}']"):
            for one in resource.findall(f"lrm_rsc_op[@operation='{operation}']"):
                resource.remove(one)
        self.text = ElementTree.tostring(root)

    def refresh(self, vm: str, node: str) -> None:
        self.refreshed.append((vm, node))
        root = self.query().root
        for resources in root.iterfind(f"status/node_state[@uname='{node}']/lrm/lrm_resources"):
            for one in resources.findall(f"lrm_resource[@id='{vm}']"):
                resources.remove(one)
        self.text = ElementTree.tostring(root)

    def obey(self, actions: tuple[Action, ...]) -> None:
        """What would be done is done."""
        for one in actions:
            if one.kind == "stop":
                self.places.pop(one.vm, None)
            elif one.destination is not None:
                self.places[one.vm] = one.destination
