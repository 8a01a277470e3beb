"""What a guest's kernel takes of its RAM for good while it boots, as far as its definition says. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.domain_xml.boot_ram import BOUNCE_BUFFER_BYTES
from host_controller.domain_xml.kernel_line import parameter, words
from host_controller.domain_xml.values import number, size_from
from host_controller.units import KIB, MIB, format_size

SLAB_BYTES: Final = 2 * KIB
"""What `swiotlb=` counts in (include/linux/swiotlb.h, IO_TLB_SIZE)."""
HUGE_PAGE_BYTES: Final = 2 * MIB
"""Of whom `hugepages=` is told without a size, but on some machines of other processors."""
PROCESSOR_BYTES: Final = MIB
FEW_PROCESSORS: Final = 16
"""With no more of them a guest boots with the least that there is (fact: processors-need-memory)."""
_SIZE: Final = re.compile(r"(0[xX][0-9a-fA-F]{1,12}|[0-9]{1,12})([kKmMgGtT]?)")
_SHIFTS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


@dataclass(frozen=True, slots=True)
class SetAside:
    """Sizes in bytes."""

    bounce: int = BOUNCE_BUFFER_BYTES
    """For devices that cannot reach beyond 4 GiB, where memory lies there or may come to."""
    told: int = 0
    """What its parameters, and the firmware's settings, take away."""
    by: tuple[str, ...] = ()
    """Which these are, as they are written."""
    processors: int = 0
    """For its vCPUs, of which it has many."""

    @property
    def beside_bounce(self) -> int:
        """All but the bounce buffer."""
        return self.told + self.processors

    @property
    def total(self) -> int:
        """All of it."""
        return self.bounce + self.beside_bounce

    @property
    def others(self) -> list[str]:
        """What is beside the bounce buffer, in words: how much, and for what."""
        found = []
        if self.told:
            found.append(
                f"{format_size(self.told)} as it is told ({', '.join(f'`{one}`' for one in self.by)})"
            )
        if self.processors:
            found.append(f"{format_size(self.processors)} for its many vCPUs")
        return found

    @property
    def words(self) -> str:
        """The same as the end of a sentence; empty without."""
        return "".join(f", and {one}" for one in self.others)


def set_aside(root: Element, ram_bytes: int) -> SetAside:
    """Of a guest that boots with so much RAM at most."""
    told = [*_crash_kernel(root, ram_bytes), *_huge_pages(root), *_firmware(root)]
    processors = number(root.findtext("vcpu"))
    return SetAside(
        bounce=_bounce_buffer(root) or BOUNCE_BUFFER_BYTES,
        told=sum(size for size, _ in told),
        by=tuple(word for _, word in told),
        processors=max(0, min(processors, 1 << 16) - FEW_PROCESSORS) * PROCESSOR_BYTES,
    )


def _bounce_buffer(root: Element) -> int:
    """What `swiotlb=` asks for; 0 where the kernel decides."""
    found = 0
    for word in words(root):
        name, value = parameter(word)
        if name == "swiotlb" and (count := _bytes(value.partition(",")[0])):
            found = count * SLAB_BYTES
    return found


def _crash_kernel(root: Element, ram_bytes: int) -> Iterator[tuple[int, str]]:
    """`crashkernel=`: the last of each kind counts (kernel/crash_reserve.c)."""
    found: dict[str, tuple[int, str]] = {}
    for word in words(root):
        name, value = parameter(word)
        if name == "crashkernel":
            size, _, kind = value.rpartition(",")
            if kind not in ("high", "low", "cma"):
                size, kind = value, ""
            found[kind] = _of_ranges(size, ram_bytes), word
    found.pop("cma", None)  # that serves programs meanwhile
    return (one for one in found.values() if one[0])


def _of_ranges(value: str, ram_bytes: int) -> int:
    """A size, or that of the range `from-to:size` in which the RAM lies; where it starts is passed over."""
    value = value.partition("@")[0]
    if ":" not in value:
        return _bytes(value)
    for one in value.split(","):
        bounds, _, size = one.partition(":")
        first, _, last = bounds.partition("-")
        if _bytes(first) <= ram_bytes and (not last or ram_bytes < _bytes(last)):
            return _bytes(size)
    return 0


def _huge_pages(root: Element) -> Iterator[tuple[int, str]]:
    """`hugepages=`, of the size that was named last before it, else of the default one."""
    told = [(word, *parameter(word)) for word in words(root)]
    named = [_bytes(value) for _, name, value in told if name == "default_hugepagesz"]
    default = page = next(filter(None, reversed(named)), HUGE_PAGE_BYTES)
    for word, name, value in told:
        if name == "hugepagesz":
            page = _bytes(value)
        elif name == "default_hugepagesz":
            page = default
        elif name == "hugepages":
            # A number, or some of each node: `0:512,1:512`.
            count = sum(_bytes(one.rpartition(":")[2]) for one in value.split(","))
            if count * page:
                yield count * page, word


def _firmware(root: Element) -> Iterator[tuple[int, str]]:
    """System management mode has its memory out of the guest's RAM."""
    mode = root.find("./features/smm")
    taken = None if mode is None or mode.get("state") == "off" else mode.find("tseg")
    if taken is not None and (size := size_from(taken.text, taken.get("unit", "MiB"))):
        yield size, "<tseg>"


def _bytes(text: str) -> int:
    """A number as the kernel reads it, with or without a unit; 0 for what is none."""
    found = _SIZE.fullmatch(text)
    return number(found[1]) << _SHIFTS[found[2].lower()] if found else 0
