"""Checks of what the guest's kernel is started with, where the host says that: it must see all its memory."""

from functools import partial
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.core.model import Growth
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut
from host_controller.domain_xml.kernel_line import drop_word, words

BLACKLISTS: Final = ("module_blacklist", "modprobe.blacklist", "rd.driver.blacklist")


def kernel_line(request: Request) -> Refusal | None:
    """No parameter hides memory from the guest, or keeps it from being added."""
    for word in words(request.root):
        reason, other_growth = _obstacle(word, request.growth)
        if reason:
            return Refusal(
                f"its kernel is started with `{word}`: {reason}",
                (
                    WayOut(
                        f"take `{word}` out of {_where(request.root, word)}", edit=partial(drop_word, word)
                    ),
                ),
                other_growth=other_growth,
            )
    return None


def _obstacle(word: str, growth: Growth) -> tuple[str, bool]:
    """Why a parameter stands in the way, and whether another way to grow may do."""
    name, _, value = word.partition("=")
    hot = growth is not Growth.BALLOON
    if name == "mem" and value[:1].isdecimal():
        # mm/memory_hotplug.c, max_mem_size: what is added beyond it is refused, too.
        return "it would never use memory beyond that", False
    if name == "memmap" and value == "exactmap":
        return "it would use the ranges that stand there and no others", False
    if hot and word == "acpi=off":
        return "without ACPI memory cannot be hot-added", True
    if growth is Growth.HOTADD and word == "acpi_no_memhotplug":
        return "it takes no DIMM that is plugged", True
    if name in BLACKLISTS:
        drivers = value.replace("-", "_").split(",")
        if "virtio_balloon" in drivers:
            return "it loads no driver for the balloon", False
        if growth is Growth.VIRTIO_MEM and "virtio_mem" in drivers:
            return "it loads no driver for virtio-mem", True
    return "", False


def _where(root: Element, word: str) -> str:
    line = (root.findtext("./os/cmdline") or "").split()
    return "<cmdline> with virsh edit" if word in line else "`-append` with virsh edit"
