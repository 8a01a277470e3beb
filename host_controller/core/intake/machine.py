"""What QEMU, libvirt and the operator do with a VM: its state, its jobs, its resets, its end."""

from typing import assert_never

from host_controller.core import interface as hv
from host_controller.core.operations.standstill import Standstill
from host_controller.core.operator_events import HoldVm
from host_controller.core.state import State
from host_controller.core.vm import phases
from host_controller.core.vm.record import Vm
from host_controller.neutral import shell_word


def take(vm: Vm, event: hv.MachineEvent | HoldVm, state: State, now: float) -> None:
    """Take in one of them."""
    match event:
        case hv.VmGone():
            del state.vms[event.vm]
            state.operations.pop(event.vm, None)
            state.standstills.pop(event.vm, None)
            state.notice(now, "gone", vm, f"{vm.name} is gone: {event.reason}")
        case hv.VmConfigChanged():
            if event.config != vm.config:
                pinned = vm.config.pinned
                vm.configure(event.config)
                state.notice(now, "config", vm, f"the limits of {vm.name} were changed")
                if event.config.pinned != pinned:
                    tell_pinned(vm, state, now)
        case hv.VmStateChanged():
            vm.pauses.run_state(event.state, now)
            if (standstill := state.standstills.get(event.vm)) is not None:
                standstill.state_changed(event.state, vm.name)
            state.notice(now, "state", vm, f"{vm.name} is {event.state}")
        case hv.VmReset():
            restarted(vm, state, now, "was reset")
            vm.plug_rest.forgive()
            vm.unplug_rest.forgive()
            # Of one that stands still already the time goes on.
            wait = state.settings.reset_wait_seconds
            state.standstills.setdefault(event.vm, Standstill(now, now + wait))
        case hv.JobChanged():
            if event.job != vm.pauses.job:
                what = f"{event.job} began" if event.job else f"{vm.pauses.job} is over"
                state.notice(now, "job", vm, f"{vm.name}: {what}")
            vm.pauses.job_is(event.job)
        case HoldVm():
            vm.pauses.by_operator(event.on)
            state.notice(now, "held", vm, f"{vm.name} was {'paused' if event.on else 'resumed'} here")
        case _:
            assert_never(event)


def tell_pinned(vm: Vm, state: State, now: float) -> None:
    """Once: what is taken from such a VM never comes back, so it is never worth asking it."""
    if vm.config.pinned is not None:
        why = f"{vm.config.pinned}; `dynmem doctor {shell_word(vm.name)}` says what to do"
        state.notice(now, "pinned", vm, f"{vm.name} is charged all of its RAM: {why}")


def restarted(vm: Vm, state: State, now: float, what: str) -> None:
    """Its kernel starts again."""
    operation = state.operations.get(vm.config.uuid)
    if operation is not None:
        operation.restarted(vm)
    phases.reset(vm, now)
    state.last_cause = f"{vm.name} {what}"
    state.notice(now, "reset", vm, state.last_cause)
