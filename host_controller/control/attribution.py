"""When a guest is asked who holds its memory, and what operators are told of its answer.

    once, when its agent has said that it answers      so that there is something to compare with
    its demand has moved by much since it was asked     a step up is told; one down is remembered
    it gets less than it needs                          who holds what is told
    somebody asks: `dynmem explain`                     the answer is shown

So a guest in which nothing moves is asked once in its agent's life, and no calm guest pays for it. One
question is on its way to a VM at a time. A VM of `trust = "none"` is not asked, nor one whose agent has not
said that it answers. Nothing here touches a VM, and no decision depends on an answer.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from agent import wire
from host_controller.control.holders import Growth, Look, base_of, believed, growths
from host_controller.core.engine import Engine, Event
from host_controller.core.interface import GuestGone, GuestNoise, GuestSpoke, SendToGuest, VmGone
from host_controller.core.model import UNTRUSTED
from host_controller.core.state import Notice
from host_controller.core.vm.record import Vm
from host_controller.units import MIB, format_size

APART_SECONDS: Final = 30.0
"""Of its own accord the host asks a guest this often at most."""
ON_DEMAND_SECONDS: Final = 10.0
"""However often somebody asks."""
ANSWER_SECONDS: Final = 10.0
"""A question without an answer is forgotten."""
FIRST_SECONDS: Final = 30.0
"""From an agent's start to the first question: services start beside it."""
SHORT_AGAIN_SECONDS: Final = 600.0
"""A VM that is short again is news after so long."""
LEAST_STEP_BYTES: Final = 128 * MIB
STEP_SHARE: Final = 16
"""Demand that moves by this part of the VM's maximum is worth a question, and growth by half of it a word."""
NEWS_SECONDS: Final = 900.0
"""For so long what was told last is shown beside the VM."""
KEPT_LOOKS: Final = 16
_FIRST_REQUEST: Final = 1 << 40
"""Far from the numbers of the engine's requests, which are answered by the same agent."""


@dataclass(slots=True)
class _Guest:
    """What is known of one VM."""

    willing: wire.Willing = "unknown"
    boot_id: str = ""
    since: float = math.inf
    """When its agent first said that it answers."""
    asked_at: float = -math.inf
    own_at: float = -math.inf
    """When it was last asked of our own accord."""
    pending: int | None = None
    """The request that has no answer yet."""
    short_at: float = -math.inf
    """When it was last asked since the VM is short."""
    tells_short: bool = False
    """The answer that is awaited is to say who holds what, since the VM is short."""
    told: dict[str, int] = field(default_factory=dict)
    """Whose growth was told, while it lasts: its size then, bytes."""
    news: str = ""
    """What operators were told last."""
    news_at: float = -math.inf
    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=KEPT_LOOKS))


class Attribution:
    """Of the VMs of one engine, which is read and never changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._guests: dict[str, _Guest] = {}

    # --- what is known ---

    def willing(self, uuid: str) -> wire.Willing:
        """Whether its agent answers, by its own word."""
        guest = self._guests.get(uuid)
        return "unknown" if guest is None else guest.willing

    def last(self, uuid: str) -> tuple[Look, Look | None, list[Growth]] | None:
        """The last answer, the look that it is compared with, and who has grown since."""
        guest = self._guests.get(uuid)
        if guest is None or not guest.looks:
            return None
        look = guest.looks[-1]
        base = base_of(guest.looks, look)
        return look, base, growths(base, look)

    def news(self, uuid: str, now: float) -> str | None:
        """What operators were told last, while it is news: `web: php-fpm grew by 3.1 GiB in 5 minutes`."""
        guest = self._guests.get(uuid)
        return guest.news if guest is not None and now - guest.news_at <= NEWS_SECONDS else None

    def pending(self, uuid: str, now: float) -> bool:
        """It was asked, and may still answer."""
        guest = self._guests.get(uuid)
        return guest is not None and guest.pending is not None and now - guest.asked_at <= ANSWER_SECONDS

    # --- asking ---

    def ask(self, vm: Vm, now: float) -> SendToGuest | None:
        """The question, since somebody wants to know; None where it may not be asked, or was just now."""
        guest = self._guests.get(vm.config.uuid)
        if guest is None or now - guest.asked_at < ON_DEMAND_SECONDS or not self._may_ask(vm, guest, now):
            return None
        return self._question(vm, guest, now)

    def due(self, now: float) -> list[SendToGuest]:
        """The questions of this second."""
        found = []
        for uuid, guest in self._guests.items():
            if guest.willing != "on" or now - guest.own_at < APART_SECONDS:
                continue
            vm = self._engine.vms.get(uuid)
            if vm is not None and self._may_ask(vm, guest, now) and self._worth_it(vm, guest, now):
                guest.own_at = now
                found.append(self._question(vm, guest, now))
        return found

    def _may_ask(self, vm: Vm, guest: _Guest, now: float) -> bool:
        return (
            guest.willing == "on"
            and not self.pending(vm.config.uuid, now)
            and vm.config.trust is not UNTRUSTED
            and not vm.pauses.hands_off
            and vm.has_agent(now, self._engine.state.settings.stale_seconds)
        )

    def _worth_it(self, vm: Vm, guest: _Guest, now: float) -> bool:
        estimate = vm.guest.estimate
        if estimate is None:
            return False
        if now - guest.short_at >= SHORT_AGAIN_SECONDS and self._is_short(vm):
            guest.short_at = now
            return True
        if not guest.looks:
            return now - guest.since >= FIRST_SECONDS
        return abs(estimate.demand_bytes - guest.looks[-1].demand_bytes) >= step_bytes(vm)

    def _is_short(self, vm: Vm) -> bool:
        claims = self._engine.claims.get(vm.config.uuid)
        goal = self._engine.goals.get(vm.config.uuid)
        return claims is not None and goal is not None and goal + MIB < claims.need

    @staticmethod
    def _question(vm: Vm, guest: _Guest, now: float) -> SendToGuest:
        guest.asked_at = now
        guest.tells_short = guest.short_at == now  # an earlier question's reason is past, answered or not
        guest.pending = _FIRST_REQUEST + int(now * 1000)
        return SendToGuest(vm.config.uuid, wire.WhoHolds(guest.pending))

    # --- hearing ---

    def hear(self, event: Event, now: float) -> tuple[list[Notice], GuestNoise | None]:
        """What operators are to be told after an event, and what of it is not believed."""
        match event:
            case GuestSpoke(uuid, wire.Hello() as untrusted):
                self._greeted(uuid, untrusted, now)
            case GuestSpoke(uuid, wire.Ack() as untrusted) if untrusted.request_id >= _FIRST_REQUEST:
                self._refused(uuid, untrusted)
            case GuestSpoke(uuid, wire.Held() as untrusted):
                return self._answered(uuid, untrusted, now)
            case GuestGone(uuid):
                if uuid in self._guests:
                    self._guests[uuid].willing = "unknown"
            case VmGone(uuid):
                self._guests.pop(uuid, None)
        return [], None

    def _greeted(self, uuid: str, untrusted: wire.Hello, now: float) -> None:
        if uuid not in self._engine.vms:  # late words of a VM that is gone
            return
        guest = self._guests.setdefault(uuid, _Guest())
        if guest.boot_id != untrusted.boot_id:
            # What the last kernel's programs held is past; how often we ask is not.
            asked_at, own_at = guest.asked_at, guest.own_at
            guest = self._guests[uuid] = _Guest(boot_id=untrusted.boot_id, asked_at=asked_at, own_at=own_at)
        if untrusted.holders == "on" and guest.willing != "on":
            guest.since = now
        guest.willing = untrusted.holders

    def _refused(self, uuid: str, untrusted: wire.Ack) -> None:
        guest = self._guests.get(uuid)
        if guest is not None and guest.pending == untrusted.request_id:
            guest.pending = None

    def _answered(
        self, uuid: str, untrusted: wire.Held, now: float
    ) -> tuple[list[Notice], GuestNoise | None]:
        guest, vm = self._guests.get(uuid), self._engine.vms.get(uuid)
        asked = guest is not None and guest.pending == untrusted.request_id
        if guest is None or vm is None or not asked or now - guest.asked_at > ANSWER_SECONDS:
            return [], GuestNoise(uuid, "holders-unasked", 1)
        guest.pending = None
        estimate = vm.guest.estimate
        demand = 0 if estimate is None else estimate.demand_bytes
        if untrusted.by == "other":  # a newer agent's word, and no fault of its
            return [], None
        look = believed(untrusted, vm.ram_bytes + vm.virtio_mem.may_hold_bytes, demand, now)
        if look is None:
            return [], GuestNoise(uuid, "holders-above-ram", 1)
        guest.looks.append(look)
        texts = [*_growth_text(vm, guest, look), *_short_text(vm, guest, look)]
        if texts:
            guest.news, guest.news_at = "; ".join(texts), now
        return [Notice(now, "holders", uuid, vm.name, text) for text in texts], None


def step_bytes(vm: Vm) -> int:
    """By how much its demand must move to be worth a question."""
    return max(LEAST_STEP_BYTES, vm.config.limits.maximum_bytes // STEP_SHARE)


def _growth_text(vm: Vm, guest: _Guest, look: Look) -> list[str]:
    """Growth is news when it is large, and then when it has doubled."""
    base = base_of(guest.looks, look)
    large = [one for one in growths(base, look) if one.size_bytes >= step_bytes(vm) // 2]
    told = guest.told = {one.name: guest.told[one.name] for one in large if one.name in guest.told}
    news = [one for one in large if one.size_bytes >= 2 * told.get(one.name, 0)]
    told |= {one.name: one.size_bytes for one in news}
    return [f"{vm.name}: {', '.join(one.describe() for one in news)}"] if news else []


def _short_text(vm: Vm, guest: _Guest, look: Look) -> list[str]:
    if not guest.tells_short or not look.holders:
        return []
    guest.tells_short = False
    return [f"{vm.name} gets less than it needs; it is held by {named(look.holders)}"]


def named(holders: tuple[tuple[str, int], ...]) -> str:
    """As in `mysqld (3.0 GiB), php-fpm (512 MiB)`."""
    return ", ".join(f"{name} ({format_size(size)})" for name, size in holders)
