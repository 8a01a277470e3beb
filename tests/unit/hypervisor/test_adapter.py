"""What the adapter tells the core by itself, without a libvirt."""

import asyncio
from typing import Any

from host_controller.core.interface import HypervisorEvent, VmAppeared, VmGone
from host_controller.core.model import RunState
from host_controller.hypervisor.adapter import LibvirtHypervisor
from host_controller.hypervisor.eventloop import Mailbox
from host_controller.hypervisor.libvirt_calls import Inspection
from tests.unit.hypervisor.test_known_vm import MANAGED, UNMANAGED
from tests.unit.hypervisor.test_worker import Lanes

UUID = MANAGED.view.uuid


class Reconnected(LibvirtHypervisor):
    """libvirtd was away: a VM has a new worker, over a new connection."""

    def __init__(self, *, announced: bool) -> None:
        super().__init__("test:///default")
        self.told: list[HypervisorEvent] = []
        self._inbox = self.told.append
        lanes: Any = Lanes()
        lanes.all = lambda: ()
        self._lanes, self._mailbox = lanes, Mailbox(asyncio.get_running_loop())
        assert MANAGED.view.config is not None
        if announced:
            self._emit(VmAppeared(UUID, MANAGED.view.config, RunState.RUNNING, (), 0, booted=False))
        self._add(UUID, booted=False)

    def described(self, found: Inspection) -> None:
        self._workers[UUID]._described(found, state_is_fresh=True)

    @property
    def gone(self) -> list[str]:
        return [event.reason for event in self.told if isinstance(event, VmGone)]


async def test_a_vm_that_was_told_of_and_stops_is_told_gone_once_also_before_it_was_looked_into_anew() -> (
    None
):
    for looked_into in (False, True):
        hypervisor = Reconnected(announced=True)
        if looked_into:
            hypervisor.described(MANAGED)
        hypervisor.stopped(UUID, "destroyed")
        assert hypervisor.gone == ["destroyed"]


async def test_who_was_never_told_of_is_not_told_gone() -> None:
    hypervisor = Reconnected(announced=False)
    hypervisor.described(UNMANAGED)
    hypervisor.stopped(UUID, "destroyed")
    assert hypervisor.told == []


async def test_who_is_not_managed_any_more_once_libvirtd_is_back_is_told_gone() -> None:
    """As where its rule was taken out meanwhile: else it is charged, and counted as unmanaged besides."""
    hypervisor = Reconnected(announced=True)
    hypervisor.described(UNMANAGED)
    hypervisor.described(UNMANAGED)
    assert hypervisor.gone == ["no longer managed"]
    hypervisor.stopped(UUID, "destroyed")
    assert hypervisor.gone == ["no longer managed"]
