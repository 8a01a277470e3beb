"""What the adapter tells the core by itself, without a libvirt."""

from types import SimpleNamespace
from typing import Any

import pytest

from host_controller.core.interface import HypervisorEvent, VmAppeared, VmGone
from host_controller.core.model import RunState
from host_controller.hypervisor.adapter import LibvirtHypervisor
from tests.support import build

UUID = "uuid-of-web"


@pytest.mark.parametrize("described", [False, True])
def test_a_vm_that_was_told_of_and_stops_is_told_gone_once_also_before_it_was_looked_into_anew(
    described: bool,
) -> None:
    """As after libvirtd was away: then each VM has a new worker."""
    hypervisor = LibvirtHypervisor("test:///default")
    told: list[HypervisorEvent] = []
    hypervisor._inbox = told.append
    hypervisor._emit(VmAppeared(UUID, build.config(), RunState.RUNNING, (), 0, booted=False))

    def stop(why: str, *, gone: bool) -> None:
        if described and gone:
            hypervisor._emit(VmGone(UUID, why))

    worker: Any = SimpleNamespace(stop=stop)
    hypervisor._workers[UUID] = worker
    hypervisor.stopped(UUID, "destroyed")
    assert told[1:] == [VmGone(UUID, "destroyed")]


def test_who_was_never_told_of_is_not_told_gone() -> None:
    hypervisor = LibvirtHypervisor("test:///default")
    told: list[HypervisorEvent] = []
    hypervisor._inbox = told.append
    worker: Any = SimpleNamespace(stop=lambda why, gone: None)
    hypervisor._workers[UUID] = worker
    hypervisor.stopped(UUID, "destroyed")
    assert told == []
