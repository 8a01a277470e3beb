"""What libvirt says by itself, and what the VM's worker is told of it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import libvirt
import pytest

from host_controller.core.model import RunState
from host_controller.hypervisor.connections import Connection
from host_controller.hypervisor.eventloop import Mailbox
from host_controller.hypervisor.events import Events, Host

UUID = "5f1f2c1a-0000-4000-8000-000000000001"


class Worker:
    """Of the one domain that runs: writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[RunState | str] = []

    def set_state(self, state: RunState) -> None:
        self.told.append(state)

    def look_again(self) -> None:
        self.told.append("look again")


class Libvirt:
    """A connection that keeps the callbacks, by their events. unknown: an event that it does not have."""

    def __init__(self, unknown: int = -1) -> None:
        self.callbacks: dict[int, tuple[Callable[..., None], object]] = {}
        self._unknown = unknown

    def domainEventRegisterAny(  # noqa: N802 # libvirt's name
        self, _domain: None, event: int, callback: Callable[..., None], opaque: object
    ) -> int:
        if event == self._unknown:
            raise libvirt.libvirtError(f"unsupported event ID {event}")
        self.callbacks[event] = callback, opaque
        return event

    def domainEventDeregisterAny(self, number: int) -> None:  # noqa: N802 # likewise
        del self.callbacks[number]

    def registerCloseCallback(self, _callback: object, _opaque: object) -> None:  # noqa: N802 # likewise
        """Nobody closes it."""

    def unregisterCloseCallback(self) -> None:  # noqa: N802 # likewise
        """Nobody asks."""

    def say(self, event: int, *details: int) -> None:
        callback, opaque = self.callbacks[event]
        callback(self, SimpleNamespace(UUIDString=lambda: UUID), *details, opaque)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """QEMU's own events are another library's."""
    monkeypatch.setattr("libvirt_qemu.qemuMonitorEventRegister", lambda *_: 0)
    return Worker()


def register(worker: Worker, handle: Libvirt) -> None:
    host: Any = SimpleNamespace(workers={UUID: worker})
    mailbox: Any = SimpleNamespace(post=lambda method, *arguments: method(*arguments))
    events = Events(cast(Host, host), cast(Mailbox, mailbox), lambda event: None)
    events.register(cast(Connection, SimpleNamespace(handle=handle)))


def told_of_lifecycle(worker: Worker, event: int, detail: int) -> list[RunState | str]:
    """What the worker hears of a lifecycle event."""
    handle = Libvirt()
    register(worker, handle)
    handle.say(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, event, detail)
    return worker.told


@pytest.mark.parametrize(
    ("event", "detail", "state"),
    [
        (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED, RunState.RUNNING),
        (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR, RunState.PAUSED),
        (libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED, 0, RunState.PAUSED),
        (libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED, RunState.CRASHED),
    ],
)
def test_a_lifecycle_event_says_whether_its_vcpus_run(
    worker: Worker, event: int, detail: int, state: RunState
) -> None:
    assert told_of_lifecycle(worker, event, detail) == [state]


def test_a_guest_whose_crash_kernel_saves_its_memory_runs(worker: Worker) -> None:
    """Taken for crashed it was sent nothing until the next look, a minute later: it had long started anew."""
    detail = libvirt.VIR_DOMAIN_EVENT_CRASHED_CRASHLOADED
    assert told_of_lifecycle(worker, libvirt.VIR_DOMAIN_EVENT_CRASHED, detail) == ["look again"]


def test_libvirt_from_before_virtio_mem_is_followed_without_its_event(worker: Worker) -> None:
    """Libvirt 7.0 to 7.8 refuse to register for it, and were never connected."""
    handle = Libvirt(unknown=libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE)
    register(worker, handle)
    assert libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE in handle.callbacks


def test_libvirt_without_lifecycle_events_is_not_followed(worker: Worker) -> None:
    with pytest.raises(libvirt.libvirtError):
        register(worker, Libvirt(unknown=libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE))
