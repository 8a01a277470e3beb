"""One VM brought up to date: phase, operation, progress of its balloon, what it needs, what it costs."""

from host_controller.core.accounts import Account, Accounts
from host_controller.core.books import charge as books
from host_controller.core.commands import Command
from host_controller.core.operations import Operation, Plug
from host_controller.core.operations.resize import Resize
from host_controller.core.operations.stages import Outcome
from host_controller.core.policy import dimm_plan, plan
from host_controller.core.state import State
from host_controller.core.vm import phases
from host_controller.core.vm.check_progress import check_progress
from host_controller.core.vm.record import CONTRADICTED, LIVE, Vm


def refresh(vm: Vm, state: State, accounts: Accounts, scarce: bool, now: float) -> list[Command]:
    """All of it; returns what its operation commands. scarce: somebody waits for memory."""
    before, uuid, operations = vm.phase, vm.config.uuid, state.operations
    vm.virtio_mem.catch_up(now)
    phases.advance(vm, state.settings, now)
    if vm.phase is not before:
        _tell_phase(vm, state, now)
    commands: list[Command] = []
    if uuid in operations:
        commands = _advance_operation(vm, state, now)
    if uuid not in operations:
        found = check_progress(vm, needed=scarce, now=now)
        if found is not None:
            state.notice(now, "balloon", vm, found.describe(vm.name))
    vm.guest.work_out(vm.config.limits, now)
    weigh(vm, state, accounts, now)
    return commands


def weigh(vm: Vm, state: State, accounts: Accounts, now: float) -> int:
    """Work out what the VM costs and what it asks for. Returns what it costs, bytes."""
    settings = state.settings
    guest_charge = books.guest_charge(vm)
    overhead = books.overhead(vm, settings)
    charge = fixed = guest_charge + books.outside_balloon(vm) + overhead
    granted = vm.assigned_bytes
    claims, next_dimm, peaks = None, 0, 0
    if plan.immovable(vm, settings, now) is None:
        aside = books.fixed(vm)
        claims = plan.claims(vm, granted, aside, settings, now)
        if vm.progress.stuck(now):
            claims = plan.at_least(claims, plan.unmoved_bytes(vm, granted, now))
        fixed = aside + overhead + books.beyond_claim(vm)
        peaks = min(vm.guest.demand.level.peaks_bytes, claims.eased - claims.need)
        next_dimm = dimm_plan.next_dimm_slack(vm, claims.desired)
    uuid = vm.config.uuid
    accounts.charge(uuid, charge)
    growth, owed = plan.growth_bytes(vm), books.owed(vm, settings, now)
    stalls = vm.guest.demand.stalls
    accounts.enter(
        uuid, Account(guest_charge, fixed, growth, next_dimm, granted, claims, owed, peaks, stalls)
    )
    return charge


def charge_whole(vm: Vm, state: State, accounts: Accounts) -> None:
    """Not even its cost can be worked out: it is charged with all that it could ever be given."""
    uuid, config = vm.config.uuid, vm.config
    most = max(config.limits.maximum_bytes, config.boot_ram_bytes)
    charge = max(most + state.settings.overhead_floor_bytes, accounts.charges.get(uuid, 0))
    accounts.charge(uuid, charge)
    accounts.enter(uuid, Account(charge, charge, 0, 0, most, None))


def conclude(vm: Vm, operation: Operation, state: State, now: float) -> None:
    """Remember how an operation ended: success makes the VM trusted with the next one at once.

    One that was dropped says nothing about the guest: its failures before that still count.
    """
    del state.operations[vm.config.uuid]
    failed = operation.outcome is Outcome.FAILED
    if failed:
        vm.guest.forget_zone()  # whoever was to bring new memory online may have lost it
    if operation.note:
        state.notice(now, "operation", vm, f"{vm.name}: {operation.note}")
    if isinstance(operation, Resize):
        vm.virtio_mem.release()
    else:
        vm.balloon.say_again()
    grew = isinstance(operation, Plug) or (isinstance(operation, Resize) and operation.grows)
    if grew:
        vm.plug.settle()
    rest = vm.plug_rest if grew else vm.unplug_rest
    if failed:
        rest.failed(state.settings.rest_seconds, now, operation.kept_bytes)
    elif operation.outcome is Outcome.DONE and not 0 < rest.kept_bytes <= vm.virtio_mem.requested_bytes:
        rest.succeeded()


def _advance_operation(vm: Vm, state: State, now: float) -> list[Command]:
    operation = state.operations[vm.config.uuid]
    commands: list[Command] = []
    if operation.outcome is Outcome.UNDER_WAY and vm.pauses.left_alone:
        operation.leave()
    if operation.outcome is Outcome.UNDER_WAY:
        if vm.pauses.hands_off:
            operation.hold(now)
        else:
            # Whether the host still has what growth was paid for, is known when all VMs have been weighed.
            agent = vm.has_agent(now, state.settings.stale_seconds)
            commands = operation.advance(vm, now, agent, may_grow=False)
    if operation.outcome is not Outcome.UNDER_WAY:
        conclude(vm, operation, state, now)
    return commands


def _tell_phase(vm: Vm, state: State, now: float) -> None:
    found = vm.evidence.contradiction
    because = f": {found}" if vm.phase is CONTRADICTED and found else ""
    state.notice(now, "phase", vm, f"{vm.name} is {vm.phase}{because}")
    if vm.phase is not LIVE:
        state.last_cause = f"{vm.name} is {vm.phase}"
