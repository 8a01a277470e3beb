"""Checks of what the guest's kernel is started with, where the host says that: it must see all its memory."""

import re
from functools import partial
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.core.model import MEMORY_BLOCK_BYTES, Growth
from host_controller.domain_xml.fitness.refusal import Refusal, Request, WayOut
from host_controller.domain_xml.kernel_line import by_firmware, drop_word, parameter, words
from host_controller.domain_xml.values import number
from host_controller.units import parse_size

BLACKLISTS: Final = ("module_blacklist", "modprobe.blacklist", "rd.driver.blacklist")
INITCALLS: Final = "initcall_blacklist"
"""Of what is built in, by the function that registers it (module_driver)."""
_TAKEN_AWAY: Final = re.compile(r"(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,18}[kKmMgGtT]?)[!$#]")
"""By `memmap=`, as persistent memory, for nobody, for ACPI (arch/x86/kernel/e820.c, parse_memmap_one)."""


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
    name, value = parameter(word)
    hot = growth is not Growth.BALLOON
    if name == "mem" and value[:1].isdecimal():
        # mm/memory_hotplug.c, max_mem_size: what is added beyond it is refused, too.
        return "it would never use memory beyond that", False
    if name == "memmap" and value == "exactmap":
        return "it would use the ranges that stand there and no others", False
    if name == "memmap" and _taken_away(value) >= MEMORY_BLOCK_BYTES:
        return "so much is no memory of its, wherever it lies", False
    if hot and (name, value) == ("acpi", "off"):
        return "without ACPI memory cannot be hot-added", True
    if growth is Growth.HOTADD and name == "acpi_no_memhotplug":
        return "it takes no DIMM that is plugged", True
    if name in (*BLACKLISTS, INITCALLS):
        listed = value.replace("-", "_").split(",")
        drivers = [one.removesuffix("_driver_init") for one in listed] if name == INITCALLS else listed
        if "virtio_balloon" in drivers:
            return "it loads no driver for the balloon", False
        if growth is Growth.VIRTIO_MEM and "virtio_mem" in drivers:
            return "it loads no driver for virtio-mem", True
    return "", False


def _taken_away(ranges: str) -> int:
    """Bytes that the guest's kernel is to leave alone."""
    found = (_TAKEN_AWAY.match(one) for one in ranges.split(","))
    return sum(number(one[1]) if one[1][:2] in ("0x", "0X") else parse_size(one[1]) for one in found if one)


def _where(root: Element, word: str) -> str:
    if word in (root.findtext("./os/cmdline") or "").split():
        return "<cmdline> with virsh edit"
    if any(word in line.split() for line in by_firmware(root)):
        return "<oemStrings> with virsh edit"
    return "`-append` with virsh edit"
