"""Where a VM may not run, and why: what failed there, and constraints. No I/O."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element

from host_controller.fleet.pacemaker.values import ENDLESS, FALSE, INFINITE, META, Metas, score, settings
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
THRESHOLD: Final = "migration-threshold"
FAILED: Final = "fail-count-"
START: Final = "start_0"
"""A start, as counts of failures name it."""
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
        self._failures = _failures(root)
        self._metas = Metas(root)
        self._threshold = settings(root.find("configuration/rsc_defaults"), META).get(THRESHOLD, ENDLESS)
        """Of VMs that have none of their own."""
        self._unable = frozenset(_unable(root))
        symmetric = options.get("symmetric-cluster", "true").lower() not in FALSE
        nodes = () if symmetric else root.iterfind("configuration/nodes/node")
        self._closed = frozenset(one.get("uname", "") for one in nodes)
        """Nodes where a VM runs only if a constraint permits it: all of them or none."""

    def of(self, primitive: Element) -> Bans:
        """What keeps this VM from which nodes."""
        name = primitive.get("id", "")
        threshold = score(self._metas.of(primitive).get(THRESHOLD, self._threshold))
        failed, refusals = self._failed(name, threshold)
        unpermitted, banned = self._closed - set(_permitted(self._root, name)), dict(_never(self._root, name))
        vague = bool(unpermitted) and _permits_vaguely(self._root, name)
        unsure = frozenset(unpermitted - banned.keys() - failed.keys()) if vague else frozenset()
        forbidden = dict.fromkeys(unpermitted, UNSURE if vague else UNPERMITTED) | banned
        refused = (node for node in refusals if node not in forbidden and (name, node) not in self._unable)
        return Bans(failed | forbidden, frozenset(refused), unsure)

    def _failed(self, name: str, threshold: int) -> tuple[dict[str, str], list[str]]:
        """Nodes where it has failed as often as it may, with the reason; and those of them where it may run
        once no start has failed there.
        """
        reasons, refusals = {}, []
        for node, counts in self._failures.get(name, {}).items():
            if threshold == 0 or counts.total() < threshold:
                continue
            what = (
                "a start failed there"
                if counts[START] >= INFINITE
                else (f"it has failed there {counts.total()} times, and {THRESHOLD} is {threshold}")
            )
            cleanup = f"crm_resource --cleanup -N {shell_word(node)} -r {shell_word(name)}"
            reasons[node] = f"{what}; {cleanup} lifts the ban"
            if counts.total() - counts[START] < threshold:
                refusals.append(node)
        return reasons, refusals


def _failures(root: Element) -> dict[str, dict[str, Counter[str]]]:
    """How often each operation of a VM has failed on a node, by VM and node. The engine adds all of them up
    (fact: failures-add-up); a fatal one, as a start's is, counts for infinity.
    """
    found: dict[str, dict[str, Counter[str]]] = {}
    for state in root.iterfind("status/node_state"):
        for pair in state.iterfind("transient_attributes/instance_attributes/nvpair"):
            kind, _, operation = pair.get("name", "").rpartition("#")
            count = score(pair.get("value", ""))
            if kind.startswith(FAILED) and count > 0:
                of_vm = found.setdefault(kind.removeprefix(FAILED), {})
                of_vm.setdefault(state.get("uname", ""), Counter())[operation] += count
    return found


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
