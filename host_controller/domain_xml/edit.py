"""Changes a domain's XML so that it can do dynamic memory, and back. Pure: text in, text out.

Works on a DOM, so that whatever is not ours (comments, foreign namespaces such as qemu:commandline, the order
and layout of elements) stays as it was. What `enable` overwrites is kept in our metadata element, under
`before`, and `disable` puts exactly that back.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from xml.dom.minidom import Element

from agent import wire
from host_controller.core.model import MEMORY_BLOCK_BYTES, VIRTIO_MEM_BLOCK_BYTES, Growth, Limits, Trust
from host_controller.domain_xml.dom import (
    child,
    content,
    copy_for,
    create,
    elements,
    insert,
    parse,
    put_back,
    remove,
    set_content,
    text_of,
)
from host_controller.domain_xml.read import (
    NAMESPACE,
    PREFIX,
    growth_of,
    hot_add_problem,
    parse_xml,
    pinned_by,
    size_of,
    virtio_mem_problem,
)
from host_controller.errors import DomainUnsuitable, InputError
from host_controller.units import KIB, MIB, format_size, round_down, round_up

SLOTS: Final = 16
"""DIMM slots. Each is one step of growth: 16 of the smallest DIMM (128 MiB) make 2 GiB, and where the way to
maximum is longer the DIMMs grow: with 16 slots the mean DIMM is 1/16 of maximum - startup, so any maximum
can be reached. An unused slot costs nothing; every DIMM plugged costs vhost a memory region, of which
kernels have 64 by default and vhost-user back ends 32."""

MOVABLE_RATIO: Final = 3
"""Movable memory per kernel memory, at most (fact: movable-ratio)."""

_OURS: Final = f"{PREFIX}:vm"


@dataclass(frozen=True, slots=True)
class Plan:
    """What `enable` did, and what the user should know of it."""

    xml: str
    notes: tuple[str, ...]


def enable(xml: str, limits: Limits, growth: Growth, trust: Trust = Trust.GUEST) -> Plan:
    """The XML of a domain with dynamic memory. Doing it twice changes nothing more.

    hotadd: RAM is startup, maxMemory leaves room for DIMMs up to maximum. virtio-mem: RAM is startup, and one
    device covers the rest, empty at the start. balloon: RAM is maximum, and the balloon starts at startup.
    All: a balloon with statistics and free page reporting, without deflate-on-oom, and the agent's channel.

    Raises:
        InputError: the limits cannot be used.
        DomainUnsuitable: this domain cannot do it; the sentence says why and what to do.
    """
    problems = limits.problems()
    if problems:
        raise InputError("; ".join(problems))
    _check(xml, limits, growth)
    tree, domain = parse(xml)
    if _grows_by_virtio_mem(domain) and growth is not Growth.VIRTIO_MEM:
        _set_virtio_mem(child(domain, "devices"), 0)
    _write_ours(domain, limits, growth, trust)  # first of all: it keeps what the rest overwrites
    startup = round_up(limits.startup_bytes, MIB)
    reach = startup + round_down(limits.maximum_bytes - startup, MEMORY_BLOCK_BYTES)
    devices = child(domain, "devices") or insert(domain, create(domain, "devices"))
    memory = child(domain, "memory")
    device = 0
    if growth is Growth.BALLOON:
        boot = round_up(limits.maximum_bytes, MIB)
        remove(child(domain, "maxMemory"))
    else:
        boot = startup
        ceiling = max(reach, startup + MEMORY_BLOCK_BYTES)  # libvirt wants room for one DIMM at least
        device = ceiling - startup if growth is Growth.VIRTIO_MEM else 0
        slots = 1 if device else SLOTS  # libvirt wants one though virtio-mem takes none
        _set_size(domain, "maxMemory", ceiling, memory).setAttribute("slots", str(slots))
    memory = _set_size(domain, "memory", boot + device)  # libvirt counts the whole device
    _set_size(domain, "currentMemory", startup, memory.nextSibling)
    _set_cells(domain, boot, needed=growth is not Growth.BALLOON)
    if device:
        _set_virtio_mem(devices, device)
    _set_balloon(devices)
    _set_channel(domain, devices)
    return Plan(text_of(tree, xml), tuple(_notes(limits, growth, startup, reach, xml)))


def disable(xml: str) -> str:
    """The XML as it was before `enable`; unchanged when it is not ours.

    Without a record of what was there (somebody wrote the metadata by hand) only our metadata goes.
    """
    tree, domain = parse(xml)
    before = _before(domain)
    if before is None:
        return xml
    _restore(domain, before)
    return text_of(tree, xml)


def metadata_element(limits: Limits, growth: Growth, trust: Trust) -> str:
    """Our element as virDomainSetMetadata wants it for a running domain: without prefix and namespace.

    The record of what was there before is the persistent definition's, and is left out.
    """
    attributes = " ".join(f'{name}="{value}"' for name, value in _attributes(limits, growth, trust))
    return f"<vm {attributes}/>"


def difference(old: str, new: str, name: str) -> str:
    """A unified diff for people; empty when nothing differs."""
    return "".join(
        difflib.unified_diff(
            old.strip().splitlines(keepends=True),
            new.strip().splitlines(keepends=True),
            f"{name} (now)",
            f"{name} (with the change)",
            n=2,
        )
    )


# --- checks -----------------------------------------------------------------------------------------


def _check(xml: str, limits: Limits, growth: Growth) -> None:
    root = parse_xml(xml)
    if growth is not Growth.BALLOON and (problem := hot_add_problem(root)) is not None:
        raise DomainUnsuitable(problem, hint="use --growth balloon, or a q35 or pc machine with ACPI")
    if growth is Growth.VIRTIO_MEM and (problem := virtio_mem_problem(root)) is not None:
        raise DomainUnsuitable(f"it cannot have virtio-mem: {problem}", hint="use --growth hotadd")
    hard_limit = size_of(root.find("./memtune/hard_limit"))
    if hard_limit and hard_limit < limits.maximum_bytes:
        raise DomainUnsuitable(
            f"its memtune hard_limit ({format_size(hard_limit)}) is below maximum "
            f"({format_size(limits.maximum_bytes)}), so it would be killed on the way there",
            hint="remove the hard_limit (virsh memtune), or lower --maximum",
        )
    balloon = root.find("./devices/memballoon")
    if balloon is not None and balloon.get("model") == "none":
        raise DomainUnsuitable(
            "it has no memory balloon (model 'none'), and without one it can never give memory back",
            hint="change it to <memballoon model='virtio'/> with virsh edit",
        )
    if balloon is not None and not (balloon.get("model") or "virtio").startswith("virtio"):
        raise DomainUnsuitable(
            f"its memory balloon is a {balloon.get('model')!r}, not a virtio one",
            hint="change it to <memballoon model='virtio'/> with virsh edit",
        )
    ours = "[@model='virtio-mem']" if growth_of(root) == Growth.VIRTIO_MEM else "[@model='']"
    foreign = len(root.findall("./devices/memory")) - len(root.findall(f"./devices/memory{ours}"))
    if growth is not Growth.BALLOON and foreign:
        raise DomainUnsuitable(
            "it has memory devices of its own, which take slots and room that growth needs",
            hint="remove its <memory model=…> devices with virsh edit, or use --growth balloon",
        )


def _notes(limits: Limits, growth: Growth, startup: int, reach: int, xml: str) -> Iterable[str]:
    if startup != limits.startup_bytes:
        yield f"startup is rounded up to {format_size(startup)}, a whole number of MiB"
    grown = reach - startup
    if growth is not Growth.BALLOON and reach < limits.maximum_bytes:
        yield (
            f"{'DIMMs' if growth is Growth.HOTADD else 'memory blocks'} come in "
            f"{format_size(MEMORY_BLOCK_BYTES)}, so of the maximum of {format_size(limits.maximum_bytes)} it "
            f"can reach {format_size(reach)}"
        )
    if growth is Growth.VIRTIO_MEM:
        yield (
            f"it boots with {format_size(startup)} and grows by up to {format_size(grown)} of virtio-mem, in "
            f"steps of {format_size(VIRTIO_MEM_BLOCK_BYTES)}; the guest needs Linux 5.8 or newer"
        )
        if grown > startup * MOVABLE_RATIO:
            yield (
                f"{format_size(startup * MOVABLE_RATIO)} of that can be movable ({MOVABLE_RATIO}:1 against "
                "startup); of the rest the guest gives back what its kernel does not use"
            )
    elif growth is Growth.HOTADD:
        mean = max(MEMORY_BLOCK_BYTES, round_up(-(-grown // SLOTS), MEMORY_BLOCK_BYTES))
        if grown:
            yield (
                f"it boots with {format_size(startup)} and grows by up to {format_size(grown)} in DIMMs: "
                f"{SLOTS} slots, {format_size(MEMORY_BLOCK_BYTES)} at least and "
                f"{format_size(mean)} on average when all are used"
            )
        movable = min(grown, startup * MOVABLE_RATIO)
        yield (
            f"{format_size(movable)} of that can be movable ({MOVABLE_RATIO}:1 against startup) and be "
            f"unplugged again"
            + (f"; the other {format_size(grown - movable)} stay" if grown > movable else "")
        )
    else:
        yield (
            f"it boots with {format_size(limits.maximum_bytes)} and counts as that until its balloon driver "
            f"is seen to be alive; nothing is hot-added"
        )
    pinned = pinned_by(parse_xml(xml))
    if pinned in ("VFIO", "locked", "huge pages", "encrypted memory"):
        yield f"{pinned}: memory taken from it does not come back to the host, so it costs all its RAM always"


# --- what was there before --------------------------------------------------------------------------


def _before(domain: Element) -> Element | None:
    """What was there; an empty element when our metadata came without, None when there is no metadata."""
    ours = _find_ours(domain)
    return None if ours is None else child(ours, "before") or create(domain, "before")


def _remember(domain: Element, ours: Element) -> None:
    """Put what `enable` may overwrite into a <before> element."""
    cpu, devices = child(domain, "cpu"), child(domain, "devices")
    before = create(
        domain,
        "before",
        cpu="absent" if cpu is None else "present",
        channel="absent" if _channel(domain) is None else "present",
        controllers=" ".join(_controllers(domain)),
    )
    insert(ours, before)
    kept = [child(domain, tag) for tag in ("maxMemory", "memory", "currentMemory")]
    for element in (*kept, child(cpu, "numa"), child(devices, "memballoon")):
        if element is not None:
            insert(before, copy_for(before, element))


def _restore(domain: Element, before: Element | None) -> None:
    if before is None:
        return
    if child(before, "memory") is not None:
        if _grows_by_virtio_mem(domain):
            _set_virtio_mem(child(domain, "devices"), 0)
        for tag in ("memory", "currentMemory"):
            put_back(domain, tag, child(before, tag))
        put_back(domain, "maxMemory", child(before, "maxMemory"), before=child(domain, "memory"))
        _restore_devices(domain, before)
    ours = _find_ours(domain)
    metadata = child(domain, "metadata")
    remove(ours)
    if metadata is not None and not elements(metadata):
        remove(metadata)


def _restore_devices(domain: Element, before: Element) -> None:
    cpu, devices = child(domain, "cpu"), child(domain, "devices")
    if cpu is not None:
        put_back(cpu, "numa", child(before, "numa"))
        if before.getAttribute("cpu") == "absent" and not elements(cpu):
            remove(cpu)
    if devices is not None:
        put_back(devices, "memballoon", child(before, "memballoon"))
        if before.getAttribute("channel") == "absent":
            remove(_channel(domain))
        _drop_controllers(devices, before.getAttribute("controllers").split())


def _controllers(domain: Element) -> list[str]:
    return [_controller_name(one) for one in elements(child(domain, "devices"), "controller")]


def _controller_name(controller: Element) -> str:
    return f"{controller.getAttribute('type')}:{controller.getAttribute('index')}"


def _drop_controllers(devices: Element, known: list[str]) -> None:
    """Take out what libvirt added for our devices: a virtio-serial controller, and root ports nobody uses."""
    targets = [child(one, "target") for tag in ("channel", "console") for one in elements(devices, tag)]
    serial_used = any(one is not None and one.getAttribute("type") == "virtio" for one in targets)
    added = [one for one in elements(devices, "controller") if _controller_name(one) not in known]
    for one in added:
        if one.getAttribute("type") == "virtio-serial" and not serial_used:
            remove(one)
    buses = {
        int(address.getAttribute("bus") or "0", 0)
        for address in devices.getElementsByTagName("address")
        if address.getAttribute("type") == "pci"
    }
    for one in added:
        index = one.getAttribute("index")
        if one.getAttribute("model") == "pcie-root-port" and index.isdigit() and int(index) not in buses:
            remove(one)


# --- single edits -----------------------------------------------------------------------------------


def _set_size(domain: Element, tag: str, size_bytes: int, before: Any = None) -> Element:
    element = child(domain, tag) or insert(domain, create(domain, tag), before)
    element.setAttribute("unit", "KiB")
    set_content(element, str(size_bytes // KIB))
    return element


def _set_cells(domain: Element, boot_bytes: int, *, needed: bool) -> None:
    """Boot RAM over the NUMA cells: those there are keep their proportion; DIMMs need at least one."""
    cpu = child(domain, "cpu")
    numa = child(cpu, "numa")
    if numa is None:
        if not needed:
            return
        if cpu is None:
            cpu = insert(domain, create(domain, "cpu"), child(domain, "clock") or child(domain, "devices"))
        numa = insert(cpu, create(domain, "numa"))
        insert(numa, create(domain, "cell", id="0", cpus=_all_cpus(domain)))
    cells = elements(numa, "cell")
    sizes = [int(text) if (text := one.getAttribute("memory")).isdigit() else 1 for one in cells]
    left = boot_bytes
    for cell, size in zip(cells[1:], sizes[1:], strict=True):
        share = round_down(boot_bytes * size // sum(sizes), MIB)
        _set_cell(cell, share)
        left -= share
    _set_cell(cells[0], left)


def _all_cpus(domain: Element) -> str:
    vcpu = child(domain, "vcpu")
    count = int(content(vcpu) or "1") if vcpu is not None else 1
    return "0" if count == 1 else f"0-{count - 1}"


def _set_cell(cell: Element, size_bytes: int) -> None:
    cell.setAttribute("memory", str(size_bytes // KIB))
    cell.setAttribute("unit", "KiB")


def _set_virtio_mem(devices: Element | None, size_bytes: int) -> None:
    """One device of this size, of which nothing is plugged at the start; 0: none."""
    found = [one for one in elements(devices, "memory") if one.getAttribute("model") == "virtio-mem"]
    if devices is None or not size_bytes:
        for one in found:
            remove(one)
        return
    device = found[0] if found else insert(devices, create(devices, "memory", model="virtio-mem"))
    target = child(device, "target") or insert(device, create(device, "target"))
    sizes = {"size": size_bytes, "node": None, "block": VIRTIO_MEM_BLOCK_BYTES, "requested": 0}
    for tag, size in sizes.items():
        element = child(target, tag) or insert(target, create(target, tag))
        if size is not None:
            element.setAttribute("unit", "KiB")
        set_content(element, str(0 if size is None else size // KIB))


def _set_balloon(devices: Element) -> None:
    balloon = child(devices, "memballoon") or insert(devices, create(devices, "memballoon", model="virtio"))
    balloon.setAttribute("autodeflate", "off")
    balloon.setAttribute("freePageReporting", "on")
    first = next(iter(elements(balloon)), None)
    stats = child(balloon, "stats") or insert(balloon, create(devices, "stats"), first)
    stats.setAttribute("period", "1")


def _set_channel(domain: Element, devices: Element) -> None:
    if _channel(domain) is not None:
        return
    others = elements(devices, "channel")
    after = others[-1].nextSibling if others else child(devices, "memballoon")
    channel = insert(devices, create(devices, "channel", type="unix"), after)
    insert(channel, create(devices, "target", type="virtio", name=wire.PORT_NAME))


def _channel(domain: Element) -> Element | None:
    for one in elements(child(domain, "devices"), "channel"):
        target = child(one, "target")
        if target is not None and target.getAttribute("name") == wire.PORT_NAME:
            return one
    return None


def _write_ours(domain: Element, limits: Limits, growth: Growth, trust: Trust) -> None:
    """Our metadata; what was there before is recorded the first time only."""
    ours = _find_ours(domain) or _create_ours(domain)
    for name, value in _attributes(limits, growth, trust):
        ours.setAttribute(name, value)
    if child(ours, "before") is None:
        _remember(domain, ours)


def _create_ours(domain: Element) -> Element:
    metadata = child(domain, "metadata") or insert(
        domain, create(domain, "metadata"), child(domain, "maxMemory") or child(domain, "memory")
    )
    tree = domain.ownerDocument
    assert tree is not None
    ours = tree.createElementNS(NAMESPACE, _OURS)
    ours.setAttribute(f"xmlns:{PREFIX}", NAMESPACE)
    return insert(metadata, ours)


def _attributes(limits: Limits, growth: Growth, trust: Trust) -> list[tuple[str, str]]:
    return [
        ("growth", str(growth)),
        ("trust", str(trust)),
        ("startup", str(limits.startup_bytes // KIB)),
        ("minimum", str(limits.minimum_bytes // KIB)),
        ("maximum", str(limits.maximum_bytes // KIB)),
        ("buffer", str(limits.buffer_percent)),
        ("weight", str(limits.weight)),
    ]


def _grows_by_virtio_mem(domain: Element) -> bool:
    """Its virtio-mem device is ours."""
    ours = _find_ours(domain)
    return ours is not None and ours.getAttribute("growth") == Growth.VIRTIO_MEM


def _find_ours(domain: Element) -> Element | None:
    for one in elements(child(domain, "metadata")):
        if one.namespaceURI == NAMESPACE and one.localName == "vm":
            return one
    return None
