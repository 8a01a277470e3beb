"""How long the engine lets an operation of a VM take, and for how long it should. No I/O.

Pacemaker asks no agent for that: what is not set is 20 seconds, and pcs sets two minutes for a migration.
"""

import re
from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element

UNSET_SECONDS: Final = 20.0
"""The engine's own, for an operation and a cluster that name none, or none that it understands."""
UNITS: Final = {
    **dict.fromkeys(("us", "usec"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("", "s", "sec"), 1.0),
    **dict.fromkeys(("m", "min"), 60.0),
    **dict.fromkeys(("h", "hr"), 3600.0),
}
TIME: Final = re.compile(r"\s*([0-9]{1,12})\s*([a-z]*)\s*", re.ASCII)
MIGRATE_SECONDS: Final = 3600
LEAST: Final = {
    "start": (180, "a start that waits for memory being taken for one that hangs"),
    "migrate_to": (MIGRATE_SECONDS, "a long migration being cut off, and its VM left alone by the engine"),
    "migrate_from": (MIGRATE_SECONDS, "a VM that has arrived being taken for one that has not"),
    "monitor": (60, "a VM being restarted because a busy host answers late"),
}
"""Seconds of each operation, and what they protect from. A host's hook lets a start wait for two minutes at
most, the host then has to start QEMU."""


def seconds_of(text: str | None) -> float:
    """What the engine makes of a timeout."""
    found = TIME.fullmatch((text or "").lower())
    if found is None or found[2] not in UNITS:
        return UNSET_SECONDS
    return int(found[1]) * UNITS[found[2]]


def short(resource: Element, default: str | None) -> Iterator[tuple[str, str]]:
    """Operations of a VM that would be cut off too early, and what is set. `default`: of all operations."""
    for name, (least, _) in LEAST.items():
        operations = [one for one in resource.iterfind("operations/op") if one.get("name") == name]
        timeouts = [_own(one) or default for one in operations] or [default]
        for timeout in timeouts:
            if seconds_of(timeout) < least:
                yield name, (timeout or "not set")[:40]
                break


def lengthen(resource: Element, default: str | None) -> None:
    """Have none of its operations cut off too early; what is longer stays."""
    for one in resource.iterfind("operations/op"):
        least, _ = LEAST.get(one.get("name", ""), (0, ""))
        if seconds_of(_own(one) or default) < least:
            for block in one.findall("meta_attributes"):
                for pair in block.findall("nvpair[@name='timeout']"):
                    block.remove(pair)
            one.set("timeout", f"{least}s")


def _own(operation: Element) -> str | None:
    """The timeout that an operation itself names."""
    pair = operation.find("meta_attributes/nvpair[@name='timeout']")
    return operation.get("timeout") or (None if pair is None else pair.get("value"))
