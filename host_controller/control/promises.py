"""Memory promised to VMs that the fleet is about to bring: to few, for a time, and to one asker each.

A promise is a reservation like that of a start, made room for in the same way, and taken up by the VM's own
start here: from then on its asker has no say in it. It ends when it is not renewed, so an arbiter that dies
or lies holds memory for two minutes. Whose it is stands in the books, which outlive the controller.
"""

from dataclasses import replace
from typing import Final

from host_controller.control.admission import START_SECONDS, Admission, Answer
from host_controller.control.controller import Controller
from host_controller.control.start_queue import Start
from host_controller.core.operator_events import Release, Reserve

MOST: Final = 256
"""At a time. A drain asks for all VMs of a host at once, and one of two hosts takes all of the other's. Their
sizes are bounded by this host's memory, not by their number."""


class PromiseRefused(Exception):  # noqa: N818 # read as what happened
    """It is not ours to give, or not theirs to ask for."""


class Promises:
    """What this host has promised to other hosts' VMs; each promise ends by itself unless it is renewed."""

    def __init__(self, controller: Controller, admission: Admission) -> None:
        self._controller = controller
        self._admission = admission
        self._asking: set[str] = set()

    async def make(self, start: Start, token: str, by: dict[str, object]) -> Answer:
        """Promise what a VM needs to come here, or renew what was promised to the same asker.

        Raises:
            PromiseRefused: the VM is here or is starting, or is promised to somebody else; or there are too
                many.
        """
        if self._controller.dry_run:
            raise PromiseRefused("the controller here keeps nothing for anybody: it is a dry run")
        name, reservations = start.name, self._controller.engine.ledger.reservations
        reserved = reservations.get(name)
        if reserved is not None and not reserved.token:
            raise PromiseRefused(f"{name} is starting here")
        if self._admission.waits(name) or (reserved is not None and reserved.token != token):
            raise PromiseRefused(f"{name} is about to start here by somebody else's wish")
        if name in self._running():
            raise PromiseRefused(f"{name} runs here")
        if reserved is not None and _covers(reserved, start):
            self._controller.put(replace(reserved, expires=self._controller.now() + START_SECONDS))
            return Answer(name, start.need_bytes, 0, 0.0, f"renewed for {START_SECONDS:.0f} s")
        if reserved is None and not self._controller.engine.state.connected:
            # A start is admitted then, as libvirt may start it before it answers. Nothing arrives.
            raise PromiseRefused("libvirt does not answer here: nothing can arrive")
        promised = {other for other, one in reservations.items() if one.token} | self._asking
        if reserved is None and len(promised) >= MOST:
            raise PromiseRefused(f"{MOST} VMs are promised memory here already")
        self._asking.add(name)
        try:
            return await self._admission.admit(start, by, token)
        finally:
            self._asking.discard(name)

    def _running(self) -> set[str]:
        """Names of the VMs here, managed or not."""
        state = self._controller.engine.state
        unmanaged = () if state.host is None else state.host.facts.unmanaged
        return {vm.name for vm in state.vms.values()} | {one.name for one in unmanaged}

    def release(self, name: str, token: str) -> bool:
        """Take a promise back; False where there is none of this asker's."""
        reserved = self._controller.engine.ledger.reservations.get(name)
        if reserved is None or not token or reserved.token != token:
            return False
        self._controller.put(Release(name))
        return True


def _covers(reserved: Reserve, start: Start) -> bool:
    """Whether that is enough for it still."""
    enough = reserved.size_bytes - reserved.made_bytes >= start.need_bytes
    pages = (reserved.huge_page_bytes, start.huge_page_bytes)
    return enough and reserved.huge_bytes >= start.huge_bytes and pages[0] == pages[1]
