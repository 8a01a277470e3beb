"""What the observer says a guest may cost the host: written down a second time, on purpose.

Shares nothing with the product's ledger; a mistake would have to be made twice, in two ways, to stay unseen.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GuestSample:
    """One guest at one instant, sizes in bytes.

    `ram`: boot RAM and plugged DIMMs (`dimms` of it). `actual`: what the balloon says the guest has.
    `resident`: guest memory that the host has in use. `overhead`: the rest of QEMU. `balloon_alive`: `actual`
    has been seen to change since the last start or reset. `answer_age`: seconds since QEMU last answered (0
    when it did in this sample).
    """

    ram: int
    dimms: int
    actual: int
    resident: int
    overhead: int
    balloon_alive: bool
    answer_age: float
    charge: int


def charge_of(ram: int, actual: int, resident: int, overhead: int, balloon_alive: bool) -> int:
    """max(actual, resident) while the balloon is known to be alive, else all RAM; plus overhead. Bytes."""
    return (max(actual, resident) if balloon_alive else max(ram, resident)) + overhead


@dataclass(slots=True)
class BalloonWatch:
    """Knows whether a guest's balloon driver has shown life since the last start or reset.

    `actual` changes by itself when a DIMM comes or goes, which is not the guest's doing. QEMU may answer the
    questions for `actual` and for RAM before and after a plug: so a change counts only if RAM was the same in
    the answer before, too.
    """

    alive: bool = False
    _actual: int | None = None
    _ram: int | None = None
    _ram_settled: bool = False

    def reset(self) -> None:
        """The guest has been reset: its old figure stands, and means nothing."""
        self.alive = False
        self._actual = None

    def saw(self, actual: int, ram: int) -> None:
        """An answer, `actual` asked for before `ram`; bytes."""
        ram_settled = ram == self._ram
        if ram_settled and self._ram_settled and self._actual is not None and actual != self._actual:
            self.alive = True
        self._actual, self._ram, self._ram_settled = actual, ram, ram_settled


def dimm_bytes(devices: list[dict[str, Any]]) -> int:
    """Plugged memory from query-memory-devices: DIMMs whole, virtio-mem by its current size."""
    return sum(int(device["data"]["size"]) for device in devices if device["type"] in ("dimm", "virtio-mem"))
