"""VMs that run and are in no book yet: a controller that has just started hears of them one after another.

What they hold looks free. So nobody is admitted and nobody grows before the hypervisor has told of everybody.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Final

LASTING_SECONDS: Final = 15.0
"""A VM of which the hypervisor can say nothing counts as told of after ten; what lasts longer is news."""
NAMED: Final = 5


@dataclass(slots=True)
class Awaited:
    """Whom the hypervisor has yet to tell of."""

    names: tuple[str, ...] | None = None
    """Of all that run while it has not told of everybody; then none. None: it has not said who runs."""
    _since: float | None = None
    """When it first said who runs."""
    _told: bool = False
    """Operators know that it lasts."""

    def take(self, names: tuple[str, ...], now: float) -> None:
        """The hypervisor says who is left."""
        self.names = names
        if self._since is None:
            self._since = now

    def left(self, *books: Container[str]) -> list[str]:
        """Those of them that are in none of these books, by name."""
        return [name for name in self.names or () if not any(name in book for book in books)]

    def why_nobody(self, left: list[str]) -> str:
        """Why nobody may be admitted while these are `left`, for people; empty when somebody may."""
        if self.names is None:
            return "nobody knows yet which VMs run here"
        return f"libvirt has not told yet of {_in_words(left)}" if left else ""

    def lasts(self, left: list[str], now: float) -> str:
        """What an operator is told, once, if these are left for long; else nothing."""
        if self._told or self._since is None or not left or now - self._since < LASTING_SECONDS:
            return ""
        self._told = True
        return f"until libvirt has told of {_in_words(left)}, no other VM is admitted here, and none grows"


def _in_words(names: list[str]) -> str:
    what = "a VM that runs" if len(names) == 1 else f"{len(names)} VMs that run"
    more = ", …" if len(names) > NAMED else ""
    return f"{what} ({', '.join(names[:NAMED])}{more})"
