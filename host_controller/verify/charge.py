"""What the observer says a guest may cost the host: written down a second time, on purpose.

Shares nothing with the product's ledger; a mistake would have to be made twice, in two ways, to stay unseen.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GuestSample:
    """One guest at one instant, sizes in bytes.

    `ram`: boot RAM and plugged DIMMs (`dimms` of it). `virtio_mem`: what such a device has plugged or is
    asked to plug, whichever is more; QEMU counts it neither in `ram` nor in `actual`.
    `actual`: what the balloon says the guest has of `ram`. `resident`: guest memory that the host has in use.
    `overhead`: the rest of QEMU. `balloon_alive`: `actual` has been seen to change since the last start or
    reset. `running`: its vCPUs did, in all of the sample. `answer_age`: seconds since QEMU last answered (0
    if it did in this sample).
    """

    ram: int
    dimms: int
    virtio_mem: int
    actual: int
    resident: int
    overhead: int
    balloon_alive: bool
    running: bool
    answer_age: float
    charge: int


def charge_of(
    ram: int,
    virtio_mem: int,
    actual: int,
    resident: int,
    overhead: int,
    balloon_alive: bool,
    running: bool,
) -> int:
    """What the guest has or may take: `actual` while its balloon is known to be alive, else all RAM, and its
    virtio-mem; or what is resident, if that is more. Plus overhead. Bytes.

    A guest that was reset and stands still takes nothing, so what it may take later does not count yet.
    """
    if not balloon_alive and not running:
        return resident + overhead
    return max((actual if balloon_alive else ram) + virtio_mem, resident) + overhead


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
    """Plugged DIMMs, from query-memory-devices."""
    return sum(int(device["data"]["size"]) for device in devices if device["type"] == "dimm")


def virtio_mem_bytes(devices: list[dict[str, Any]]) -> int:
    """What virtio-mem devices have plugged, or will when their guest gets to it, from the same answer."""
    found = [device["data"] for device in devices if device["type"] == "virtio-mem"]
    return sum(max(int(data["size"]), int(data["requested-size"])) for data in found)
