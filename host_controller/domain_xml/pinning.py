"""Why memory that is taken from a VM would stay with its QEMU. Pure.

QEMU switches ballooning off where somebody else holds the guest's pages (its `ram_block_discard_disable`):
VFIO devices, vDPA, encrypted guests. Locked and huge pages it lets the balloon have and the kernel keeps.
What is passed through on the command line counts like what libvirt knows.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.domain_xml.arguments import ON, Argument, overridden_values, passed
from host_controller.domain_xml.guest_system import LINUX, guest_system
from host_controller.domain_xml.huge_pages import backs_with_huge_pages

ENCRYPTED: Final = "encrypted memory"
VFIO: Final = "VFIO"
LOCKED: Final = "locked"
HUGE_PAGES: Final = "huge pages"
NO_BALLOON: Final = "no balloon"
DEFLATES: Final = "deflate-on-oom"
BEHIND_IOMMU: Final = "a balloon behind an IOMMU"
"""Linux has no driver for it (fact: balloon-behind-iommu)."""

_PASSED_ENCRYPTION: Final = (
    "sev-guest", "sev-snp-guest", "tdx-guest", "s390-pv-guest", "pef-guest", "rme-guest",
)  # fmt: skip
_UNMAPPED: Final = ("sev-snp", "tdx", "sev-snp-guest", "tdx-guest", "rme-guest")
"""Of <launchSecurity> and of QEMU's objects: kinds whose memory is the kernel's alone (guest_memfd)."""
_ENCRYPTED_MACHINE: Final = ("confidential-guest-support", "memory-encryption")
_PINNING_DRIVERS: Final = ("nvme", "virtio-blk-vfio-pci", "virtio-blk-vhost-vdpa")
"""Block drivers, at whatever depth of a chain of them (block/nvme.c; block/blkio.c, may_pin_mem_regions)."""
_PINNING_MDEV: Final = ("", "vfio-pci")
"""vfio-ap never touches guest memory, and vfio-ccw holds pages only while it copies: both leave the balloon
alone (hw/vfio/ap.c, hw/vfio/ccw.c)."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One thing that pins memory."""

    why: str
    """One of the constants above."""
    what: str
    """The element or argument, as one finds it in the XML."""
    argument: Argument | None = None
    """Where it is one that is passed to QEMU."""
    device: tuple[str, str] | None = None
    """Where it is a device that says so itself: its tag and its type."""
    network: str | None = None
    """Where a network hands the device out: its name."""


def pins(root: Element, device_networks: Collection[str] = ()) -> Iterator[Pin]:
    """All that pins memory for as long as the domain runs, the most thorough first.

    device_networks: networks that hand out devices of the host (<forward mode='hostdev'>). A domain that runs
    shows what it was handed out; a definition names the network alone.
    """
    if (security := root.find("./launchSecurity")) is not None:
        yield Pin(ENCRYPTED, f"<launchSecurity type='{security.get('type', '')}'>")
    arguments = passed(root)
    yield from (Pin(ENCRYPTED, str(one), one) for one in arguments if _encrypts(one))
    yield from _passed_through(root, device_networks)
    yield from (Pin(VFIO, str(one), one) for one in arguments if _pins(one))
    if root.find("./memoryBacking/locked") is not None:
        yield Pin(LOCKED, "<locked/>")
    yield from (Pin(LOCKED, str(one), one) for one in arguments if _locks(one))
    if backs_with_huge_pages(root):
        yield Pin(HUGE_PAGES, "<hugepages>")


def pinned_by(root: Element) -> str | None:
    """Why the balloon frees nothing that others could have, in one or two words; None when it does."""
    for pin in pins(root):
        return pin.why
    if (why := no_use(root)) is not None:
        return why
    if root.find("./devices/memballoon[@autodeflate='on']") is not None or _deflates(root):
        return DEFLATES
    return None


def no_use(root: Element) -> str | None:
    """Why there is no balloon that anybody could move; None when there is one."""
    balloon = root.find("./devices/memballoon")
    if balloon is None or balloon.get("model") == "none":
        return NO_BALLOON
    behind = balloon.find("./driver[@iommu='on']") is not None
    return BEHIND_IOMMU if behind and guest_system(root) == LINUX else None


def is_unmapped(root: Element) -> bool:
    """Whether its RAM is mapped by no process, so that what its QEMU holds does not show it
    (fact: guest-memory-of-nobody).
    """
    security = root.find("./launchSecurity")
    return (security is not None and security.get("type") in _UNMAPPED) or any(
        one.creates(*_UNMAPPED) for one in passed(root)
    )


def _passed_through(root: Element, device_networks: Collection[str]) -> Iterator[Pin]:
    for device in root.findall("./devices/hostdev"):
        kind, model = device.get("type", ""), device.get("model", "")
        if kind == "pci" or (kind == "mdev" and model in _PINNING_MDEV):
            yield _device("hostdev", kind)
    for device in root.findall("./devices/interface"):
        kind = device.get("type", "")
        if kind in ("hostdev", "vdpa"):
            yield _device("interface", kind)
        elif kind == "network" and _is_handed_out(device, device_networks):
            source = device.find("source")
            network = "" if source is None else source.get("network", "")
            yield Pin(VFIO, f"<source network='{network}'>", network=network)
    for device in root.findall("./devices/disk"):
        # QEMU's own NVMe driver maps all of the guest into VFIO; so does vhost-vdpa.
        if (kind := device.get("type", "")) in ("nvme", "vhostvdpa"):
            yield _device("disk", kind)


def _device(tag: str, kind: str) -> Pin:
    return Pin(VFIO, f"<{tag} type='{kind}'>", device=(tag, kind))


def _is_handed_out(interface: Element, device_networks: Collection[str]) -> bool:
    """A device of the host, from a pool of them. What leaves before a migration is always one."""
    source, teaming = interface.find("source"), interface.find("teaming")
    if teaming is not None and teaming.get("type") == "transient":
        return True
    return source is not None and source.get("network") in device_networks


def _encrypts(one: Argument) -> bool:
    if one.option in ("machine", "M"):
        return any(field in _ENCRYPTED_MACHINE for field in one.fields())
    return one.creates(*_PASSED_ENCRYPTION)


def _pins(one: Argument) -> bool:
    if one.option == "device":
        if one.kind.startswith("vhost-vdpa-device"):
            return True
        return one.kind.startswith("vfio-") and one.kind not in ("vfio-ap", "vfio-ccw")
    if one.option == "netdev":
        return one.kind == "vhost-vdpa"
    return one.option in ("blockdev", "drive") and any(
        (key.rpartition(".")[2] == "driver" and value in _PINNING_DRIVERS) or value.startswith("nvme://")
        for key, value in one.fields().items()
    )


def _locks(one: Argument) -> bool:
    if one.option == "overcommit":
        return one.switched_on("mem-lock") or one.get("mem-lock") == "on-fault"
    # Without a word of its own -realtime locks: that was its default.
    return one.option == "mem-lock" or (one.option == "realtime" and not one.switched_off("mlock"))


def _deflates(root: Element) -> bool:
    """Switched on behind libvirt's back."""
    if any(value.lower() in ON for value in overridden_values(root, "deflate-on-oom")):
        return True
    return any(
        one.option in ("global", "set")
        and "deflate-on-oom" in one.value
        and one.value.rpartition("=")[2].lower() in ON
        for one in passed(root)
    )
