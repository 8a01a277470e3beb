"""What Pacemaker must be set to before VMs of dynamic size are entrusted to it, and what each protects from.

No I/O. `missing` looks, `prepared` gives the configuration in which it is so. Fencing is never switched on
here: a cluster without a fencing device would only stop working.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from host_controller.fleet.pacemaker.bans import THRESHOLD
from host_controller.fleet.pacemaker.cib import (
    ATTRIBUTE,
    PROBES,
    Cib,
    next_version,
    several_times,
    vm_templates,
)
from host_controller.fleet.pacemaker.pins import NOTES
from host_controller.fleet.pacemaker.timeouts import LEAST, lengthen, short
from host_controller.fleet.pacemaker.values import (
    ENDLESS,
    FALSE,
    META,
    Ids,
    Metas,
    blocks,
    put,
    score,
    settings,
)

STICKINESS: Final = 1000
FATAL_STARTS: Final = "start-failure-is-fatal"
PRIORITY: Final = "priority"
STAYS: Final = "resource-stickiness"
FORGETS: Final = "failure-timeout"
NEVER: Final = ("", "0", "0s")
ASKED_AGAIN: Final = "a start that one host has refused being asked of it again, and of no other"
FAILURE_TIMEOUT: Final = "30min"
"""The arbiter lifts the ban of a start that failed much earlier; this is for when there is none."""
ARBITERS: Final = "configuration/resources//primitive[@provider='dynmem'][@type='fleet']"
AUTOSET: Final = (
    "autoset_utilization_cpu",
    "autoset_utilization_hv_memory",
    "autoset_utilization_host_memory",
)


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that is not as it should be."""

    what: str
    found: str
    wanted: str
    protects: str
    """What happens where it is not so."""
    by_hand: bool = False
    """`fleet init` does not set it."""


OF_ITS_OWN: Final = ("its own", "settings that neither init nor doctor looks at", True)


def missing(cib: Cib) -> tuple[Need, ...]:
    """All that is not as it should be."""
    defaults, metas = _defaults(cib), Metas(cib.root)
    vms = (need for one in _domains(cib.root) for need in _vm(one, metas.of(one), defaults))
    return (*_cluster(cib), *_arbiters(cib.root), *_priorities(cib), *_of_others(cib.root), *vms)


def prepared(cib: Cib) -> bytes:
    """The configuration with what `missing` names, except for what is done by hand."""
    root = next_version(cib)
    ids = Ids(root)
    options = _block(root, "configuration/crm_config", "cluster_property_set", "dynmem-options", ids)
    defaults = _block(root, "configuration/rsc_defaults", META, "dynmem-defaults", ids)
    for need in _cluster(cib):
        if not need.by_hand:
            put(defaults if need.what == STAYS else options, need.what, need.wanted, ids)
    of_all, metas = _defaults(cib), Metas(root)
    for one in _domains(root):
        meta = metas.of(one)
        if list(_vm(one, meta, of_all)):
            _prepare(one, meta, of_all, ids)
    return ElementTree.tostring(root)


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What holds for VMs that have none of their own."""

    forgets: str
    """failure-timeout of resources."""
    threshold: str
    """migration-threshold of resources."""
    timeout: str | None
    """That of operations; None: none is set."""


def _defaults(cib: Cib) -> _Defaults:
    operations = settings(cib.root.find("configuration/op_defaults"), META)
    of_all = cib.defaults
    return _Defaults(of_all.get(FORGETS, "0"), of_all.get(THRESHOLD, ENDLESS), operations.get("timeout"))


def _cluster(cib: Cib) -> Iterator[Need]:
    fencing = cib.options.get("stonith-enabled", "true")
    if fencing.lower() in FALSE:
        yield Need("stonith-enabled", fencing, "true", "one VM running on two hosts", by_hand=True)
    elif not any(
        one.get("class") == "stonith" for one in cib.root.iterfind("configuration/resources//primitive")
    ):
        yield Need("a fencing device", "none", "one", "nothing being restarted after a crash", by_hand=True)
    for name, wanted, protects in (
        ("no-quorum-policy", "freeze", "VMs being stopped when hosts are cut off"),
        ("placement-strategy", "balanced", "starts that go where no memory is free"),
    ):
        found = cib.options.get(name, "")
        if found != wanted:
            yield Need(name, found or "not set", wanted, protects)
    for name, protects in (
        (PROBES, "a VM started twice, as the engine does not look where it has forgotten"),
        (FATAL_STARTS, ASKED_AGAIN),
    ):
        if (found := cib.options.get(name, "true")).lower() in FALSE:
            yield Need(name, found[:40], "true", protects)
    stickiness = cib.defaults.get(STAYS, "0")
    if score(stickiness) < STICKINESS:
        yield Need(STAYS, stickiness[:40], str(STICKINESS), "VMs moving whenever figures change")


def _arbiters(root: Element) -> Iterator[Need]:
    found = [one.get("id", "") for one in root.iterfind(ARBITERS)]
    cloned = several_times(root).intersection(found)
    if cloned or len(found) > 1:
        text = f"{', '.join(sorted(cloned))} in a clone" if cloned else ", ".join(found)
        protects = "hosts being asked and relieved by several, each by what it has seen"
        yield Need("the arbiter", text, "one, and no clone", protects, by_hand=True)


def _domains(root: Element) -> Iterator[Element]:
    """VMs whose settings are their own."""
    cloned = several_times(root)
    for one in root.iterfind("configuration/resources//primitive"):
        if one.get("id") in cloned or _refers(one):
            continue
        if one.get("type") == "VirtualDomain" and one.get("template") is None:
            yield one


def _refers(one: Element) -> bool:
    """Some of its settings stand elsewhere, where others have them, too."""
    return one.find(".//*[@id-ref]") is not None


def _of_others(root: Element) -> Iterator[Need]:
    templates = vm_templates(root)
    for one in root.iterfind("configuration/resources//primitive"):
        what = f"{one.get('id', '')}: settings"
        if one.get("template") in templates:
            yield Need(what, f"of the template {one.get('template', '')[:40]}", *OF_ITS_OWN)
        elif one.get("type") == "VirtualDomain" and _refers(one):
            yield Need(what, "of another, by id-ref", *OF_ITS_OWN)


def _priorities(cib: Cib) -> Iterator[Need]:
    """The engine finds places for VMs of a higher priority first, also before those of others that run."""
    every = cib.defaults.get(PRIORITY, "0")
    metas = Metas(cib.root)
    found = {one.get("id", ""): metas.of(one).get(PRIORITY, every) for one in _domains(cib.root)}
    least = min((score(one) for one in found.values()), default=0)
    for name, priority in found.items():
        if score(priority) > least:
            protects = "a running VM being stopped to make room for its start"
            yield Need(f"{name}: {PRIORITY}", priority[:40], "that of all VMs", protects, by_hand=True)


def _vm(one: Element, meta: Mapping[str, str], defaults: _Defaults) -> Iterator[Need]:
    name, instance = one.get("id", ""), settings(one, "instance_attributes")
    for option in AUTOSET:
        if instance.get(option, "true").lower() not in FALSE:
            yield Need(f"{name}: {option}", "true", "false", "the agent setting utilizations of its own")
    if meta.get("allow-migrate", "false").lower() in FALSE:
        yield Need(f"{name}: allow-migrate", "false", "true", "a drain that stops the VM")
    if score(meta.get(STAYS, "INFINITY")) < STICKINESS:
        protects = "it moving whenever figures change, for which those of all VMs are held back"
        yield Need(f"{name}: {STAYS}", meta[STAYS][:40], str(STICKINESS), protects)
    threshold = meta.get(THRESHOLD, defaults.threshold)
    if score(threshold) == 0:
        yield Need(f"{name}: {THRESHOLD}", threshold[:40], ENDLESS, ASKED_AGAIN)
    if meta.get(FORGETS, defaults.forgets) in NEVER:
        protects = "a host that refused one start being banned for the VM for good"
        yield Need(f"{name}: {FORGETS}", meta.get(FORGETS, "not set"), FAILURE_TIMEOUT, protects)
    migrate = _operation(one, "migrate_to")
    if migrate is None or migrate.get("on-fail") != "block":
        found = "not set" if migrate is None else migrate.get("on-fail", "not set")
        protects = "a running VM being stopped when its destination refuses it"
        yield Need(f"{name}: migrate_to on-fail", found, "block", protects)
    for operation, timeout in short(one, defaults.timeout):
        least, protects = LEAST[operation]
        yield Need(f"{name}: {operation} timeout", timeout, f"{least}s", protects)
    if not any(pair.get("name") == ATTRIBUTE for pair in one.iterfind("utilization/nvpair")):
        yield Need(f"{name}: utilization {ATTRIBUTE}", "not set", "0", "placement without regard to memory")


def _prepare(one: Element, had: Mapping[str, str], defaults: _Defaults, ids: Ids) -> None:
    name = one.get("id", "")
    instance = _block(one, ".", "instance_attributes", f"{name}-instance_attributes", ids)
    meta = _block(one, ".", META, f"{name}-meta_attributes", ids)
    for option in AUTOSET:
        put(instance, option, "false", ids)
    put(meta, "allow-migrate", "true", ids)
    if score(had.get(THRESHOLD, defaults.threshold)) == 0:
        put(meta, THRESHOLD, ENDLESS, ids)
    if had.get(FORGETS, defaults.forgets) in NEVER:
        put(meta, FORGETS, FAILURE_TIMEOUT, ids)
    if score(had.get(STAYS, "INFINITY")) < STICKINESS:
        put(meta, STAYS, str(STICKINESS), ids)
    operations = one.find("operations")
    if operations is None:
        operations = ElementTree.SubElement(one, "operations")
    for operation in LEAST:
        if _operation(one, operation) is None:
            interval = "10s" if operation == "monitor" else "0s"
            identity = {"id": ids.free(f"{name}-{operation}"), "name": operation, "interval": interval}
            ElementTree.SubElement(operations, "op", identity)
    lengthen(one, defaults.timeout)
    for migrate in operations.iterfind("op[@name='migrate_to']"):
        migrate.set("on-fail", "block")
    if not any(pair.get("name") == ATTRIBUTE for pair in one.iterfind("utilization/nvpair")):
        put(_block(one, ".", "utilization", f"{name}-utilization", ids), ATTRIBUTE, "0", ids)


def _operation(one: Element, name: str) -> Element | None:
    return next((op for op in one.iterfind("operations/op") if op.get("name") == name), None)


def _block(root: Element, path: str, tag: str, identity: str, ids: Ids) -> Element:
    """That whose word counts first, made where there is none."""
    parent = root if path == "." else root.find(path)
    if parent is None:  # rsc_defaults may be missing as a whole
        outer, _, inner = path.rpartition("/")
        holder = root.find(outer)
        assert holder is not None, "a configuration has its sections"
        parent = ElementTree.SubElement(holder, inner)
    for found in blocks(parent, tag):
        if not found.get("id", "").startswith(NOTES):  # which come and go
            return found
    made = ElementTree.Element(tag, {"id": ids.free(identity)})
    # The schema wants utilizations and attributes before operations.
    index = next((i for i, one in enumerate(parent) if one.tag == "operations"), len(parent))
    parent.insert(index, made)
    return made
