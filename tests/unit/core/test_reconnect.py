"""A VM that is seen again after a lost connection: what was on its way stays paid for."""

import math
from dataclasses import replace

from host_controller.core.books.charge import charge
from host_controller.core.books.ledger import Ledger
from host_controller.core.intake import apply
from host_controller.core.interface import AttachDimm, BalloonSampled, DimmsChanged, VmAppeared
from host_controller.core.model import Dimm, Growth, RunState
from host_controller.core.operations import Plug
from host_controller.core.state import State
from host_controller.core.vm import phases
from host_controller.core.vm.growth import LATE_PLUG_SECONDS
from host_controller.core.vm.record import Vm
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB
from tests.support.build import facts, settings, vm


def seen_again(web: Vm, dimms: tuple[Dimm, ...] = (), virtio_mem: int = 0) -> VmAppeared:
    """libvirtd was restarted."""
    return VmAppeared(
        web.config.uuid, web.config, RunState.RUNNING, dimms, 512 * MIB, booted=False,
        virtio_mem_bytes=virtio_mem, virtio_mem_requested_bytes=virtio_mem,
    )  # fmt: skip


def attaching(web: Vm, state: State) -> None:
    """A DIMM of 128 MiB was asked for, and the hypervisor has not answered."""
    operation = Plug(state.ticket, size_bytes=128 * MIB)
    state.operations[web.config.uuid] = operation
    web.plug.pay(128 * MIB)
    [command] = operation.advance(web, 1.0, agent=False)
    assert isinstance(command, AttachDimm)


def test_a_dimm_on_its_way_stays_paid_for_when_the_connection_is_lost_and_found_again() -> None:
    web = vm(512, facts=facts(512, 200))
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    attaching(web, state)
    apply(state, seen_again(web), 5.0)
    again = state.vms[web.config.uuid]
    assert charge(again, settings()) == (512 + 128 + 64) * MIB
    assert now_refused(again, 6.0), "no other is asked for meanwhile"
    apply(state, DimmsChanged(web.config.uuid, (Dimm("dimm0", 128 * MIB, None),)), 7.0)
    assert again.plug.pending_bytes == 0
    assert charge(again, settings()) == (640 + 64) * MIB, "it counts as RAM"


def test_what_boots_small_is_still_due_its_startup_when_the_connection_is_lost_and_found_again() -> None:
    small = {"growth": Growth.VIRTIO_MEM, "virtio_mem_bytes": 512 * MIB, "boot_ram_bytes": 256 * MIB}
    web = vm(256, config=small, booted_at=3.0, reports_since=math.inf)
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    apply(state, seen_again(web), 5.0)
    again = state.vms[web.config.uuid]
    assert (again.booted_at, again.reports_since) == (3.0, math.inf)


def test_a_dimm_that_does_not_come_after_all_is_paid_for_until_qemu_answers() -> None:
    web = vm(512, facts=facts(512, 200))
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    attaching(web, state)
    apply(state, seen_again(web), 5.0)
    again = state.vms[web.config.uuid]
    apply(state, seen_again(again), 6.0)
    again = state.vms[web.config.uuid]
    assert again.plug.pending_bytes == 128 * MIB, "also when it is lost twice"
    apply(state, BalloonSampled(web.config.uuid, 512 * MIB, None), 6.1 + LATE_PLUG_SECONDS)
    phases.advance(again, settings(), 6.1 + LATE_PLUG_SECONDS)
    assert again.plug.pending_bytes == 128 * MIB, "it may come before the first command of ours"
    again.balloon.send(1, 512 * MIB, 512 * MIB, 6.1 + LATE_PLUG_SECONDS)
    again.balloon.answered(1, None, 6.1 + LATE_PLUG_SECONDS)
    phases.advance(again, settings(), 6.1 + LATE_PLUG_SECONDS)
    assert again.plug.pending_bytes == 0
    assert not now_refused(again, 6.1 + LATE_PLUG_SECONDS)


def test_a_dimm_that_came_while_the_connection_was_lost_is_paid_for_once() -> None:
    web = vm(512, facts=facts(512, 200))
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    attaching(web, state)
    apply(state, seen_again(web, (Dimm("dimm0", 128 * MIB, None),)), 5.0)
    assert charge(state.vms[web.config.uuid], settings()) == (640 + 64) * MIB


def test_a_dimm_that_was_only_planned_is_forgotten_with_the_connection() -> None:
    web = vm(512, facts=facts(512, 200))
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    state.operations[web.config.uuid] = Plug(state.ticket, size_bytes=128 * MIB)
    web.plug.pay(128 * MIB)
    apply(state, seen_again(web), 5.0)
    assert state.vms[web.config.uuid].plug.pending_bytes == 0


def test_a_size_of_virtio_mem_on_its_way_stays_paid_for_when_the_connection_is_lost_and_found_again() -> None:
    device = VirtioMem(128 * MIB, 128 * MIB, 128 * MIB, confirmed_bytes=128 * MIB)
    web = vm(512, config={"growth": Growth.VIRTIO_MEM, "virtio_mem_bytes": 512 * MIB}, virtio_mem=device)
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    device.ask(web.config.uuid, 7, 384 * MIB, 1.0)
    apply(state, seen_again(web, virtio_mem=128 * MIB), 5.0)
    again = state.vms[web.config.uuid].virtio_mem
    assert again.may_hold_bytes == 384 * MIB
    again.release()
    assert again.may_hold_bytes == 384 * MIB, "nobody knows what is asked for"
    again.ask(web.config.uuid, 8, 128 * MIB, 6.0)
    again.answered(8, None, 6.0)
    again.catch_up(100.0)
    assert again.may_hold_bytes == 128 * MIB


def test_a_vm_that_is_met_may_have_been_given_more_virtio_mem_a_moment_ago() -> None:
    web = vm(512, config={"growth": Growth.VIRTIO_MEM, "virtio_mem_bytes": 512 * MIB})
    state = State(settings(), Ledger(settings()))
    apply(state, seen_again(web, virtio_mem=384 * MIB), 5.0)
    device = state.vms[web.config.uuid].virtio_mem
    device.ask(web.config.uuid, 8, 128 * MIB, 6.0)
    device.answered(8, None, 6.0)
    device.observe(128 * MIB, None, 6.5)
    assert device.may_hold_bytes == 384 * MIB


def test_a_vm_that_was_started_anew_owes_nothing_of_what_was_on_its_way_before() -> None:
    web = vm(512, facts=facts(512, 200))
    state = State(settings(), Ledger(settings()), {web.config.uuid: web})
    attaching(web, state)
    apply(state, replace(seen_again(web), booted=True), 5.0)
    assert state.vms[web.config.uuid].plug.pending_bytes == 0


def now_refused(web: Vm, now: float) -> bool:
    return now < web.plug_rest.until
