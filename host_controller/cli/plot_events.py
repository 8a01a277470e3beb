"""Which events stand on the curve of a VM's history, and how they are told. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from host_controller.api.answer import known
from host_controller.neutral import neutral
from host_controller.records.marks import BLOCKED, GROWN, HELD_BACK, HOST, OPERATOR, RESET, SHRUNK, mark_of

STYLES: Final[dict[str, tuple[str, str]]] = {
    GROWN: ("^", "tab:green"),
    SHRUNK: ("v", "tab:blue"),
    HELD_BACK: ("X", "tab:red"),
    RESET: ("D", "tab:purple"),
    OPERATOR: ("o", "black"),
    HOST: ("s", "tab:red"),
}
"""Marker and colour of each kind."""
MOST_OF_A_KIND: Final = 60
MOST_TOLD: Final = 10
"""Events whose words stand below the picture."""
LONGEST_TEXT: Final = 110
_TOLD_FIRST: Final = (OPERATOR, RESET, HOST, HELD_BACK)


@dataclass(frozen=True, slots=True)
class Mark:
    """One event on the curve."""

    at: float
    """Seconds since 1970."""
    kind: str
    text: str


def marks(entries: Sequence[dict[str, Any]]) -> list[Mark]:
    """Those that are worth a mark, oldest first; of a kind that is frequent evenly chosen ones."""
    found: dict[str, list[Mark]] = {}
    for one in entries:
        at = known(one["at"], None)
        kind = mark_of(str(one["kind"]), str(one["topic"]), str(one["text"]))
        if at is not None and kind is not None:
            text = str(one["text"]).partition(BLOCKED)[2] if kind == HELD_BACK else str(one["text"])
            found.setdefault(kind, []).append(Mark(at, kind, neutral(text, LONGEST_TEXT)))
    chosen = [one for group in found.values() for one in _evenly(group, MOST_OF_A_KIND)]
    return sorted(chosen, key=lambda one: one.at)


def told(all_marks: Sequence[Mark]) -> list[Mark]:
    """Those whose words are shown: what people did first, then resets, then what held it back."""
    chosen: dict[str, Mark] = {}
    for kind in _TOLD_FIRST:
        for one in all_marks:
            if one.kind == kind and len(chosen) < MOST_TOLD:
                chosen.setdefault(one.text, one)
    return sorted(chosen.values(), key=lambda one: one.at)


def _evenly(group: list[Mark], most: int) -> list[Mark]:
    if len(group) <= most:
        return group
    return [group[place * len(group) // most] for place in range(most)]
