"""What each command is in libvirt's terms. Every function here blocks and runs in a connection's thread."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import libvirt
import structlog

from host_controller.core.interface import (
    AttachDimm,
    DetachDimm,
    ResizeVirtioMem,
    Resume,
    SetTarget,
    Suspend,
)
from host_controller.core.model import BalloonStats, RunState
from host_controller.domain_xml.read import read_domain, unread_domain
from host_controller.domain_xml.view import DomainView
from host_controller.errors import CallFailed, DomainUnsuitable
from host_controller.host.limits import Limit
from host_controller.hypervisor import marks
from host_controller.hypervisor.as_it_runs import as_it_runs
from host_controller.hypervisor.connections import Connection
from host_controller.hypervisor.jobs import INCOMING, running_job
from host_controller.hypervisor.memory_devices import dimm_xml, resized
from host_controller.hypervisor.opening import versions
from host_controller.rules.taking import NO_RULES, Rulebook, take
from host_controller.units import KIB

LIVE: Final = libvirt.VIR_DOMAIN_AFFECT_LIVE

log = structlog.get_logger(__name__)

VmCommand = SetTarget | AttachDimm | DetachDimm | ResizeVirtioMem | Suspend | Resume

OwnLimit = Callable[[str, int | None], Limit | None]
"""The limit on a VM's own control group, by its UUID and the user id as which its QEMU runs."""

RUN_STATES: Final = {
    libvirt.VIR_DOMAIN_RUNNING: RunState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: RunState.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: RunState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: RunState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: RunState.PAUSED,
    libvirt.VIR_DOMAIN_CRASHED: RunState.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF: RunState.OFF,
    libvirt.VIR_DOMAIN_NOSTATE: RunState.RUNNING,
}


class JobRunning(CallFailed):
    """Not sent, because a migration, save or snapshot holds the VM."""

    def __init__(self, job: str) -> None:
        super().__init__(f"not while this job runs: {job}")
        self.job = job


@dataclass(frozen=True, slots=True)
class Sample:
    """What libvirt and QEMU say of a running VM at one moment."""

    actual_bytes: int | None
    """None without a balloon, and while the VM arrives: libvirt would hold the question until it is there."""
    stats: BalloonStats | None
    job: str | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """A running domain as libvirt describes it."""

    view: DomainView
    state: RunState
    vcpu_seconds: float | None = None
    """Processor time of its vCPUs, of a domain that stands still."""
    unreadable: str | None = None
    """Why its XML could not be read: then the view is no more than its name and its RAM, unmanaged."""
    job: str | None = None
    """One that holds it, of a domain that stands still by a mark: it may just be arriving."""

    @property
    def stands_for_us(self) -> bool:
        """It stands still since a controller stopped it after a reset, and nobody else will let it run."""
        mark = self.view.standing
        return mark is not None and self.state is RunState.PAUSED and mark.holds(self.vcpu_seconds)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command that was carried out has told."""

    view: DomainView | None = None
    """After AttachDimm: the domain with what is plugged."""
    vcpu_seconds: float | None = None
    """After Suspend: the processor time that its vCPUs have had."""


def not_known(_uuid: str, _owner: int | None) -> None:
    """Of a VM on another machine: its control group is there."""


def inspect(
    connection: Connection,
    uuid: str,
    book: Rulebook = NO_RULES,
    started_with: int | None = None,
    own_limit: OwnLimit = not_known,
) -> Inspection | None:
    """State and XML of a domain, None when it is not running. Needs no answer of its QEMU."""
    try:
        domain = connection.domain(uuid)
        state = RUN_STATES.get(domain.state()[0], RunState.RUNNING)
        if state is RunState.OFF:
            return None
        try:
            view = _read(domain, book, started_with, own_limit)
        except (DomainUnsuitable, ValueError, OverflowError) as error:
            maximum_kib = domain.info()[1]
            return Inspection(unread_domain(uuid, domain.name(), maximum_kib * KIB), state, None, str(error))
        still = state is RunState.PAUSED
        job = running_job(domain) if still and view.standing is not None else None
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            connection.forget(uuid)
            return None
        raise
    return Inspection(view, state, vcpu_seconds(domain) if still else None, job=job)


def _read(domain: Any, book: Rulebook, started_with: int | None, own_limit: OwnLimit) -> DomainView:
    xml = domain.XMLDesc(0)
    view = read_domain(xml)
    if view.config is None:
        persistent = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) if domain.isPersistent() else None
        view = take(xml, persistent, book, started_with).view
    return as_it_runs(view, xml, None if view.config is None else own_limit(view.uuid, view.owner))


def vcpu_seconds(domain: Any) -> float | None:
    """Processor time of a domain's vCPUs, without asking its QEMU; None where libvirt does not know it."""
    try:
        return sum(int(one[2]) for one in domain.vcpus()[0]) / 1e9
    except (libvirt.libvirtError, TypeError):
        return None


def versions_of(connection: Connection) -> tuple[int, int]:
    """Of libvirt and QEMU, as `opening.versions` has them."""
    return versions(connection.handle)


def active_uuids(connection: Connection) -> list[str]:
    """All running domains. Blocks while a start hook waits (fact: lists-wait-for-hooks), so only at
    connect.
    """
    return [
        one.UUIDString() for one in connection.handle.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    ]


def sample(connection: Connection, uuid: str) -> Sample:
    """Balloon, its statistics and the running job. One request to QEMU, about 2 ms."""
    domain = connection.domain(uuid)
    job = running_job(domain)
    if job == INCOMING:
        return Sample(None, None, job)
    figures = domain.memoryStats()
    actual = figures.get("actual")
    return Sample(None if actual is None else actual * KIB, balloon_stats(figures), job)


def balloon_stats(figures: dict[str, int]) -> BalloonStats | None:
    """What the balloon's driver said, from libvirt's figures in KiB; None where it said too little.

    Every figure is optional. Without a balloon there is none at all; a driver that answers without figures
    (FreeBSD) leaves `last_update` alone; Linux before 4.6 has no `usable`.
    """
    total, usable, updated = (figures.get(name) for name in ("available", "usable", "last_update"))
    if not updated or total is None or usable is None:
        return None
    return BalloonStats(total_bytes=total * KIB, available_bytes=usable * KIB, updated=updated)


def set_stats_period(connection: Connection, uuid: str, seconds: int) -> None:
    """Have QEMU ask the balloon driver for statistics.

    Raises:
        JobRunning: before anything was sent.
    """
    domain = connection.domain(uuid)
    if (job := running_job(domain)) is not None:
        raise JobRunning(job)
    domain.setMemoryStatsPeriod(seconds, LIVE)


def inspect_with_statistics(
    connection: Connection,
    uuid: str,
    seconds: int,
    book: Rulebook = NO_RULES,
    started_with: int | None = None,
    own_limit: OwnLimit = not_known,
    *,
    held: bool | None = None,
) -> Inspection | None:
    """As `inspect`. Has a managed VM's balloon asked for statistics so often, unless it is already; and looks
    after the marks of one that a controller has stopped, and of one that is to be `held` or not.
    """
    found = inspect(connection, uuid, book, started_with, own_limit)
    if found is not None and found.view.standing is not None:
        _look_after_mark(connection, uuid, found)
    if found is not None and held is not None:
        wanted = held and found.view.config is not None
        if found.view.held is not wanted:
            marks.hold(connection.domain(uuid), on=wanted)
    if found is not None and found.view.wants_statistics:
        try:
            set_stats_period(connection, uuid, seconds)
        except (libvirt.libvirtError, JobRunning) as error:
            log.info("no balloon statistics", vm=found.view.name, error=str(error))
    return found


def _look_after_mark(connection: Connection, uuid: str, found: Inspection) -> None:
    """It goes once the VM has run. Whom nobody manages here, or any longer, is let run: it is charged all of
    its RAM either way, and no decision would ever concern it.
    """
    domain, name = connection.domain(uuid), found.view.name
    if found.stands_for_us:
        if found.view.config is not None or found.job is not None:
            return
        try:
            domain.resume()
        except libvirt.libvirtError as error:  # as where its disk is full; it counts all the same
            log.warning("it stood still after a reset, and is not let run", vm=name, error=str(error))
            return
        log.info("it is let run: it stood still after a reset, and is not managed", vm=name)
    marks.take_off(domain)


def carry_out(connection: Connection, command: VmCommand, limit_seconds: float) -> Done:
    """Do it.

    Raises:
        JobRunning: before anything was sent: libvirt would hold the call for up to 30 s (fact: job-lock).
        CallFailed: libvirt said no; or the limit had passed before anything was sent, because a job held
            even the question whether there is one: what was decided then may be wrong by now.
    """
    begun = time.monotonic()
    domain = connection.domain(command.vm)
    if not isinstance(command, Suspend | Resume) and (job := running_job(domain)) is not None:
        raise JobRunning(job)
    if time.monotonic() - begun > limit_seconds:
        raise CallFailed("not sent: libvirt was busy with the VM for too long")
    match command:
        case SetTarget():
            # Whole KiB, rounded down: never more than was paid for.
            domain.setMemoryFlags(command.target_bytes // KIB, LIVE)
        case AttachDimm():
            domain.attachDeviceFlags(dimm_xml(command.size_bytes), LIVE)
            return Done(view=read_domain(domain.XMLDesc(0)))
        case DetachDimm():
            domain.detachDeviceAlias(command.alias, LIVE)  # returns when QEMU has asked the guest
        case ResizeVirtioMem():
            domain.updateDeviceFlags(resized(domain.XMLDesc(0), command.requested_bytes), LIVE)
        case Suspend():
            domain.suspend()
            stopped_at = vcpu_seconds(domain)
            marks.write(domain, stopped_at)
            return Done(vcpu_seconds=stopped_at)
        case Resume():
            domain.resume()
            marks.take_off(domain)
    return Done()
