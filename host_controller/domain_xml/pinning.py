"""Why memory that is taken from a VM would stay with its QEMU. Pure.

QEMU switches ballooning off where somebody else holds the guest's pages (its `ram_block_discard_disable`):
VFIO devices, vDPA, encrypted guests. Locked and huge pages it lets the balloon have and the kernel keeps.
What is passed through on the command line counts like what libvirt knows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.domain_xml.arguments import Argument, passed
from host_controller.domain_xml.huge_pages import backs_with_huge_pages

ENCRYPTED: Final = "encrypted memory"
VFIO: Final = "VFIO"
LOCKED: Final = "locked"
HUGE_PAGES: Final = "huge pages"
NO_BALLOON: Final = "no balloon"
DEFLATES: Final = "deflate-on-oom"

_PASSED_ENCRYPTION: Final = ("sev-guest", "sev-snp-guest", "tdx-guest", "s390-pv-guest", "pef-guest")
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


def pins(root: Element) -> Iterator[Pin]:
    """All that pins memory for as long as the domain runs, the most thorough first."""
    if (security := root.find("./launchSecurity")) is not None:
        yield Pin(ENCRYPTED, f"<launchSecurity type='{security.get('type', '')}'>")
    arguments = passed(root)
    yield from (Pin(ENCRYPTED, str(one)) for one in arguments if one.creates(*_PASSED_ENCRYPTION))
    yield from _passed_through(root)
    yield from (Pin(VFIO, str(one)) for one in arguments if _pins(one))
    if root.find("./memoryBacking/locked") is not None:
        yield Pin(LOCKED, "<locked/>")
    yield from (Pin(LOCKED, str(one)) for one in arguments if _locks(one))
    if backs_with_huge_pages(root):
        yield Pin(HUGE_PAGES, "<hugepages>")


def pinned_by(root: Element) -> str | None:
    """Why the balloon frees nothing that others could have, in one or two words; None when it does."""
    for pin in pins(root):
        return pin.why
    balloon = root.find("./devices/memballoon")
    if balloon is None or balloon.get("model") == "none":
        return NO_BALLOON
    if balloon.get("autodeflate") == "on" or _deflates(root):
        return DEFLATES
    return None


def _passed_through(root: Element) -> Iterator[Pin]:
    for device in root.findall("./devices/hostdev"):
        kind, model = device.get("type", ""), device.get("model", "")
        if kind == "pci" or (kind == "mdev" and model in _PINNING_MDEV):
            yield Pin(VFIO, f"<hostdev type='{kind}'>")
    for device in root.findall("./devices/interface"):
        if device.get("type") in ("hostdev", "vdpa"):
            yield Pin(VFIO, f"<interface type='{device.get('type')}'>")
    for device in root.findall("./devices/disk"):
        # QEMU's own NVMe driver maps all of the guest into VFIO; so does vhost-vdpa.
        if device.get("type") in ("nvme", "vhostvdpa"):
            yield Pin(VFIO, f"<disk type='{device.get('type')}'>")


def _pins(one: Argument) -> bool:
    if one.option == "device" and one.kind.startswith("vfio-"):
        return one.kind not in ("vfio-ap", "vfio-ccw")
    if one.option == "netdev":
        return one.kind == "vhost-vdpa"
    return one.option in ("blockdev", "drive") and (
        one.get("driver") in ("nvme", "virtio-blk-vhost-vdpa") or one.get("file").startswith("nvme://")
    )


def _locks(one: Argument) -> bool:
    return (one.option == "overcommit" and one.get("mem-lock") in ("on", "on-fault")) or (
        one.option == "realtime" and one.get("mlock") == "on"
    )


def _deflates(root: Element) -> bool:
    """Switched on behind libvirt's back."""
    return any(
        one.option in ("global", "set") and "deflate-on-oom" in one.value and one.value.endswith("on")
        for one in passed(root)
    )
