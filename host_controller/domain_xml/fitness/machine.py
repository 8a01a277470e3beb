"""Checks of the machine: who emulates it, its buses, its firmware, its addresses."""

import re
from typing import Final
from xml.dom.minidom import Element as Node
from xml.etree.ElementTree import Element

from host_controller.core.model import Growth
from host_controller.domain_xml.arguments import Argument, passed, passed_size
from host_controller.domain_xml.dom import child, create, insert
from host_controller.domain_xml.fitness.passed_on import without
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut, with_limits
from host_controller.domain_xml.shape import SLOTS
from host_controller.domain_xml.values import (
    architecture_of,
    attribute_number,
    machine_of,
    number,
    size_of,
)
from host_controller.units import GIB, TIB, format_size, round_down, round_up

OF_32_BITS: Final = ("i686", "armv7l", "armv6l")
MOST_BITS: Final = 64
"""What a definition says may be any number."""
X86: Final = ("x86_64", "i686")
WITHOUT_PCI: Final = ("isapc", "microvm", "nitro", "none", "x-remote", "xen")
"""Machines on which libvirt finds no PCI bus for a balloon."""
FIRST_I440FX: Final = (2, 1)
"""`-m slots=` is not supported by pc-i440fx-2.0 and older ones."""
FIRST_ARM_VIRT: Final = (4, 2)
"""Older ones have no ACPI event device (hw/arm/virt.c, no_ged)."""
MODELS_OF_32_BITS: Final = (
    "486",
    "pentium",
    "pentium2",
    "pentium3",
    "pentiumpro",
    "coreduo",
    "n270",
    "athlon",
)
FEATURES_OF_64_BITS: Final = ("lm", "pae")
"""Without either a processor has no long mode, whatever its model."""
DEFAULT_ADDRESS_BITS: Final = 40
"""QEMU's, of every processor model that does not take the host's."""
HIDDEN_BY_AMD: Final = 1012 * GIB
"""Where the HyperTransport range begins: memory that would reach it is moved above 1 TiB on AMD models."""
PCI_WINDOW_BYTES: Final = 32 * GIB
"""Q35's 64-bit PCI window lies above all memory; that of i440fx is 2 GiB. A definition may ask for more."""
HOLE: Final = "pci-hole64-size"
"""How QEMU calls that window (hw/pci-host/q35.c, i440fx.c)."""

_VERSION: Final = re.compile(r"(\d{1,9})\.(\d{1,9})")


def hypervisor(request: Request) -> Refusal | None:
    """QEMU runs it, as a full machine."""
    kind = request.root.get("type", "")
    if kind not in ("kvm", "qemu", ""):
        return Refusal(
            f"it is a domain of type {kind!r}: only QEMU's (kvm, qemu) have a memory balloon like ours"
        )
    guest = (request.root.findtext("./os/type") or "hvm").strip()
    return None if guest == "hvm" else Refusal(f"its guest is of type {guest!r}, not a full machine (hvm)")


def bus(request: Request) -> Refusal | None:
    """There is a bus for the balloon: on the machine that libvirt lays out, and on the one of QEMU."""
    for machine in (machine_of(request.root), _machine(request.root)):
        if machine.startswith(WITHOUT_PCI):
            return Refusal(f"machine type {machine!r} has no PCI bus, and the memory balloon needs one")
    return None


def hot_add(request: Request) -> Refusal | None:
    """Memory can be hot-added: DIMMs as well as virtio-mem lie in the room that maxMemory makes."""
    if request.growth is Growth.BALLOON:
        return None
    root = request.root
    machine, arch = _machine(root), architecture_of(root) or "x86_64"
    if arch == "x86_64":
        return _on_x86(root, machine)
    if arch in OF_32_BITS:
        return Refusal(
            f"its processor ({arch}) has 32 bits: Linux cannot hot-add memory there", other_growth=True
        )
    if arch != "aarch64":
        return Refusal(f"memory of {arch} machines is not hot-added by dynmem", other_growth=True)
    version = _version(machine)
    if not machine.startswith("virt") or (version is not None and version < FIRST_ARM_VIRT):
        return Refusal(f"machine type {machine!r} cannot hot-add memory", other_growth=True)
    if not _has_acpi(root):
        return Refusal(
            "ACPI is off, and without it memory cannot be hot-added (on aarch64 it needs UEFI firmware)",
            other_growth=True,
        )
    return None


def addresses(request: Request) -> Refusal | None:
    """Its processor can address all that maximum needs."""
    if (architecture_of(request.root) or "x86_64") not in X86:
        return None
    bits = address_bits(request)
    if bits is None:
        return None
    maximum = request.limits.maximum_bytes
    top = _top_of_memory(request)
    if top <= _reach(bits):
        return None
    # A PCI window and a gap for each slot lie beside the memory; what is left is the most it can have.
    room = round_down(maximum - (top - _reach(bits)), GIB)
    ways = []
    if room >= request.limits.startup_bytes:
        ways.append(with_limits(request, f"lower --maximum to {format_size(room)}", maximum_bytes=room))
    needed = next((one for one in range(bits + 1, 53) if top <= _reach(one)), 53)
    own = _passed_processor(request.root)
    if own is not None:
        ways.append(without(own))
    elif needed <= (request.host.address_bits or 52):
        say = f"write <maxphysaddr mode='emulate' bits='{needed}'/> into <cpu> with virsh edit"
        ways.append(WayOut(say, edit=lambda domain: _set_bits(domain, needed)))
    return Refusal(
        f"its processor has {bits} address bits, and a maximum of {format_size(maximum)} needs more",
        tuple(ways),
    )


def address_bits(request: Request) -> int | None:
    """Physical address bits of the guest's processor; None where the host decides and was not asked."""
    own = _passed_processor(request.root)
    if own is not None:
        return _bits_passed(request, own)
    cpu = request.root.find("cpu")
    mode = "" if cpu is None else cpu.get("mode", "")
    told = None if cpu is None else cpu.find("maxphysaddr")
    if told is not None and told.get("mode") == "emulate":
        return attribute_number(told, "bits") or None
    by_host = mode in ("host-passthrough", "maximum") and request.root.get("type") == "kvm"
    if told is not None or by_host:
        limit = attribute_number(told, "limit")
        host = request.host.address_bits
        return min(host or 64, limit) if limit else host
    return DEFAULT_ADDRESS_BITS


def _passed_processor(root: Element) -> Argument | None:
    """The processor that QEMU is told past libvirt: whatever <cpu> says, this one is made."""
    return next((one for one in reversed(passed(root)) if one.option == "cpu"), None)


def _bits_passed(request: Request, own: Argument) -> int | None:
    told, host = number(own.get("phys-bits")), request.host.address_bits
    if told:
        return told
    by_host = own.kind in ("host", "max") and request.root.get("type") == "kvm"
    if not own.switched_on("host-phys-bits") and (not by_host or own.switched_off("host-phys-bits")):
        return DEFAULT_ADDRESS_BITS
    limit = number(own.get("host-phys-bits-limit"))
    return min(host or 64, limit) if limit else host


def _machine(root: Element) -> str:
    """The machine type that QEMU will take: of two, the last one."""
    told = [one.kind for one in passed(root) if one.option in ("machine", "M") and one.names_type]
    return told[-1] if told else machine_of(root)


def _on_x86(root: Element, machine: str) -> Refusal | None:
    if _too_old(machine):
        return Refusal(f"machine type {machine!r} is too old to hot-add memory", other_growth=True)
    if not _has_acpi(root):
        return Refusal(
            f"ACPI is off{_by_what(root)}, and without it memory cannot be hot-added",
            _ways_to_acpi(root),
            other_growth=True,
        )
    processor = _of_32_bits(root)
    if processor:
        return Refusal(
            f"its processor ({processor}) has 32 bits: Linux cannot hot-add memory there", other_growth=True
        )
    return None


def _of_32_bits(root: Element) -> str:
    """What makes the processor one of 32 bits; empty for one of 64."""
    models = [(root.findtext("./cpu/model") or "").strip()]
    for one in passed(root):
        if one.option == "cpu":
            models.append(one.get(""))
            if any(f"-{name}" in one.fields() or one.switched_off(name) for name in FEATURES_OF_64_BITS):
                return str(one)
    for feature in root.findall("./cpu/feature"):
        name = feature.get("name", "")
        if name in FEATURES_OF_64_BITS and feature.get("policy") in ("disable", "forbid"):
            return f"without {name}"
    return next((one for one in models if one in MODELS_OF_32_BITS or one.endswith("32")), "")


def _too_old(machine: str) -> bool:
    if machine.startswith("rhel") or machine in ("pc-i440fx-trusty",):
        return True
    version = _version(machine)
    if not machine.startswith("pc-") or version is None or "rhel" in machine:
        return False
    return version < FIRST_I440FX


def _version(machine: str) -> tuple[int, int] | None:
    found = _VERSION.search(machine)
    return (int(found[1]), int(found[2])) if found else None


def _has_acpi(root: Element) -> bool:
    return not _without_acpi(root) and root.find("./features/acpi") is not None


def _without_acpi(root: Element) -> list[Argument]:
    """What is passed to QEMU that switches ACPI off."""
    return [
        one
        for one in passed(root)
        if one.option == "no-acpi" or (one.option in ("machine", "M") and one.switched_off("acpi"))
    ]


def _by_what(root: Element) -> str:
    return next((f" (`{one}`)" for one in _without_acpi(root)), "")


def _ways_to_acpi(root: Element) -> tuple[WayOut, ...]:
    """One step at a time: an argument has the last word, whatever <features> says."""
    for one in _without_acpi(root):
        return (without(one),)
    return (WayOut("write <acpi/> into <features> with virsh edit", edit=_set_acpi),)


def _reach(bits: int) -> int:
    """The address that memory must end below; what would reach AMD's hidden range is moved above 1 TiB."""
    bits = min(bits, MOST_BITS)
    if bits <= DEFAULT_ADDRESS_BITS:
        return min(1 << bits, HIDDEN_BY_AMD)
    return max(HIDDEN_BY_AMD, (1 << bits) - TIB)


def _top_of_memory(request: Request) -> int:
    """The end of what QEMU lays out (pc_max_used_gpa in hw/i386/pc.c), at most: memory above 4 GiB, a GiB of
    gap for each slot, the PCI window.
    """
    hot = request.growth is not Growth.BALLOON
    maximum = round_up(request.limits.maximum_bytes, GIB)
    return 4 * GIB + maximum + (SLOTS * GIB if hot else 0) + _window_bytes(request.root)


def _window_bytes(root: Element) -> int:
    """The PCI window: for graphics cards whose memory is to be seen in it, it is made larger."""
    told = [size_of(one) for one in root.findall("./devices/controller[@type='pci']/pcihole64")]
    told += [passed_size(one.of_property(HOLE)) for one in passed(root) if one.option == "global"]
    return max([PCI_WINDOW_BYTES, *told])


def _set_acpi(domain: Node) -> None:
    features = child(domain, "features") or insert(
        domain, create(domain, "features"), child(domain, "cpu") or child(domain, "devices")
    )
    insert(features, create(domain, "acpi"))


def _set_bits(domain: Node, bits: int) -> None:
    cpu = child(domain, "cpu") or insert(domain, create(domain, "cpu"), child(domain, "devices"))
    told = child(cpu, "maxphysaddr") or insert(cpu, create(cpu, "maxphysaddr"), child(cpu, "numa"))
    told.setAttribute("mode", "emulate")
    told.setAttribute("bits", str(bits))
    if told.hasAttribute("limit"):
        told.removeAttribute("limit")
