"""What the controller knows, as the control API shows it. Reads the engine between two of its steps."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, Literal

from host_controller import __version__
from host_controller.api.schema.history import EntryView, HistoryView, SampleView
from host_controller.api.schema.host import AdmissionView, HostView, OverdraftView, PoolView, ReservationView
from host_controller.api.schema.vm import AgentView, DecisionView, LimitsView, Status, VmView
from host_controller.control.admission import Answer
from host_controller.control.controller import Controller
from host_controller.core.books.pools import page_size, pools
from host_controller.core.policy.plan import Decision, grow_dead_band
from host_controller.core.vm.record import Vm
from host_controller.records.entries import Entry
from host_controller.records.marks import mark_of
from host_controller.records.samples import Sample, unpack
from host_controller.records.stored_limits import StoredLimits

LIMITS: Final = ("startup", "minimum", "maximum", "buffer", "weight")


def host_view(controller: Controller, configuration_error: str | None = None) -> HostView:
    """The host and the controller."""
    engine, now = controller.engine, controller.now()
    state, ledger = engine.state, engine.ledger
    facts = state.host.facts if state.host else None
    overdraft = ledger.overdraft
    return HostView(
        version=__version__,
        pid=os.getpid(),
        uptime_seconds=round(now - controller.started_at, 3),
        dry_run=controller.dry_run,
        paused=controller.pausing.paused_all,
        connected=state.connected,
        connection=controller.connection,
        physical_bytes=facts.total_bytes if facts else None,
        available_bytes=facts.available_bytes if facts else None,
        capacity_bytes=ledger.capacity(),
        capacity_bound=ledger.host.bound,
        capacity_limited=ledger.host.limited,
        ordinary_bytes=facts.ordinary_bytes if facts else None,
        evictable_bytes=facts.evictable_bytes if facts else 0,
        others_bytes=facts.others_bytes if facts else 0,
        pools=[PoolView(**asdict(one)) for one in pools(facts, state.vms.values(), ledger.reservations)],
        unread=dict(facts.unread) if facts else {},
        psi_some_percent=facts.psi_some_percent if facts else None,
        psi_full_percent=facts.psi_full_percent if facts else None,
        reserve_bytes=ledger.host.reserve_bytes,
        spare_bytes=ledger.host.spare_bytes,
        unmanaged_bytes=ledger.unmanaged_bytes,
        foreign_bytes=facts.foreign_bytes if facts else 0,
        reserved_bytes=ledger.reserved() + engine.owed_bytes,
        ready_bytes=engine.ready_bytes,
        budget_bytes=engine.budget_bytes,
        charged_bytes=sum(engine.charges.values()),
        headroom_bytes=engine.headroom_bytes,
        waiting_bytes=engine.waiting_bytes,
        vm_swap_bytes=facts.vm_swap_bytes if facts else 0,
        overdraft=None
        if overdraft is None
        else OverdraftView(
            cause=overdraft.cause,
            since=controller.journal.wall_time(overdraft.started),
            bytes_now=engine.uncovered_bytes,
            bytes_peak=overdraft.peak_bytes,
        ),
        emergency=state.emergency.cause,
        reservations=[
            ReservationView(
                name=one.name, size_bytes=one.size_bytes, expires_in_seconds=max(0.0, one.expires - now)
            )
            for one in ledger.reservations.values()
        ],
        configuration_error=configuration_error,
        history_problem=controller.journal.problem,
        untold=state.why_nobody() or None,
        unasked_start=controller.starts.unasked,
        lateness_seconds=round(max(controller.latenesses, default=0.0), 4),
        tasks=controller.tasks(),
        errors={str(kind): count for kind, count in controller.journal.errors.items()},
    )


def vm_view(controller: Controller, vm: Vm) -> VmView:
    """What the API says of one VM."""
    engine, now = controller.engine, controller.now()
    uuid, config, limits = vm.config.uuid, vm.config, vm.config.limits
    estimate, decision = vm.guest.estimate, engine.decisions.get(uuid)
    operation = engine.state.operations.get(uuid)
    standstill = engine.state.standstills.get(uuid)
    speaks = vm.has_agent(now, engine.state.settings.stale_seconds)
    return VmView(
        uuid=uuid,
        name=vm.name,
        status=status_of(vm),
        state=vm.pauses.state,
        phase=vm.phase,
        job=vm.pauses.job,
        paused=vm.pauses.paused,
        growth=config.growth,
        trust=config.trust,
        source=config.source,
        limit_sources={**dict.fromkeys(LIMITS, config.source), **dict(config.defaults)},
        limits=LimitsView(
            startup_bytes=limits.startup_bytes,
            minimum_bytes=limits.minimum_bytes,
            maximum_bytes=limits.maximum_bytes,
            buffer_percent=limits.buffer_percent,
            weight=limits.weight,
        ),
        assigned_bytes=vm.assigned_bytes,
        demand_bytes=estimate.demand_bytes if estimate else None,
        need_bytes=estimate.need_bytes if estimate else None,
        eased_bytes=estimate.eased_bytes if estimate else None,
        desired_bytes=estimate.desired_bytes if estimate else None,
        lower_bytes=estimate.irreducible_bytes if estimate else None,
        pressure_percent=round(estimate.pressure_percent, 1) if estimate else None,
        usable_bytes=estimate.usable_bytes if estimate else None,
        goal_bytes=engine.goals.get(uuid),
        target_bytes=vm.balloon.target_bytes,
        actual_bytes=vm.balloon.actual_bytes,
        ram_bytes=vm.ram_bytes,
        virtio_mem_bytes=vm.virtio_mem.current_bytes,
        virtio_mem_requested_bytes=vm.virtio_mem.requested_bytes,
        huge_page_bytes=_huge_page_bytes(controller, vm),
        offline_bytes=vm.offline_bytes,
        charge_bytes=engine.charges.get(uuid, 0),
        resident_bytes=vm.evidence.resident_bytes,
        dimms=len(vm.dimms.plugged),
        slots=config.slots,
        agent=agent_view(controller, vm) if speaks else None,
        report_age_seconds=_age(now - vm.guest.facts.at) if vm.guest.facts else None,
        witness=_witness(vm, now, speaks=speaks),
        uncooperative_seconds=round(vm.progress.stuck_until - now, 1)
        if now < vm.progress.stuck_until
        else None,
        operation=operation.describe() if operation else None,
        standstill=standstill.describe(now) if standstill else None,
        channel_error=vm.guest.channel_error,
        decision=decision_view(controller, decision) if decision else None,
        holders_news=controller.attribution.news(uuid, now),
        ignored=dict(vm.guest.noise),
    )


def _witness(vm: Vm, now: float, *, speaks: bool) -> Literal["agent", "guest agent", "statistics", "none"]:
    if speaks:
        return "agent"
    if vm.guest.facts is None:
        return "none"
    return "guest agent" if vm.guest.is_read(now) else "statistics"


def agent_view(controller: Controller, vm: Vm) -> AgentView:
    """The agent in a guest, by its own words."""
    note = controller.guest_notes.of(vm.config.uuid)
    return AgentView(
        version=vm.guest.agent_version or "",
        report_age_seconds=_age(controller.now() - vm.guest.reported_at),
        psi=vm.guest.psi,
        kernel=note.kernel,
        online_policy=note.online_policy,
        hotplug=note.hotplug,
        swap_total_bytes=note.swap_total_bytes,
        swap_used_bytes=note.swap_used_bytes,
    )


def status_of(vm: Vm) -> Status:
    """As Hyper-V's memory status: does it have what it demands, and its buffer?"""
    estimate = vm.guest.estimate
    if estimate is None:
        return "unknown"
    assigned = vm.assigned_bytes
    if assigned < min(estimate.demand_bytes, vm.growth_ceiling_bytes):
        return "warning"
    if assigned + grow_dead_band(assigned) < min(estimate.desired_bytes, vm.growth_ceiling_bytes):
        return "low"
    return "ok"


def decision_view(controller: Controller, decision: Decision) -> DecisionView:
    """A decision; what it was based on is in the VM's figures."""
    return DecisionView(
        at=controller.journal.wall_time(decision.at),
        action=decision.action,
        reason=decision.reason,
        held_back=decision.blocked_by,
        target_bytes=decision.target_bytes,
        size_bytes=decision.size_bytes,
    )


def sample_views(controller: Controller, packed: Sequence[bytes], begin: float) -> list[SampleView]:
    """Samples as they are kept, from a time of the controller's clock on."""
    wall = controller.journal.wall_time
    return [sample_view(one, round(wall(one.at), 3)) for one in map(unpack, packed) if one.at >= begin]


def sample_view(sample: Sample, at: float) -> SampleView:
    """A sample, from memory or from history; `at` is seconds since 1970."""
    return SampleView(
        at=at,
        assigned_bytes=sample.assigned_bytes,  # one by one: by a table it takes twice as long
        demand_bytes=sample.demand_bytes,
        need_bytes=sample.need_bytes,
        desired_bytes=sample.desired_bytes,
        goal_bytes=sample.goal_bytes,
        target_bytes=sample.target_bytes,
        actual_bytes=sample.actual_bytes,
        charge_bytes=sample.charge_bytes,
        pressure_percent=round(sample.pressure_percent, 1),
        phase=sample.phase,
        report_age_seconds=_age(sample.report_age_seconds),
    )


def history_view(
    controller: Controller, uuid: str, samples: list[SampleView], entries: Sequence[Entry]
) -> HistoryView:
    """What became of a VM, as far as it is kept in memory."""
    vm = controller.engine.vms.get(uuid)
    return HistoryView(
        uuid=uuid,
        limits=None if vm is None else StoredLimits.of(vm.config),
        name=(controller.journal.find(uuid) or (uuid, uuid))[1],
        samples=samples,
        entries=[entry_view(one) for one in entries],
    )


def entry_view(entry: Entry) -> EntryView:
    """What the API says of one entry of the journal."""
    return EntryView(
        number=entry.number,
        at=round(entry.wall, 3),
        kind=entry.kind,
        topic=entry.topic,
        vm=entry.vm,
        name=entry.name,
        text=entry.text,
        detail=entry.detail,
        mark=mark_of(entry.kind, entry.topic, entry.text),
    )


def admission_view(answer: Answer) -> AdmissionView:
    """The answer to the hook."""
    return AdmissionView(
        admitted=answer.admitted,
        name=answer.name,
        need_bytes=answer.need_bytes,
        shortfall_bytes=answer.shortfall_bytes,
        waited_seconds=round(answer.waited_seconds, 3),
        message=answer.message,
    )


def _huge_page_bytes(controller: Controller, vm: Vm) -> int | None:
    host = controller.engine.state.host
    size = page_size(vm.config.huge_page_bytes, None if host is None else host.facts)
    return vm.config.huge_page_bytes if size is None else size


def _age(seconds: float) -> float | None:
    return round(seconds, 2) if math.isfinite(seconds) else None
