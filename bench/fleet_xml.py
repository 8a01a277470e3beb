"""A cell as Pacemaker's scheduler reads it: nodes, VMs, utilizations, and who runs where."""

from collections.abc import Iterator, Mapping
from typing import Final

HEAD: Final = (
    '<cib crm_feature_set="3.16.2" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0" '
    'have-quorum="1" dc-uuid="1"><configuration><crm_config><cluster_property_set id="o">'
    '<nvpair id="o1" name="enable-startup-probes" value="false"/>'
    '<nvpair id="o2" name="stonith-enabled" value="false"/>'
    '<nvpair id="o3" name="placement-strategy" value="balanced"/>'
    "</cluster_property_set></crm_config>"
)
TAIL: Final = (
    '<constraints/><rsc_defaults><meta_attributes id="d">'
    '<nvpair id="d1" name="resource-stickiness" value="1000"/>'
    "</meta_attributes></rsc_defaults></configuration>"
)


def cib_of(where: Mapping[str, str | None], sizes: Mapping[str, int], capacities: Mapping[str, int]) -> bytes:
    """Configuration and status. where: the node of each VM, None while it is stopped; figures in MiB."""
    return "".join(
        (HEAD, *_nodes(capacities), *_resources(where, sizes), TAIL, *_status(where, capacities))
    ).encode()


def _nodes(capacities: Mapping[str, int]) -> Iterator[str]:
    yield "<nodes>"
    for number, (host, capacity) in enumerate(capacities.items(), 1):
        yield f'<node id="{number}" uname="{host}"><utilization id="u{host}">'
        yield f'<nvpair id="c{host}" name="dynmem" value="{capacity}"/></utilization></node>'
    yield "</nodes>"


def _resources(where: Mapping[str, str | None], sizes: Mapping[str, int]) -> Iterator[str]:
    yield "<resources>"
    for name in where:
        yield f'<primitive class="ocf" provider="heartbeat" type="VirtualDomain" id="{name}">'
        yield f'<meta_attributes id="{name}m"><nvpair id="{name}l" name="allow-migrate" value="true"/>'
        yield f'</meta_attributes><utilization id="{name}u">'
        yield f'<nvpair id="{name}s" name="dynmem" value="{sizes[name]}"/></utilization></primitive>'
    yield "</resources>"


def _status(where: Mapping[str, str | None], capacities: Mapping[str, int]) -> Iterator[str]:
    yield "<status>"
    for number, host in enumerate(capacities, 1):
        yield f'<node_state id="{number}" uname="{host}" in_ccm="true" crmd="online" join="member" '
        yield f'expected="member"><lrm id="{number}"><lrm_resources>'
        for name in (one for one, node in where.items() if node == host):
            yield f'<lrm_resource id="{name}" class="ocf" provider="heartbeat" type="VirtualDomain">'
            yield f'<lrm_rsc_op id="{name}_last_0" operation_key="{name}_start_0" operation="start" '
            yield 'crm_feature_set="3.16.2" transition-key="1:1:0:a" transition-magic="0:0;1:1:0:a" '
            yield 'call-id="1" rc-code="0" op-status="0" interval="0" '
            yield 'op-digest="f2317cad3d54cec5d7d7aa7d0bf35cf8"/></lrm_resource>'
        yield "</lrm_resources></lrm></node_state>"
    yield "</status></cib>"
