"""Memory promised to VMs that the fleet is about to bring: to few, for a time, and to one asker each.

A promise is a reservation like that of a start, made room for in the same way, and taken up by the VM's own
start here. It ends when it is not renewed, so an arbiter that dies or lies holds memory for two minutes.
"""

from dataclasses import dataclass
from typing import Final

from host_controller.control.admission import START_SECONDS, Admission, Answer, Start
from host_controller.control.controller import Controller
from host_controller.core.operator_events import Release, Reserve

MOST: Final = 256
"""At a time. A drain asks for all VMs of a host at once, and one of two hosts takes all of the other's. Their
sizes are bounded by this host's memory, not by their number."""


class PromiseRefused(Exception):  # noqa: N818 # read as what happened
    """It is not ours to give, or not theirs to ask for."""


@dataclass(frozen=True, slots=True)
class _Promise:
    token: str
    expires: float


class Promises:
    """What this host has promised to other hosts' VMs; each promise ends by itself unless it is renewed."""

    def __init__(self, controller: Controller, admission: Admission) -> None:
        self._controller = controller
        self._admission = admission
        self._made: dict[str, _Promise] = {}
        self._asking: set[str] = set()

    async def make(self, name: str, size_bytes: int, token: str, by: dict[str, object]) -> Answer:
        """Promise so much for a VM, or renew what was promised to the same asker.

        Raises:
            PromiseRefused: the VM is here, or somebody else has a reservation for it; or there are too many.
        """
        now, reserved = self._controller.now(), self._controller.engine.ledger.reservations.get(name)
        self._forget(now)
        known = self._made.get(name)
        if name in self._asking or (reserved is not None and (known is None or known.token != token)):
            raise PromiseRefused(f"{name} is about to start here by somebody else's wish")
        if any(vm.name == name for vm in self._controller.engine.vms.values()):
            raise PromiseRefused(f"{name} runs here")
        if known is not None and reserved is not None and reserved.size_bytes >= size_bytes:
            # Its start may be under way here, with huge pages that were promised beside.
            self._controller.put(
                Reserve(
                    name,
                    reserved.size_bytes,
                    now + START_SECONDS,
                    reserved.huge_page_bytes,
                    reserved.huge_bytes,
                    reserved.made_bytes,
                    reserved.pool_bytes,
                )
            )
            self._made[name] = _Promise(token, now + START_SECONDS)
            return Answer(name, size_bytes, 0, 0.0, f"renewed for {START_SECONDS:.0f} s")
        if known is None and len(self._made) + len(self._asking) >= MOST:
            raise PromiseRefused(f"{MOST} VMs are promised memory here already")
        self._asking.add(name)
        try:
            answer = await self._admission.admit(Start(name, managed=True, need_bytes=size_bytes), by)
        finally:
            self._asking.discard(name)
        if answer.admitted:
            self._made[name] = _Promise(token, self._controller.now() + START_SECONDS)
        return answer

    def release(self, name: str, token: str) -> bool:
        """Take a promise back; False where there is none of this asker's."""
        self._forget(self._controller.now())
        known = self._made.get(name)
        if known is None or known.token != token:
            return False
        del self._made[name]
        self._controller.put(Release(name))
        return True

    def _forget(self, now: float) -> None:
        """What has expired was given back by the engine, which counts by the same clock."""
        self._made = {name: one for name, one in self._made.items() if one.expires > now}
