"""What the fleet is told of this host: few figures, from which others decide what may start or go where."""

from collections.abc import Iterable

from host_controller import __version__
from host_controller.api.schema.fleet import FiguresView, UnmanagedView, VmFiguresView
from host_controller.control.admission import Admission
from host_controller.control.controller import Controller
from host_controller.control.giving import gives_bytes, is_settled
from host_controller.core.books.charge import overhead
from host_controller.core.vm.record import Vm


def figures_view(controller: Controller, admission: Admission, vms: list[VmFiguresView]) -> FiguresView:
    """The host; `vms` by `vm_figures`."""
    engine, now = controller.engine, controller.now()
    state, ledger = engine.state, engine.ledger
    overdraft, emergency = ledger.overdraft is not None, state.emergency.cause
    known = state.connected and not overdraft and emergency is None and not state.why_nobody()
    return FiguresView(
        at=round(controller.journal.wall_time(now), 3),
        version=__version__,
        capacity_bytes=max(0, ledger.capacity()),
        reserved_bytes=ledger.reserved() + engine.owed_bytes,
        admits_bytes=admits(controller, admission, vms) if known else 0,
        wait_seconds=admission.limit_seconds,
        connected=state.connected,
        overdraft=overdraft,
        emergency=emergency,
        vms=vms,
        unmanaged=_unmanaged(controller),
    )


def vm_figures(controller: Controller, vm: Vm) -> VmFiguresView:
    """What other hosts of the fleet are told of one VM."""
    engine = controller.engine
    settings, estimate = engine.state.settings, vm.guest.estimate
    charge = engine.charges.get(vm.config.uuid, 0)
    standstill = engine.state.standstills.get(vm.config.uuid)
    # As a start there is asked for (`read_start`).
    ram = vm.ram_bytes + max(vm.virtio_mem.current_bytes, vm.virtio_mem.requested_bytes)
    huge = 0 if vm.config.huge_page_bytes is None else ram
    return VmFiguresView(
        uuid=vm.config.uuid,
        name=vm.name,
        need_bytes=estimate.need_bytes if estimate else None,
        minimum_bytes=vm.config.limits.minimum_bytes,
        charge_bytes=charge,
        beside_bytes=max(overhead(vm, settings), charge - vm.assigned_bytes),
        arrival_bytes=ram - huge + settings.overhead_floor_bytes,
        huge_bytes=huge,
        huge_page_bytes=vm.config.huge_page_bytes,
        settled=is_settled(vm),
        stands_still=standstill is not None and standstill.stops_it,
    )


def _unmanaged(controller: Controller) -> list[UnmanagedView]:
    """By the latest look at the host; what was adopted or started since is told with the managed ones."""
    engine = controller.engine
    state, managed = engine.state, {vm.name for vm in engine.vms.values()}
    overhead_bytes = state.settings.overhead_floor_bytes
    return [
        UnmanagedView(uuid=one.uuid, name=one.name, size_bytes=one.ordinary_bytes + overhead_bytes)
        for one in (() if state.host is None else state.host.facts.unmanaged)
        if one.uuid not in engine.vms and one.name not in managed
    ]


def admits(controller: Controller, admission: Admission, vms: Iterable[VmFiguresView]) -> int:
    """What a start could be given: what is free, and what balloons can take within its wait from VMs that
    have more than they need, less what others that wait come first with; in a dry run nobody gives anything.
    Never negative.
    """
    engine = controller.engine
    free = engine.headroom_bytes - admission.first_bytes()
    for one in () if controller.dry_run else vms:
        vm = engine.vms.get(one.uuid)
        if vm is not None:  # it may have ended since it was asked for its figures
            free += gives_bytes(engine, vm, admission.limit_seconds, controller.now())
    return max(0, free)
