"""Check of the PCI slots: what `enable` brings finds a place beside the devices there are (fact: pci-slots).

A definition without room for it libvirt refuses when it is written; one in a file (`enable --file`) only when
its cluster starts it.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final
from xml.dom.minidom import Element as Node
from xml.etree.ElementTree import Element

from agent import wire
from host_controller.core.model import Growth
from host_controller.domain_xml.dom import child, elements, remove
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut
from host_controller.domain_xml.ports import has_free_port
from host_controller.domain_xml.values import architecture_of, attribute_number, machine_of, number

FUNCTIONS: Final = 8
"""Of a slot."""
SLOTS: Final = 31
"""Of a bus; the first of 32 is the bus's own."""
ROOT: Final = "pci-root"
EXPRESS_ROOT: Final = "pcie-root"
MORE_ROOTS: Final = ("pci-expander-bus", "pcie-expander-bus")
"""They have slots beside those of the root's bus, which are not counted here."""
ROOT_PORT: Final = "pcie-root-port"
PORTS: Final = (ROOT_PORT, "pcie-switch-downstream-port")
"""Each takes one device."""
MOVABLE: Final = ("memballoon", "rng", "vsock", "filesystem", "input", "disk", "interface")
"""First what a guest does not mind to find elsewhere, last what it may name by its slot."""

Place = tuple[int, int]
"""Bus and slot."""


def slots(request: Request) -> Refusal | None:
    """Each PCI device that `enable` brings has a slot, or what libvirt adds to make one."""
    seeking = tuple(_brought(request))
    if not seeking or has_room(request.root, len(seeking)):
        return None
    return Refusal(
        f"its PCI bus has no slot left for what comes in ({', '.join(seeking)})",
        _ways_to_a_slot(request.root),
        other_growth=True,
    )


def port_finds_place(root: Element) -> bool:
    """There is a virtio-serial port for one more channel, or libvirt can add a controller that has one."""
    return has_free_port(root) or has_room(root, 1)


def has_room(root: Element, devices: int) -> bool:
    """Whether libvirt finds places for so many PCI devices more; true where nobody can tell."""
    models = {one.get("model", "") for one in _controllers(root, "pci")}
    if not models.isdisjoint(MORE_ROOTS) or architecture_of(root).startswith("ppc64"):
        return True  # to a pseries libvirt adds another root
    if EXPRESS_ROOT in models:
        others = sum(one.find("address") is None for one in _movable(root) if one.tag != "memballoon")
        return _free_on_express(root) >= devices + others
    return ROOT not in models or _free_on_buses(root) > 0


def _brought(request: Request) -> Iterator[str]:
    """The PCI devices that `enable` adds, in words."""
    root = request.root
    if root.find("./devices/memballoon/address") is None:
        yield "a balloon"
    port = f"./devices/channel/target[@name='{wire.PORT_NAME}']"
    if root.find(port) is None and not has_free_port(root):
        yield "a virtio-serial controller"
    device = root.find("./devices/memory[@model='virtio-mem']/address")
    if request.growth is Growth.VIRTIO_MEM and device is None:
        yield "a virtio-mem device"


def _free_on_express(root: Element) -> int:
    """How many more devices libvirt finds a port for."""
    places = _places(root)
    buses = {bus for bus, _ in places}
    ports = [one for one in _controllers(root, "pci") if one.get("model") in PORTS]
    free = sum(attribute_number(one, "index") not in buses and _takes_any(one) for one in ports)
    of_ports = Counter(_place(one) for one in ports if one.get("model") == ROOT_PORT)
    last = SLOTS - 1 if "q35" in machine_of(root) else SLOTS  # q35 has its chipset in the last one
    for place in ((0, slot) for slot in range(1, last + 1)):
        if not places[place] or of_ports[place]:  # other root ports can stand beside one
            free += max(0, FUNCTIONS - places[place])
    return free


def _takes_any(port: Element) -> bool:
    """Libvirt puts nothing by itself into a port that takes nothing while the guest runs."""
    return port.find("./target[@hotplug='off']") is None


def _free_on_buses(root: Element) -> int:
    """Slots of conventional buses. One is enough: a bridge in it has 31 more."""
    taken = {*_places(root), (0, 1)}  # i440fx has its chipset in the first one
    buses = [
        attribute_number(one, "index")
        for one in _controllers(root, "pci")
        if one.get("model") in (ROOT, "pci-bridge")
    ]
    return sum((bus, slot) not in taken for bus in buses for slot in range(1, SLOTS + 1))


def _ways_to_a_slot(root: Element) -> tuple[WayOut, ...]:
    """One of its own devices need not be where it is: libvirt gives it another place."""
    places = _places(root)
    for one in _movable(root):
        place = _place(one)
        if place is not None and place[0] == 0 and places[place] == 1:
            return (_elsewhere(one.tag, place),)
    return ()


def _elsewhere(tag: str, place: Place) -> WayOut:
    say = f"take the <address> with slot='0x{place[1]:02x}' out of its <{tag}> with virsh edit"
    return WayOut(
        f"{say}: libvirt then makes room for all of them", edit=lambda domain: _displace(domain, tag, place)
    )


def _movable(root: Element) -> list[Element]:
    """Its virtio devices that libvirt gives any place, in the order of MOVABLE."""
    return sorted(
        (one for one in root.findall("./devices/*") if one.tag in MOVABLE and _is_virtio(one)),
        key=lambda one: MOVABLE.index(one.tag),
    )


def _is_virtio(device: Element) -> bool:
    target, model = device.find("target"), device.find("model")
    kinds = (
        device.get("model"),
        device.get("bus"),
        None if target is None else target.get("bus"),
        None if model is None else model.get("type"),
    )
    return device.tag == "filesystem" or any((one or "").startswith("virtio") for one in kinds)


def _controllers(root: Element, kind: str) -> list[Element]:
    return root.findall(f"./devices/controller[@type='{kind}']")


def _places(root: Element) -> Counter[Place]:
    """How many devices are in each slot."""
    found = map(_place, root.findall("./devices/*"))
    return Counter(place for place in found if place is not None)


def _place(device: Element) -> Place | None:
    """None where libvirt has not placed it, or where it is on no PCI bus."""
    address = device.find("./address[@type='pci']")
    return None if address is None else (attribute_number(address, "bus"), attribute_number(address, "slot"))


def _displace(domain: Node, tag: str, place: Place) -> None:
    for one in elements(child(domain, "devices"), tag):
        address = child(one, "address")
        if address is not None and _spot(address) == place:
            remove(address)


def _spot(address: Node) -> Place | None:
    if address.getAttribute("type") != "pci":
        return None
    return number(address.getAttribute("bus")), number(address.getAttribute("slot"))
