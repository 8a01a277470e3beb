"""Events in memory: the newest, in order, of every VM its share."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["notice", "decision", "command"]
SHED_SHARE: Final = 16
"""Whoever has most loses so much of it at once: looking for it at each entry would be dear."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    number: int
    """Rises by one with each entry of this controller; where a reader goes on."""
    at: float
    """Seconds of the controller's clock."""
    wall: float
    """Seconds since 1970."""
    kind: Kind
    topic: str
    """The notice's kind, the decision's action, or the command's name."""
    vm: str | None
    """UUID, if it is about one VM."""
    name: str | None
    text: str
    detail: dict[str, object]


class Entries:
    """At most `kept` of them. When there are more, the VM of which there are most loses its oldest."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._all: dict[int, Entry] = {}
        """By number, in order."""
        self._of: dict[str, deque[int]] = {}
        """Numbers by UUID; those about no VM are under an empty one."""

    def __len__(self) -> int:
        return len(self._all)

    def add(self, entry: Entry) -> None:
        """Keep a new one; its number is the largest."""
        self._all[entry.number] = entry
        self._of.setdefault(entry.vm or "", deque()).append(entry.number)
        if len(self._all) > self._kept:
            self._shed()

    def after(self, number: int) -> Iterator[Entry]:
        """Those with a larger number, oldest first."""
        found = []
        for one in reversed(self._all.values()):
            if one.number <= number:
                break
            found.append(one)
        return reversed(found)

    def find(self, wanted: str) -> tuple[str, str] | None:
        """UUID and name of the VM that was last talked of under either of them, running or not.

        A UUID goes before another VM's name, which may be the same.
        """
        named = None
        for one in reversed(self._all.values()):
            if one.vm is not None and one.vm == wanted:
                return one.vm, one.name or one.vm
            if one.vm is not None and one.name == wanted and named is None:
                named = one.vm, one.name
        return named

    def _shed(self) -> None:
        vm = max(self._of, key=lambda one: len(self._of[one]))
        numbers = self._of[vm]
        for _ in range(max(1, len(numbers) // SHED_SHARE)):
            del self._all[numbers.popleft()]
        if not numbers:
            del self._of[vm]
