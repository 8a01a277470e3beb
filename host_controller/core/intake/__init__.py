"""How each event changes what is known. Events are facts or claims; nothing is decided here.

host.py      the host, its operator, VMs that are to start
arrivals.py  a VM appears
machine.py   what its QEMU and its libvirt do with it: state, jobs, resets, its end
memory.py    balloon, resident memory, DIMMs, virtio-mem, and how commands ended
words.py     what its guest says
"""

from typing import assert_never

from host_controller.core import interface as hv
from host_controller.core.intake import arrivals, host, machine, memory, words
from host_controller.core.operator_events import HoldVm, OperatorEvent
from host_controller.core.state import State
from host_controller.core.vm.record import Vm

Event = hv.HypervisorEvent | OperatorEvent | hv.Tick

__all__ = ["Event", "apply"]


def apply(state: State, event: Event, now: float) -> None:
    """Take in one event. An event about a VM that is not known (any more) is dropped."""
    if isinstance(event, host.HostEvent):
        host.take(state, event, now)
        return
    if isinstance(event, hv.VmAppeared):
        arrivals.appeared(state, event, now)
    elif (vm := state.vms.get(event.vm)) is not None:
        state.apart(vm, now, _take, event, state, now)
    state.dirty.add(event.vm)


def _take(vm: Vm, event: hv.VmEvent | HoldVm, state: State, now: float) -> None:
    if isinstance(event, hv.MemoryEvent):
        memory.take(vm, event, state, now)
    elif isinstance(event, hv.GuestEvent):
        words.take(vm, event, state, now)
    elif isinstance(event, hv.MachineEvent | HoldVm):
        machine.take(vm, event, state, now)
    else:
        assert_never(event)
