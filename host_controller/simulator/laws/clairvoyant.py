"""The bound: a law that knows what every guest will need, and gives just that, when it can be given."""

from collections.abc import Sequence

from host_controller.simulator.laws.views import Foresight, GuestSight, HostSight


class Clairvoyant:
    """Everybody has, at every time, the most that it will need within the lead, and a buffer.

    When that is more than there is, the largest wishes are cut, to one level for all of equal weight: so most
    guests have all that they need.
    """

    def __init__(
        self,
        foresight: Foresight,
        buffer_percent: float = 0.0,
        lead_seconds: float = 5.0,
        period: float = 1.0,
    ) -> None:
        self.period = period
        self.foresight = foresight
        self.buffer_percent = buffer_percent
        self.lead_seconds = lead_seconds
        """Time that the slowest actuator takes."""

    def targets(self, host: HostSight, guests: Sequence[GuestSight], now: float) -> dict[str, float]:
        """Those who give come first."""
        factor = 1.0 + self.buffer_percent / 100.0
        wanted = {g.name: g.within(self.foresight(g.name, self.lead_seconds) * factor) for g in guests}
        least = {g.name: g.minimum for g in guests}
        given = cut(wanted, least, host.total, {g.name: g.weight for g in guests})
        current = {g.name: g.current for g in guests}
        return dict(sorted(given.items(), key=lambda item: item[1] >= current[item[0]]))


def cut(
    wanted: dict[str, float], least: dict[str, float], budget: float, weights: dict[str, int] | None = None
) -> dict[str, float]:
    """max(least, min(wanted, level × weight)) with the highest level that the budget allows."""
    if not wanted or sum(wanted.values()) <= budget:
        return wanted
    weights = weights or dict.fromkeys(wanted, 1)

    def at(level: float) -> dict[str, float]:
        return {name: max(least[name], min(size, level * weights[name])) for name, size in wanted.items()}

    low, high = 0.0, max(size / weights[name] for name, size in wanted.items())
    for _ in range(50):
        level = (low + high) / 2
        low, high = (level, high) if sum(at(level).values()) <= budget else (low, level)
    return at(low)
