"""When a guest's agent is told that somebody listens. Messages may be lost, so silence is greeted again."""

import math
from typing import Final

from agent import wire
from host_controller import __version__
from host_controller.core.interface import (
    GuestSpoke,
    HypervisorEvent,
    SendToGuest,
    VmAppeared,
    VmConfigChanged,
    VmGone,
)

AGAIN_SECONDS: Final = 10.0
APART_SECONDS: Final = 1.0
"""An agent that says hello more often is answered this often: an answer costs us more than it."""


class Greeter:
    """Answers a VM's appearance, an agent's start, another maximum, and an agent that talks ungreeted."""

    def __init__(self) -> None:
        self._greeted: dict[str, bool] = {}
        """Whether the agent has said that it heard us, for each VM that runs."""
        self._said_at: dict[str, float] = {}
        self._maximum_bytes: dict[str, int] = {}
        self._asked: set[str] = set()
        """Agents that have said hello since, and wait for an answer."""

    def hear(self, event: HypervisorEvent, now: float) -> SendToGuest | None:
        """The greeting that follows from an event."""
        match event:
            case VmAppeared(vm):
                self._greeted[vm] = False
                self._maximum_bytes[vm] = event.config.limits.maximum_bytes
                return self._welcome(vm, now)
            case VmConfigChanged(vm, config) if config.limits.maximum_bytes != self._maximum_bytes.get(vm):
                self._maximum_bytes[vm] = config.limits.maximum_bytes
                return self._welcome(vm, now)
            case VmGone(vm):
                for known in (self._greeted, self._said_at, self._maximum_bytes):
                    known.pop(vm, None)
                self._asked.discard(vm)
            case GuestSpoke(vm, wire.Hello(welcomed=True)):
                self._greeted[vm] = True
            case GuestSpoke(vm, wire.Hello()):
                self._greeted[vm] = False
                self._asked.add(vm)
                return self._welcome_again(vm, now)
            case GuestSpoke(vm) if self._greeted.get(vm) is False:
                return self._welcome_again(vm, now)
        return None

    def _welcome_again(self, vm: str, now: float) -> SendToGuest | None:
        apart = APART_SECONDS if vm in self._asked else AGAIN_SECONDS
        return self._welcome(vm, now) if now - self._said_at.get(vm, -math.inf) >= apart else None

    def _welcome(self, vm: str, now: float) -> SendToGuest:
        self._said_at[vm] = now
        self._asked.discard(vm)
        return SendToGuest(vm, wire.Welcome(__version__, maximum_bytes=self._maximum_bytes.get(vm, 0)))
