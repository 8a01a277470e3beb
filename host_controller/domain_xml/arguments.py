"""What a domain passes to QEMU past libvirt: <qemu:commandline>. Pure.

Arguments are read as QEMU reads them: `-m` and `--m` are one option, and a value is a list of `key=value`, of
which the first may leave its key out, or JSON.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from xml.etree.ElementTree import Element

from host_controller.units import parse_size

QEMU: Final = "http://libvirt.org/schemas/domain/qemu/1.0"
WITHOUT_VALUE: Final = frozenset(
    (
        "h", "help", "version", "s", "S", "snapshot", "daemonize", "preconfig", "singlestep", "usb",
        "nographic", "curses", "sdl", "portrait", "alt-grab", "ctrl-grab", "no-frame", "no-quit",
        "show-cursor", "full-screen", "no-acpi", "no-hpet", "no-reboot", "no-shutdown", "no-fd-bootchk",
        "no-user-config", "nodefaults", "nodefconfig", "no-kvm", "no-kvm-irqchip", "no-kvm-pit",
        "no-kvm-pit-reinjection", "enable-kvm", "enable-fips", "enable-sync-profile", "mem-prealloc",
        "mem-lock", "only-migratable", "semihosting", "old-param", "win2k-hack", "rtc-td-hack", "tdf",
        "localtime", "std-vga", "perfmap", "jitdump", "xen-attach", "xen-create", "xen-domid-restrict",
    )
)  # fmt: skip
"""Options after which no value follows (qemu-options.hx, of all releases since 1.0)."""
ON: Final = frozenset(("on", "yes", "true", "y"))
OFF: Final = frozenset(("off", "no", "false", "n"))
"""How QEMU spells what is switched on and off (qapi_bool_parse in qapi/qapi-util.c)."""
DEEPEST: Final = 8
"""Levels of JSON that are looked into: QEMU nests no block driver deeper that anybody uses."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One option and its value."""

    option: str
    """Without dashes."""
    value: str
    """Empty for an option that takes none."""
    first: int
    """Which of the <qemu:arg> elements it begins with."""
    length: int
    """How many of them it takes: one or two."""
    spelled: str
    """As it is written there, with its dashes."""

    def __str__(self) -> str:
        """As one would type it."""
        return f"{self.spelled} {self.value}".rstrip()

    @property
    def kind(self) -> str:
        """What it creates: a device's `driver`, an object's `qom-type`; else the word without a key."""
        fields = self.fields()
        for key in ("driver", "qom-type", "type", ""):
            if key in fields:
                return fields[key]
        return ""

    @property
    def names_type(self) -> bool:
        """Whether its value names a type, as the first word or as `type=`: `-machine nvdimm=on` does not."""
        return not {"type", ""}.isdisjoint(self.fields())

    def creates(self, *types: str) -> bool:
        """Whether it makes an object of one of these types."""
        return self.option == "object" and self.kind in types

    def get(self, key: str) -> str:
        """A field of its value; empty when there is none."""
        return self.fields().get(key, "")

    def of_property(self, name: str) -> str:
        """What a `-global` sets a property to, of whichever driver; empty when it sets another."""
        fields = self.fields()
        if fields.get("property") == name:
            return fields.get("value", "")
        return next((value for key, value in fields.items() if key.partition(".")[2] == name), "")

    def switched_on(self, key: str) -> bool:
        """Whether a field says so, in any spelling; one without a value is switched on."""
        fields = self.fields()
        return fields.get(key, "").lower() in ON or fields.get("") == key

    def switched_off(self, key: str) -> bool:
        """Whether a field says so, in any spelling."""
        fields = self.fields()
        return fields.get(key, "").lower() in OFF or f"no{key}" in fields

    def fields(self) -> dict[str, str]:
        """The value's fields; what comes first without a key is under the empty one. What JSON nests has the
        name that QEMU gives it in a list: `file.driver`.
        """
        if self.value.lstrip().startswith("{"):
            try:
                return dict(_flat(json.loads(self.value)))
            except (ValueError, RecursionError):
                return {}
        fields: dict[str, str] = {}
        for place, part in enumerate(self.value.replace(",,", "\0").split(",")):
            key, equals, value = part.replace("\0", ",").partition("=")
            if equals:
                fields[key] = value
            else:
                fields["" if place == 0 else key] = key if place == 0 else "on"
        return fields


def passed_size(text: str) -> int:
    """Bytes; 0 of what is no size, or is written in a way of QEMU's own."""
    try:
        return parse_size(text)
    except ValueError:
        return 0


def _flat(found: Any, path: str = "", depth: int = DEEPEST) -> Iterator[tuple[str, str]]:
    if isinstance(found, dict) and depth:
        for key, value in found.items():
            yield from _flat(value, f"{path}.{key}" if path else key, depth - 1)
    elif isinstance(found, bool):
        yield path, "on" if found else "off"
    elif path:
        yield path, str(found)


def passed(root: Element) -> tuple[Argument, ...]:
    """All options that are passed through, in their order."""
    words = [one.get("value", "") for one in root.findall(f"./{{{QEMU}}}commandline/{{{QEMU}}}arg")]
    found = []
    place = 0
    while place < len(words):
        word = words[place]
        option = word.removeprefix("-").removeprefix("-")
        if not word.startswith("-") or option in WITHOUT_VALUE or place + 1 == len(words):
            found.append(Argument(option, "", place, 1, word))
            place += 1
        else:
            found.append(Argument(option, words[place + 1], place, 2, word))
            place += 2
    return tuple(found)


def overridden(root: Element) -> list[tuple[str, list[str]]]:
    """<qemu:override>: aliases of devices, and the properties that are set on each past libvirt."""
    return [
        (
            device.get("alias", ""),
            [one.get("name", "") for one in device.findall(f".//{{{QEMU}}}property")],
        )
        for device in root.findall(f"./{{{QEMU}}}override/{{{QEMU}}}device")
    ]


def overridden_values(root: Element, name: str) -> list[str]:
    """<qemu:override>: what a property of that name is set to, on whichever devices."""
    found = root.findall(f"./{{{QEMU}}}override/{{{QEMU}}}device//{{{QEMU}}}property")
    return [one.get("value", "") for one in found if one.get("name") == name]


def capabilities_taken(root: Element) -> list[str]:
    """<qemu:capabilities>: what libvirt is told that this QEMU cannot do."""
    found = root.findall(f"./{{{QEMU}}}capabilities/{{{QEMU}}}del")
    return [one.get("capability", "") for one in found]
