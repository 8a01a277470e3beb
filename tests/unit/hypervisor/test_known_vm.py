"""What the core is told of a domain whose limits come and go while it runs."""

from dataclasses import replace

from host_controller.core.interface import HypervisorEvent, VmAppeared, VmGone
from host_controller.core.model import RunState
from host_controller.domain_xml.read import read_domain
from host_controller.hypervisor.known_vm import KnownVm
from host_controller.hypervisor.libvirt_calls import Inspection
from tests.unit.hypervisor.domains import LIVE

MANAGED = Inspection(read_domain(LIVE), RunState.RUNNING)
UNMANAGED = Inspection(replace(MANAGED.view, config=None), RunState.RUNNING)


def appearances(*seen: Inspection) -> list[bool]:
    """Of a VM that was seen to start, and then like this: whether each VmAppeared says that it booted."""
    told: list[HypervisorEvent] = []
    known = KnownVm(MANAGED.view.uuid, told.append, booted=True)
    for one in seen:
        if one.view.config is None:
            known.gone("its limits went")
        known.described(one, state_is_fresh=True)
    return [event.booted for event in told if isinstance(event, VmAppeared)]


def test_a_vm_that_is_managed_from_its_start_has_the_target_that_it_started_with() -> None:
    assert appearances(MANAGED) == [True]


def test_one_that_is_taken_on_later_may_have_been_told_anything_meanwhile() -> None:
    assert appearances(UNMANAGED, MANAGED) == [False]


def test_one_that_was_let_go_and_is_taken_on_again_too() -> None:
    assert appearances(MANAGED, UNMANAGED, MANAGED) == [True, False]


def test_a_restart_makes_it_known_again() -> None:
    told: list[HypervisorEvent] = []
    known = KnownVm(MANAGED.view.uuid, told.append, booted=True)
    known.described(UNMANAGED, state_is_fresh=True)
    known.appeared(booted=True)
    known.described(MANAGED, state_is_fresh=True)
    assert [event.booted for event in told if isinstance(event, VmAppeared)] == [True]
    assert not any(isinstance(event, VmGone) for event in told)
