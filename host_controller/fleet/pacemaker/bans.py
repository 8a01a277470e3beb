"""Where a VM may not run, and why: starts that failed there, and constraints. No I/O."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element

from host_controller.fleet.pacemaker.values import FALSE, INFINITE, score
from host_controller.neutral import shell_word

OURS: Final = "dynmem-"
"""What the ids of our own constraints begin with."""
REFUSED: Final = "1"
"""What a start returns that a host has refused (OCF_ERR_GENERIC): any other will not pass by itself."""
PENDING: Final = "193"
"""What an operation returns that is under way."""
UNPERMITTED: Final = "symmetric-cluster is false, and no constraint permits it there"
UNSURE: Final = (
    "symmetric-cluster is false, and the engine alone can tell whether a rule, set or group permits it"
)
LOCATIONS: Final = "configuration/constraints/rsc_location"


class Bans(NamedTuple):
    """What keeps one VM from nodes."""

    reasons: Mapping[str, str]
    """Why it may not run there, by node."""
    failed_on: frozenset[str]
    """Nodes that it is banned from by nothing but a start that failed there, as one does that was refused."""
    unsure: frozenset[str]
    """Nodes that something else than a constraint with a node and a score may permit."""


class Banned:
    """What a cluster's configuration and status keep from which nodes."""

    def __init__(self, root: Element, options: Mapping[str, str]) -> None:
        self._root = root
        self._failed = dict(_failed_starts(root))
        self._unable = frozenset(_unable(root))
        symmetric = options.get("symmetric-cluster", "true").lower() not in FALSE
        nodes = () if symmetric else root.iterfind("configuration/nodes/node")
        self._closed = frozenset(one.get("uname", "") for one in nodes)
        """Nodes where a VM runs only if a constraint permits it: all of them or none."""

    def of(self, name: str) -> Bans:
        """What keeps this VM from which nodes."""
        failed = {node: text for (vm, node), text in self._failed.items() if vm == name}
        unpermitted, banned = self._closed - set(_permitted(self._root, name)), dict(_never(self._root, name))
        vague = bool(unpermitted) and _permits_vaguely(self._root, name)
        unsure = frozenset(unpermitted - banned.keys() - failed.keys()) if vague else frozenset()
        forbidden = dict.fromkeys(unpermitted, UNSURE if vague else UNPERMITTED) | banned
        refused = (node for node in failed if node not in forbidden and (name, node) not in self._unable)
        return Bans(failed | forbidden, frozenset(refused), unsure)


def _failed_starts(root: Element) -> Iterator[tuple[tuple[str, str], str]]:
    """A start that failed bans the node for that VM until it is cleaned up."""
    for state in root.iterfind("status/node_state"):
        node = state.get("uname", "")
        for pair in state.iterfind("transient_attributes/instance_attributes/nvpair"):
            name, fatal = pair.get("name", ""), score(pair.get("value", "")) >= INFINITE
            if name.startswith("fail-count-") and name.endswith("#start_0") and fatal:
                vm = name.removeprefix("fail-count-").removesuffix("#start_0")
                cleanup = f"crm_resource --cleanup -N {shell_word(node)} -r {shell_word(vm)}"
                yield (vm, node), f"a start failed there; {cleanup} lifts the ban"


def _unable(root: Element) -> Iterator[tuple[str, str]]:
    """VMs whose start failed on a node for another reason than a refusal: that does not pass by itself."""
    for state in root.iterfind("status/node_state"):
        for resource in state.iterfind("lrm/lrm_resources/lrm_resource"):
            for one in resource.iterfind("lrm_rsc_op[@operation='start']"):
                if one.get("rc-code", REFUSED) not in ("0", REFUSED, PENDING):
                    yield resource.get("id", ""), state.get("uname", "")


def _permitted(root: Element, name: str) -> Iterator[str]:
    """By constraints with a node and a score. A pin of ours permits nothing for good."""
    for one in root.iterfind(LOCATIONS):
        ours, against = one.get("id", "").startswith(OURS), one.get("score", "-").startswith("-")
        if one.get("rsc") == name and not against and not ours:
            yield one.get("node", "")


def _permits_vaguely(root: Element, name: str) -> bool:
    """A constraint may permit it somewhere by a rule, a set or a pattern, or by a group that it is in."""
    plain = {one.get("id") for one in root.iterfind("configuration/resources//primitive")}
    return any(
        one.get("rsc") not in plain or (one.get("rsc") == name and one.get("node") is None)
        for one in root.iterfind(LOCATIONS)
    )


def _never(root: Element, name: str) -> Iterator[tuple[str, str]]:
    for one in root.iterfind(LOCATIONS):
        if one.get("rsc") == name and score(one.get("score", "")) <= -INFINITE and one.get("node"):
            yield one.get("node", ""), f"the constraint {one.get('id')} bans it there"
