"""A VM appears: it was started, it was found running, or it is seen again after a reconnection."""

from host_controller.core import interface as hv
from host_controller.core.intake import machine
from host_controller.core.intake.memory import unwrapped
from host_controller.core.model import RunState
from host_controller.core.operations.stages import UNANSWERED
from host_controller.core.operations.standstill import Stage, Standstill
from host_controller.core.state import State
from host_controller.core.vm import phases
from host_controller.core.vm.dimms import Dimms
from host_controller.core.vm.inheritance import InheritedPlug, boot_under_way
from host_controller.core.vm.pauses import Pauses
from host_controller.core.vm.record import STARTING, Vm
from host_controller.core.vm.virtio_mem import VirtioMem


def appeared(state: State, event: hv.VmAppeared, now: float) -> None:
    """A new record takes the place of an old one; whatever then goes wrong harms this VM alone."""
    asked = event.virtio_mem_requested_bytes
    vm = Vm(
        event.config,
        STARTING,
        since=now,
        booted_at=now,
        dimms=Dimms(event.dimms),
        virtio_mem=VirtioMem(
            event.virtio_mem_bytes, asked, asked, confirmed_bytes=asked, moved_at=now, raised_at=now
        ),
        pauses=Pauses(event.state),
    )
    known = state.vms.get(event.vm)
    state.vms[event.vm] = vm
    state.apart(vm, now, _settle_in, known, event, state, now)


def _settle_in(vm: Vm, known: Vm | None, event: hv.VmAppeared, state: State, now: float) -> None:
    actual = unwrapped(vm, event.actual_bytes)
    if event.booted:
        vm.starts(now)
        # The hypervisor starts a VM with its boot target, which we know: nothing needs to be sent.
        vm.balloon.read(actual, now)
        vm.balloon.starts_with(vm.boot_target_bytes)
    else:
        vm.balloon.presume(actual)
    plug = state.inherited_plugs.pop(event.vm, None)
    size = state.inherited_sizes.pop(event.vm, None)
    boot = state.inherited_boots.pop(event.vm, None)
    if known is not None:
        vm.remember(known)
        if not event.booted:
            vm.virtio_mem.go_on_from(known.virtio_mem)
            plug = plug or _under_way(known, state)
            boot = boot or boot_under_way(known, state.settings.settle_seconds, now)
        state.operations.pop(event.vm, None)
    if not event.booted:
        phases.take_over(vm, now)
        if boot is not None and boot.lasts(state.settings.settle_seconds, now):
            vm.goes_on_booting(*boot, now)
        if size is not None:
            vm.virtio_mem.inherit(min(size, vm.config.virtio_mem_bytes))
        if plug is not None and len(event.dimms) <= plug.dimms:
            phases.await_plug(vm, plug.size_bytes, now)
    _found_standing(vm, event, state, now)
    state.ledger.reservations.pop(vm.name, None)
    state.last_cause = f"{vm.name} {'was started' if event.booted else 'was found running'}"
    state.notice(now, "appeared", vm, state.last_cause)
    machine.tell_pinned(vm, state, now)


def _under_way(known: Vm, state: State) -> InheritedPlug | None:
    """A DIMM that the hypervisor was asked for: it may come, though the connection was lost meanwhile."""
    operation = state.operations.get(known.config.uuid)
    asked = known.plug.awaited or (operation is not None and operation.stage in UNANSWERED)
    if not asked or not known.plug.pending_bytes:
        return None
    return InheritedPlug(known.plug.pending_bytes, len(known.dimms.plugged))


def _found_standing(vm: Vm, event: hv.VmAppeared, state: State, now: float) -> None:
    """Go on with a standstill that a controller began, here or where it came from; others are their user's.

    Of one that came with the VM the time begins anew: its clock was that of another host.
    """
    inherited = state.inherited_standstills.pop(event.vm, None)
    before = inherited or state.standstills.pop(event.vm, None)
    if event.booted:
        return
    # What was left behind here may be of a QEMU that it has left since.
    if event.stopped_after_reset and (before is None or before.ran_since(event.vcpu_seconds, now)):
        until = now + state.settings.reset_wait_seconds
        before = Standstill(now, until, Stage.STANDING, vcpu_seconds=event.vcpu_seconds)
        state.notice(now, "reset", vm, f"{vm.name} stood still after a reset when it came")
    if before is None:
        return
    if vm.pauses.state is RunState.PAUSED and before.ran_since(event.vcpu_seconds, now):
        state.notice(now, "reset", vm, f"{vm.name} ran after we had stopped it: it is left as it is")
        return
    if before.go_on(vm.pauses.state, now):
        vm.pauses.stand_still(before.stops_it)
        state.standstills[event.vm] = before
        if before.stops_it:
            phases.reset(vm, before.since)
        # Else its kernel may have been up for long: it is taken over as it is.
