"""The independent observer: what every guest costs the host, by nobody's word but QEMU's and /proc's."""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from host_controller.units import MIB
from host_controller.verify.charge import GuestSample
from host_controller.verify.errors import InconclusiveError, ObserverError
from host_controller.verify.processes import prefer

PACKAGES = Path(__file__).resolve().parents[2]
"""Where `python -m` finds this package, whatever the caller's directory."""
LARGEST_GAP = 0.3  # seconds between two samples; the time beyond it the observer was blind
BLIND_SHARE = 0.02  # of the time; beyond it nobody can say that the rules held


class Watched(Protocol):
    """What the observer must know of a guest."""

    @property
    def name(self) -> str:
        """Its name, unique among those that are watched."""
        ...

    def qemu_pid(self) -> int:
        """Its QEMU process."""
        ...

    @property
    def observer_socket(self) -> Path:
        """A QMP socket of its QEMU that is the observer's alone."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """All guests at one instant: `at` in seconds of CLOCK_MONOTONIC; reading them took `window` seconds."""

    at: float
    window: float
    guests: dict[str, GuestSample]

    @property
    def charge(self) -> int:
        """What all guests together may cost, in bytes."""
        return sum(guest.charge for guest in self.guests.values())


@dataclass(frozen=True, slots=True)
class ObservedEvent:
    """An event of QEMU's, received `at` (CLOCK_MONOTONIC, seconds)."""

    guest: str
    name: str
    data: dict[str, Any]
    at: float


@dataclass(frozen=True, slots=True)
class Sight:
    """How well an observer saw. Times are seconds; it is blind for what a gap between two samples has
    beyond 0.3 s.
    """

    samples: int
    seconds: float
    blind_seconds: float
    largest_gap: float

    @property
    def clear(self) -> bool:
        """It saw enough to say that what it did not see broken held."""
        return self.blind_seconds <= BLIND_SHARE * self.seconds

    def __add__(self, other: "Sight") -> "Sight":
        """Both together, as of one observer that saw one after the other."""
        return Sight(
            self.samples + other.samples,
            self.seconds + other.seconds,
            self.blind_seconds + other.blind_seconds,
            max(self.largest_gap, other.largest_gap),
        )

    def demand_clear(self) -> None:
        """Raises InconclusiveError where it did not see enough: a busy machine is no broken rule."""
        if not self.clear:
            raise InconclusiveError(
                f"Inconclusive: the machine was busy. {self}. Run it again with less beside it."
            )

    def __str__(self) -> str:
        return (
            f"{self.samples} samples, largest gap {self.largest_gap * 1000:.0f} ms, "
            f"blind for {self.blind_seconds:.1f} of {self.seconds:.0f} s"
        )


class Observer:
    """Use as a context manager; `start` guests whose QEMU runs, then read `samples` at any time."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.events: list[ObservedEvent] = []
        self.gone: dict[str, float] = {}
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "host_controller.verify.observer_worker"],
            cwd=PACKAGES,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us; the worker ends when its input does
        )
        prefer(self._process.pid)  # the guests must not starve it of the CPU
        self._reader = threading.Thread(target=self._read, name="observer", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the observer's process; the samples stay."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not None:
            self._reader.join(5)
        self._process = None

    def start(self, *guests: Watched) -> None:
        """Observe these too: right after their start, so that no balloon change is missed (see `charge.py`).

        Returns when the first sample that has them all is there.
        """
        for guest in guests:
            self.gone.pop(guest.name, None)
            order = {"name": guest.name, "pid": guest.qemu_pid(), "socket": str(guest.observer_socket)}
            self._order({"add": order})
        names = {guest.name for guest in guests}
        since = time.monotonic()
        what = f"a sample of {', '.join(sorted(names))}"
        self.wait_for(lambda sample: sample.at >= since and names <= sample.guests.keys(), 60, what)

    def forget(self, guest: Watched) -> None:
        """Observe it no more. (A guest whose QEMU ends is noticed without that.)"""
        self._order({"remove": guest.name})

    def _order(self, order: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise ObserverError("The observer is not running.")
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            with self._changed:
                if sample := message.get("sample"):
                    guests = {name: GuestSample(**fields) for name, fields in sample["guests"].items()}
                    self.samples.append(Sample(sample["at"], sample["window"], guests))
                elif event := message.get("event"):
                    self.events.append(ObservedEvent(**event))
                else:
                    self.gone[message["gone"]] = message["at"]
                self._changed.notify_all()

    # Questions.

    def latest(self) -> Sample:
        """The newest sample. Raises ObserverError when there is none."""
        if not self.samples:
            raise ObserverError("The observer has no sample yet.")
        return self.samples[-1]

    def lasts(self, seconds: float) -> None:
        """Let so much time pass, as this observer sees it: in which something must not happen."""
        until = time.monotonic() + seconds
        self.wait_for(lambda sample: sample.at >= until, seconds + 30, f"{seconds:g} s passed")

    def wait_for(self, predicate: Callable[[Sample], bool], limit: float, what: str) -> Sample:
        """The first new sample for which `predicate` holds. Raises ObserverError with the last one seen."""
        deadline = time.monotonic() + limit
        with self._changed:
            position = max(0, len(self.samples) - 1)
            while True:
                for sample in self.samples[position:]:
                    if predicate(sample):
                        return sample
                position = len(self.samples)
                remaining = deadline - time.monotonic()
                if remaining <= 0 or (self._process is not None and self._process.poll() is not None):
                    seen = describe(self.samples[-1]) if self.samples else "no sample at all"
                    ended = "" if remaining <= 0 else " (the observer's process has ended)"
                    raise ObserverError(f"Not within {limit:g} s{ended}: {what}. Last seen: {seen}")
                self._changed.wait(min(remaining, 1.0))

    def wait_event(self, guest: Watched, name: str, limit: float, since: float = 0.0) -> ObservedEvent:
        """The first event of that name from that guest at or after `since` (CLOCK_MONOTONIC seconds)."""
        deadline = time.monotonic() + limit
        with self._changed:
            while True:
                for event in self.events:
                    if event.guest == guest.name and event.name == name and event.at >= since:
                        return event
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    seen = [(event.guest, event.name) for event in self.events[-10:]]
                    raise ObserverError(
                        f"No {name} from {guest.name} within {limit:g} s. Last events: {seen}"
                    )
                self._changed.wait(remaining)

    def sight(self, since: float = 0.0) -> Sight:
        """How well it saw from `since` (CLOCK_MONOTONIC seconds) on."""
        times = [sample.at for sample in self.samples if sample.at >= since]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        blind = sum(max(0.0, gap - LARGEST_GAP) for gap in gaps)
        return Sight(len(times), sum(gaps), blind, max(gaps, default=0.0))

    def violations(self, capacity_bytes: int) -> list[Sample]:
        """The samples in which all guests together cost more than `capacity_bytes`."""
        return [sample for sample in self.samples if sample.charge > capacity_bytes]

    def assert_within(self, capacity_bytes: int) -> None:
        """No sample was above capacity. Whether it saw enough to know, its `sight` says."""
        violations = self.violations(capacity_bytes)
        listing = "\n  ".join(describe(sample) for sample in violations[:10])
        assert not violations, (
            f"{len(violations)} samples exceed the capacity of {capacity_bytes / MIB:.0f} MiB:\n  {listing}"
        )


def describe(sample: Sample) -> str:
    """A sample in a line, in MiB."""
    guests = "; ".join(
        f"{name}: charge {guest.charge / MIB:.0f} (RAM {guest.ram / MIB:.0f}, "
        f"virtio-mem {guest.virtio_mem / MIB:.0f}, actual {guest.actual / MIB:.0f}"
        f"{'' if guest.balloon_alive else ' not alive'}, resident {guest.resident / MIB:.0f}, "
        f"overhead {guest.overhead / MIB:.0f}{_age(guest)})"
        for name, guest in sample.guests.items()
    )
    return f"at {sample.at:.2f} s, {sample.charge / MIB:.0f} MiB in all: {guests}"


def _age(guest: GuestSample) -> str:
    return f", answer {guest.answer_age:.1f} s old" if guest.answer_age else ""
