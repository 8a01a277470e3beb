"""What libvirt says of its domains by itself: from its thread into the loop, and to each VM's worker."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

import libvirt
import libvirt_qemu
import structlog

from host_controller.core.interface import DimmRefused, GuestGone, Inbox, VmReset
from host_controller.core.model import RunState
from host_controller.hypervisor.connections import Connection
from host_controller.hypervisor.eventloop import Mailbox
from host_controller.hypervisor.worker import VmWorker
from host_controller.units import KIB

DEREGISTER_SECONDS: Final = 5.0

_STOPPED_REASONS: Final = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shut down",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "QEMU crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: "migrated away",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: "saved",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "failed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT: "reverted to a snapshot",
}
_CLOSE_REASONS: Final = {
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirtd closed the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "libvirtd does not answer",
}
_CRASH_KERNEL: Final = (libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_CRASHED_CRASHLOADED)
"""Its kernel has crashed, and another that it keeps for that runs in its place."""

log = structlog.get_logger(__name__)


class Host(Protocol):
    """Whoever has the workers of all domains that run."""

    @property
    def workers(self) -> Mapping[str, VmWorker]:
        """Of every domain that runs, by UUID."""

    def started(self, uuid: str, *, booted: bool) -> None:
        """A domain runs that has no worker yet. `booted`: its guest has just begun to."""

    def stopped(self, uuid: str, reason: str) -> None:
        """A domain does not run any more."""

    def lost(self, detail: str) -> None:
        """The connection to libvirt has broken."""


class Events:
    """The events of one connection, from `register` until `end`."""

    def __init__(self, host: Host, mailbox: Mailbox, emit: Inbox) -> None:
        self._host = host
        self._mailbox = mailbox
        self._emit = emit
        self._connection: Connection | None = None
        self._registered: list[Callable[[], object]] = []

    def register(self, connection: Connection) -> None:
        """Ask for every event. Runs in a connection's thread; callbacks run in libvirt's event thread."""
        handle = connection.handle
        post = self._post
        registered: list[Callable[[], object]] = []
        for event, method in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, self._on_balloon),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, self._on_device_added),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._on_device_removed),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, self._on_removal_failed),
            (libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, self._on_migration),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_job_completed),
            (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, self._on_metadata),
            (libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE, self._on_memory_device),
        ):
            try:
                number = handle.domainEventRegisterAny(
                    None, event, lambda _conn, domain, *rest: post(rest[-1], domain, *rest[:-1]), method
                )
            except libvirt.libvirtError as error:
                if event != libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE:
                    raise
                # Before libvirt 7.9, which cannot resize such a device, either.
                log.info("no news of how large virtio-mem devices are", error=str(error))
                continue
            registered.append(partial(handle.domainEventDeregisterAny, number))
        try:
            # The only news of the guest's end of a port: libvirt's own event is for its guest agent alone,
            # and that of later ones must not be asked for (fact: channel-event-crashes-python).
            number = libvirt_qemu.qemuMonitorEventRegister(
                handle, None, "VSERPORT_CHANGE", self._on_monitor_event, None
            )
            registered.append(partial(libvirt_qemu.qemuMonitorEventDeregister, handle, number))
        except libvirt.libvirtError as error:
            log.info("no news of ports opening and closing", error=str(error))
        handle.registerCloseCallback(self._on_close, None)
        registered.append(handle.unregisterCloseCallback)
        self._registered = registered
        self._connection = connection

    async def end(self) -> None:
        """Ask for no more, within DEREGISTER_SECONDS: a connection that hangs is given up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            ended = connection.start(lambda: _deregister(self._registered))
            await asyncio.wait({ended}, timeout=DEREGISTER_SECONDS)

    # --- in libvirt's event thread ---

    def _post(self, method: Any, domain: Any, *arguments: Any) -> None:
        self._mailbox.post(method, domain.UUIDString(), *arguments)

    def _on_monitor_event(
        self, _conn: object, domain: Any, _event: str, _s: int, _us: int, details: str, _opaque: object
    ) -> None:
        try:
            found = json.loads(details)
        except (ValueError, TypeError, RecursionError):  # TypeError: an event without details
            return
        if isinstance(found, dict):
            self._post(self._on_port, domain, found.get("id"), bool(found.get("open")))

    def _on_close(self, _handle: object, reason: int, _opaque: object) -> None:
        self._mailbox.post(self._host.lost, _CLOSE_REASONS.get(reason, "the connection broke"))

    # --- in the loop ---

    def _worker(self, uuid: str) -> VmWorker | None:
        return self._host.workers.get(uuid)

    def _on_lifecycle(self, uuid: str, event: int, detail: int) -> None:
        worker = self._worker(uuid)
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            booted = detail == libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED
            if worker is not None:
                worker.appeared(booted=booted)
            else:
                self._host.started(uuid, booted=booted)
        elif worker is None:
            return
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            self._host.stopped(uuid, _STOPPED_REASONS.get(detail, "stopped"))
        elif event == libvirt.VIR_DOMAIN_EVENT_RESUMED:
            worker.set_state(RunState.RUNNING)
        elif event in (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED):
            worker.set_state(RunState.PAUSED)
        elif (event, detail) == _CRASH_KERNEL:
            worker.look_again()  # it runs on, and starts anew once its memory is saved (kdump)
        elif event == libvirt.VIR_DOMAIN_EVENT_CRASHED:
            worker.set_state(RunState.CRASHED)
        elif event in (libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED):
            worker.look_again()

    def _on_reboot(self, uuid: str) -> None:
        worker = self._worker(uuid)
        if worker is not None and worker.known.managed:
            self._emit(VmReset(uuid))

    def _on_balloon(self, uuid: str, actual_kib: int) -> None:
        worker = self._worker(uuid)
        if worker is not None:
            worker.known.balloon_moved(actual_kib * KIB)

    def _on_device_added(self, uuid: str, _alias: str) -> None:
        worker = self._worker(uuid)
        if worker is not None:
            worker.look_again()

    def _on_device_removed(self, uuid: str, alias: str) -> None:
        worker = self._worker(uuid)
        if worker is not None:
            worker.dimm_removed(alias)

    def _on_removal_failed(self, uuid: str, alias: str) -> None:
        worker = self._worker(uuid)
        if worker is not None and worker.known.managed:
            self._emit(DimmRefused(uuid, alias))

    def _on_migration(self, uuid: str, _iteration: int) -> None:
        worker = self._worker(uuid)
        if worker is not None:
            worker.migrates()

    def _on_job_completed(self, uuid: str, _figures: dict[str, Any]) -> None:
        worker = self._worker(uuid)
        if worker is not None:
            worker.set_job(None)

    def _on_metadata(self, uuid: str, _kind: int, _namespace: str | None) -> None:
        worker = self._worker(uuid)
        if worker is not None:  # also somebody else's, and the title: rules go by them
            worker.look_again()

    def _on_memory_device(self, uuid: str, _alias: str, size_kib: int) -> None:
        worker = self._worker(uuid)
        if worker is not None:
            worker.virtio_mem_changed(size_kib * KIB)

    def _on_port(self, uuid: str, alias: str, opened: bool) -> None:
        worker = self._worker(uuid)
        if worker is None:
            return
        if not worker.known.has_port(alias):
            worker.look_again()  # it may be the QEMU guest agent's, which is asked only while it listens
        elif opened:
            worker.port.guest_opened()
        else:
            self._emit(GuestGone(uuid))


def _deregister(registered: list[Callable[[], object]]) -> None:
    """Without this libvirt-python's callbacks keep their connection open for ever."""
    while registered:
        # On a broken connection libvirt lets go of the callback and fails to tell libvirtd.
        with suppress(libvirt.libvirtError):
            registered.pop()()
