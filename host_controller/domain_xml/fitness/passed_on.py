"""Checks of what the domain passes to QEMU past libvirt: none of it may lay out memory unseen."""

from functools import partial
from typing import Final
from xml.dom.minidom import Element as Node
from xml.etree.ElementTree import Element

from host_controller.core.model import Growth
from host_controller.domain_xml.arguments import QEMU, Argument, capabilities_taken, overridden, passed
from host_controller.domain_xml.dom import elements, of_namespace, remove
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut
from host_controller.domain_xml.values import alias_of

LAYOUT: Final = ("m", "numa", "mem-path", "readconfig", "balloon")
"""Options that say what libvirt says as well; the last one of two wins, or QEMU does not start."""
DEVICES: Final = (
    "pc-dimm", "nvdimm", "virtio-mem", "virtio-pmem", "virtio-balloon", "hv-balloon", "sgx-epc", "cxl-type3",
)  # fmt: skip
HOT_PLUG: Final = ".memory-hotplug-support"
"""A property of the machine's power management: without it QEMU plugs no DIMM."""
MACHINE_FIELDS: Final = ("memory-backend", "maxram-size", "ram-size", "memory-encryption")
ALIASES: Final = ("balloon", "dimm", "nvdimm", "virtiomem", "virtiopmem")
"""How libvirt names the devices that the balloon and hot add work with."""
CAPABILITIES: Final = ("mem", "dimm", "balloon", "numa", "object")


def memory_arguments(request: Request) -> Refusal | None:
    """No argument lays out memory, plugs some, or is a second balloon."""
    aliases = _aliases(request.root)
    for one in passed(request.root):
        if _lays_out(one, aliases):
            return Refusal(
                f"it passes `{one}` to QEMU, which lays out memory past libvirt",
                (without(one),),
            )
    return None


def without(argument: Argument) -> WayOut:
    """The way out by taking an argument away."""
    return WayOut(
        f"take `{argument}` out of <qemu:commandline> with virsh edit", edit=partial(_take_out, argument)
    )


def overrides(request: Request) -> Refusal | None:
    """No property of a memory device is overridden."""
    for alias, properties in overridden(request.root):
        if alias.startswith(_aliases(request.root)):
            named = f" ({', '.join(properties)})" if properties else ""
            return Refusal(
                f"its <qemu:override> changes the device {alias!r}{named} past libvirt",
                (
                    WayOut(
                        f"take <qemu:device alias='{alias}'> out of <qemu:override> with virsh edit",
                        edit=partial(_drop, "override", "device", "alias", alias),
                    ),
                ),
            )
    return None


def capabilities(request: Request) -> Refusal | None:
    """Libvirt has not been told that its QEMU lacks what growth needs."""
    for name in capabilities_taken(request.root):
        if any(word in name for word in CAPABILITIES) and not (
            request.growth is Growth.BALLOON and "balloon" not in name
        ):
            return Refusal(
                f"its <qemu:capabilities> hide {name!r} from libvirt",
                (
                    WayOut(
                        f"take <qemu:del capability='{name}'/> out with virsh edit",
                        edit=partial(_drop, "capabilities", "del", "capability", name),
                    ),
                ),
                other_growth=True,
            )
    return None


def _aliases(root: Element) -> tuple[str, ...]:
    """How memory devices of this domain are named, by libvirt or by the user."""
    devices = (*root.findall("./devices/memballoon"), *root.findall("./devices/memory"))
    return (*ALIASES, *filter(None, (alias_of(one) for one in devices)))


def _lays_out(one: Argument, aliases: tuple[str, ...]) -> bool:
    if one.option in LAYOUT:
        return True
    if one.option == "device":
        return one.kind.startswith(DEVICES)
    if one.option in ("machine", "M"):
        return any(field in MACHINE_FIELDS for field in one.fields())
    if one.option == "global":
        # -global driver.property=value, or driver=…,property=…,value=…
        return HOT_PLUG in one.value or one.value.removeprefix("driver=").startswith(
            (*DEVICES, "memory-backend")
        )
    if one.option == "set":
        # -set group.id.property=value
        group, _, rest = one.value.partition(".")
        return group in ("memory", "numa", "object") or (group == "device" and rest.startswith(aliases))
    return False


def _take_out(argument: Argument, domain: Node) -> None:
    for commandline in of_namespace(domain, QEMU, "commandline"):
        words = of_namespace(commandline, QEMU, "arg")
        for word in words[argument.first : argument.first + argument.length]:
            remove(word)
        if not elements(commandline):
            remove(commandline)


def _drop(container: str, name: str, attribute: str, value: str, domain: Node) -> None:
    """Take the entries with that value out; a container that is empty then goes, too."""
    for parent in of_namespace(domain, QEMU, container):
        for one in of_namespace(parent, QEMU, name):
            if one.getAttribute(attribute) == value:
                remove(one)
        if not elements(parent):
            remove(parent)
