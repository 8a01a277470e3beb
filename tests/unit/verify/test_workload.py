"""How long a test waits for a program in its guest: as long as that gets further."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from host_controller.verify import workload
from host_controller.verify.errors import WorkloadError
from host_controller.verify.workload import Workload
from host_controller.verify.workload_port import WorkloadEvent, WorkloadPort

LIMIT = 10.0


class Scripted(WorkloadPort):
    """A guest that says one thing each so many seconds of a clock that nobody waits for."""

    def __init__(self, seconds: float, *said: tuple[str, int]) -> None:
        super().__init__("scripted", Path("/nowhere"), lambda: "")
        self.now, self._seconds, self._script = 0.0, seconds, list(said)

    def pump(self, deadline: float) -> None:
        self.now += self._seconds
        if self._script:
            kind, mib = self._script.pop(0)
            self.events.append(WorkloadEvent(kind, "memory", 0.0, 0.0, self.now, mib))


def wait(guest: Scripted, monkeypatch: pytest.MonkeyPatch) -> WorkloadEvent:
    monkeypatch.setattr(workload, "time", SimpleNamespace(monotonic=lambda: guest.now))
    driver = Workload("scripted", Path("/nowhere"), lambda: "")
    driver._port = guest
    return driver.wait_event("done", "memory", LIMIT)


def test_an_allocation_that_is_slow_is_waited_for_as_long_as_it_gets_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest = Scripted(9.0, *(("progress", mib) for mib in range(1, 100)), ("done", 100))
    assert wait(guest, monkeypatch).mib == 100
    assert guest.now == 900.0


def test_an_allocation_that_stands_still_fails_though_it_goes_on_talking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest = Scripted(4.0, *(("progress", 7),) * 100, ("done", 8))
    with pytest.raises(WorkloadError, match="nor get further in 10 s"):
        wait(guest, monkeypatch)
    assert guest.now <= 4.0 + LIMIT + 4.0


def test_a_silent_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Scripted(1.0)
    with pytest.raises(WorkloadError, match="nor get further in 10 s"):
        wait(guest, monkeypatch)
    assert guest.now <= LIMIT + 2.0
