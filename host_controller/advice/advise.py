"""Advice for a host: each VM's sizes are chosen from its own past, then all of them are proven by one replay.

The replay has everybody's advised limits at once, through the engine that will act, beside one with the
limits of now. Whoever goes short in it by more than 1/1000 of what it wants, and did not before, keeps its
limits, and that is said.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from host_controller.advice.past import DAY, Past
from host_controller.advice.replay import Outcome, Replay, VmOutcome
from host_controller.advice.sizes import Suggestion, suggest
from host_controller.core.model import Limits

ALLOWED: Final = 0.001
"""Of what it wants a VM may lack more than it does with the limits of now."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What one VM is advised, with what the replay gives for it."""

    past: Past
    now: Limits
    suggestion: Suggestion
    then: VmOutcome
    """What the replay gives with the limits of now."""
    advised: VmOutcome
    """And with those that are advised, everybody's."""
    taken_back: bool = False
    """The replay went short, so nothing is advised."""

    @property
    def limits(self) -> Limits:
        """What it could have."""
        return self.now if self.taken_back else self.suggestion.limits

    @property
    def freed_bytes(self) -> int:
        """What is no longer promised; negative where it is to have more."""
        return self.now.maximum_bytes - self.limits.maximum_bytes

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        past = self.past
        return {
            "uuid": past.uuid,
            "name": past.name,
            "now": asdict(self.now),
            "advised": asdict(self.limits),
            "changed": self.limits != self.now,
            "lower_bound": self.suggestion.lower_bound,
            "refused": self.suggestion.refused,
            "taken_back": self.taken_back,
            "confidence": self.suggestion.confidence,
            "days": round(past.days, 2),
            "days_spanned": round((past.end - past.begin) / DAY, 2),
            "gaps": past.gaps,
            "gap_seconds": round(past.gap_seconds),
            "reboots": past.reboots,
            "reasons": list(self.suggestion.reasons),
            "findings": list(self.suggestion.findings),
            "unmet_mib_seconds": {
                "now": round(self.then.unmet_mib_seconds, 1),
                "advised": round(self.advised.unmet_mib_seconds, 1),
            },
            "largest_bytes": {"now": self.then.largest_bytes, "advised": self.advised.largest_bytes},
            "freed_bytes": self.freed_bytes,
        }


@dataclass(frozen=True, slots=True)
class HostAdvice:
    """The advice for all VMs of a host, and what the replays with and without it came to."""

    vms: list[Advice]
    then: Outcome
    advised: Outcome
    left_out: tuple[str, ...]
    """VMs whose limits are not known."""

    def as_json(self, chosen: Sequence[Advice] | None = None) -> dict[str, Any]:
        """For --json. chosen: whom it is about, everybody by default; the replay is always everybody's."""
        told = self.vms if chosen is None else chosen
        return {
            "seconds": self.then.seconds,
            "peak_bytes": {"now": self.then.peak_bytes, "advised": self.advised.peak_bytes},
            "mean_bytes": {"now": round(self.then.mean_bytes), "advised": round(self.advised.mean_bytes)},
            "freed_bytes": sum(one.freed_bytes for one in told),
            "vms": [one.as_json() for one in told],
            "left_out": list(self.left_out),
        }


def advise(pasts: Sequence[Past], capacity_bytes: int | None = None, *, anyway: bool = False) -> HostAdvice:
    """Advice for each VM whose limits are known; the others take part in nothing.

    capacity_bytes: the host's; None: without contention.
    """
    known = [one for one in pasts if one.limits is not None]
    now = {one.uuid: one.limits.limits() for one in known if one.limits is not None}
    found = {one.uuid: suggest(one, now[one.uuid], anyway=anyway) for one in known}
    then = _play(known, now, capacity_bytes)
    advised = _play(known, {uuid: one.limits for uuid, one in found.items()}, capacity_bytes)
    vms = []
    for one in known:
        before, after = then.vms[one.uuid], advised.vms[one.uuid]
        short = after.unmet_share > before.unmet_share + ALLOWED
        changed = found[one.uuid].limits != now[one.uuid]
        vms.append(Advice(one, now[one.uuid], found[one.uuid], before, after, short and changed))
    return HostAdvice(vms, then, advised, tuple(one.name for one in pasts if one.limits is None))


def _play(pasts: Sequence[Past], limits: dict[str, Limits], capacity_bytes: int | None) -> Outcome:
    played = [one for one in pasts if one.peak_bytes is not None]
    outcome = Replay(played, limits, capacity_bytes).play() if played else Outcome()
    for one in pasts:
        outcome.vms.setdefault(one.uuid, VmOutcome(one.name))
    return outcome
