"""What is left when every VM is charged: the sum that never exceeds the capacity."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from host_controller.core.books.capacity import Capacity, capacity_of
from host_controller.core.model import HostFacts, Settings
from host_controller.core.operator_events import Reserve

TELL_SECONDS: Final = 120.0
"""In which a hypervisor that was away tells of all VMs that have started meanwhile."""
LASTING_SECONDS: Final = 10.0
"""In which large steps work an overdraft off, where they can."""


@dataclass(slots=True)
class Overdraft:
    """A time in which the charges exceeded the capacity: only a named event can cause one
    (rule: overdraft-named).
    """

    cause: str
    started: float
    peak_bytes: int
    ended: float | None = None


@dataclass(slots=True)
class Ledger:
    """The books of one host."""

    settings: Settings
    reservations: dict[str, Reserve] = field(default_factory=dict)
    """Promised to VMs that are about to start, by name."""
    room_wanted: dict[str, int] = field(default_factory=dict)
    """For VMs that wait to start, by name: not promised yet and no charge, but others are shrunk for it."""
    unmanaged_bytes: int = 0
    pools: dict[int, int] = field(default_factory=dict)
    """All that each pool of huge pages has, by the size of its pages; that is no part of the capacity."""
    overdraft: Overdraft | None = None
    host: Capacity = field(init=False)
    """What all VMs may cost, by the latest reading of the host."""

    def __post_init__(self) -> None:
        self.host = capacity_of(self.settings, None)

    def capacity(self) -> int:
        """What managed VMs and reservations may cost in sum."""
        return self.host.size_bytes - self.unmanaged_bytes

    def measure(self, settings: Settings, facts: HostFacts | None) -> int:
        """Work the capacity out anew; returns by how much it has become smaller (negative: larger)."""
        before = self.capacity()
        self.settings = settings
        self.host = capacity_of(settings, facts)
        if facts is not None:
            self.unmanaged_bytes = facts.unmanaged_bytes
            self.pools = {pool.page_bytes: pool.total_bytes for pool in facts.pools}
        return before - self.capacity()

    def reserved(self) -> int:
        """The sum of the reservations."""
        return sum(map(self._still_reserved, self.reservations.values()))

    def reserved_for(self, name: str) -> int:
        """What is still reserved for the VM of this name, bytes; 0 for none."""
        one = self.reservations.get(name)
        return 0 if one is None else self._still_reserved(one)

    def _still_reserved(self, one: Reserve) -> int:
        """Without what has become huge pages since it was promised: the capacity is smaller by that."""
        if not one.made_bytes:
            return one.size_bytes
        came = max(0, self.pools.get(one.huge_page_bytes or 0, 0) - one.pool_bytes)
        return one.size_bytes - min(one.made_bytes, came)

    def wanted(self) -> int:
        """What VMs that wait to start still need, in sum."""
        return sum(self.room_wanted.values())

    def headroom(self, charged_bytes: int) -> int:
        """What may still be granted beside charges of that sum; negative in an overdraft."""
        return self.capacity() - self.reserved() - charged_bytes

    def seen(self, unmanaged: Iterable[str], at: float) -> None:
        """These run by a look at the host at that time, which counts them: they need no reservation."""
        for name in unmanaged:
            one = self.reservations.get(name)
            if one is not None and one.started_at is not None and one.started_at < at:
                del self.reservations[name]

    def look_out(self, now: float) -> None:
        """Keep reservations of what has started: the hypervisor is away, or will soon tell of it."""
        for name, one in self.reservations.items():
            if one.started_at is not None and one.expires - now < TELL_SECONDS / 2:
                self.reservations[name] = replace(one, expires=now + TELL_SECONDS)

    def expire(self, now: float) -> list[Reserve]:
        """Drop reservations whose VM never came."""
        gone = [r for r in self.reservations.values() if r.expires <= now]
        for reservation in gone:
            del self.reservations[reservation.name]
        return gone

    def overdraft_lasts(self, now: float) -> bool:
        """Whether large steps alone have not ended it: then each byte counts that a VM has too much."""
        return self.overdraft is not None and now - self.overdraft.started >= LASTING_SECONDS

    def record(self, headroom_bytes: int, cause: str, now: float) -> Overdraft | None:
        """Open, deepen or close the overdraft; returns it when it was opened or closed."""
        current = self.overdraft
        if headroom_bytes < 0:
            if current is None:
                self.overdraft = Overdraft(cause, now, -headroom_bytes)
                return self.overdraft
            current.peak_bytes = max(current.peak_bytes, -headroom_bytes)
            return None
        if current is not None:
            current.ended = now
            self.overdraft = None
            return current
        return None
