"""A host with a victim and a healthy neighbour, and what is demanded of all while the victim has a fault.

A test brings the fault about; `Fault` measures and judges the rest, the same for every fault:

- Σ charge stays within capacity in every sample of the independent observer, but for a recorded overdraft;
- the neighbour's job, which cannot be done without memory moved to it, waits for memory no more than PATIENCE
  longer than the same job just before the fault, by its own kernel's count (PSI): the processor's time, of
  which a fault may take some too, is not ours to give;
- no guest below its maximum kills a program for memory;
- RECOVERY after the end everything works again: all VMs live, their agents heard, and memory moves on demand;
- the controller holds no more threads, descriptors and tasks than before, and about as much memory.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import psutil

from host_controller.units import MIB
from host_controller.verify.errors import VerifyError
from host_controller.verify.observer import describe
from lab.controller import Controller, ControllerError
from lab.guest import Guest
from tests.guests.conftest import Rig
from tests.guests.faults.books import Books

PATIENCE = 2.0
RECOVERY = 10.0
SETTLING = 15.0
"""Seconds for threads and descriptors of broken and of spare connections to go."""
GROWTH_BYTES = 8 * MIB
"""The journal and the samples keep an hour in memory, so a fault may leave that much of a trace."""
CONNECTIONS = 3
"""That of the quarantine, which is first needed in a fault; a second one for streams, which stay where they
were opened; and one that happens to be in use just now. Each has a thread."""
DESCRIPTORS = 3
"""Of a connection."""
QUESTIONS = 2
"""Descriptors of our own questions to the controller, the last of which it may not have closed yet."""
JOB_MIB, JOB_RATE = 180, 60
"""A squeezed lab guest has some 50 MiB available, so it has to be given the rest."""
PROOF_MIB = 80
SMALL = 64 * MIB


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of faults."""

    fault: str
    asserted: str
    seen: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the controller's process holds."""

    threads: int
    descriptors: int
    tasks: int
    resident_bytes: int

    @classmethod
    def of(cls, controller: Controller) -> Self:
        """As it is now."""
        process = psutil.Process(controller.pid)
        with process.oneshot():
            tasks = controller.status()["host"]["tasks"]
            return cls(process.num_threads(), process.num_fds(), tasks, process.memory_info().rss)

    def leaks(self, before: "Vitals", first: "Vitals") -> list[str]:
        """What there is more of than before; connections come as they are needed, and stay."""
        return [
            f"{getattr(then, name)} → {getattr(self, name)} {name}"
            for name, then, more in (
                ("threads", first, CONNECTIONS),
                ("descriptors", first, DESCRIPTORS * CONNECTIONS + QUESTIONS),
                ("tasks", before, 0),
            )
            if getattr(self, name) > getattr(then, name) + more
        ]


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a job took, and how much of that something in its guest waited for memory; seconds."""

    seconds: float
    stalled: float


class Job:
    """Work of a guest that needs memory to be moved to it, done beside the test.

    Nothing else may talk to the guest's workload server meanwhile.
    """

    def __init__(self, guest: Guest, mib: int = JOB_MIB, rate: float = JOB_RATE, limit: float = 90.0) -> None:
        self._guest, self._size, self._limit = guest, (mib, rate), limit
        self._wait: Wait | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="job", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        workload = self._guest.workload
        try:
            stalled, begun = self._stalled(), time.monotonic()
            workload.allocate(*self._size, name="job")
            workload.wait_event("done", "job", self._limit)
            self._wait = Wait(time.monotonic() - begun, self._stalled() - stalled)
            workload.free("job")
        except Exception as error:  # noqa: BLE001 # told by `wait`, in the test's own thread
            self._error = error

    def _stalled(self) -> float:
        some = self._guest.workload.memory().psi.partition("\n")[0]
        return int(some.rpartition("total=")[2]) / 1e6

    def wait(self) -> Wait:
        """Until it is done. Raises what went wrong."""
        self._thread.join(self._limit + 60)
        if self._error is not None:
            raise self._error
        assert self._wait is not None, "the job does not end"
        return self._wait


@dataclass
class Ward:
    """The guests of one module, and the faults that they have lived through."""

    rig: Rig
    victim: Guest
    neighbour: Guest
    first: Vitals | None = None
    """The controller's before the first fault."""

    @property
    def controller(self) -> Controller:
        """The controller under test."""
        return self.rig.controller

    def vm(self) -> dict[str, Any]:
        """The victim, as the controller sees it."""
        return self.controller.vm(self.victim)

    def calm(self) -> None:
        """All guests idle, squeezed and at rest."""
        for guest in (self.victim, self.neighbour):
            guest.workload.free()
        for guest in (self.victim, self.neighbour):
            self.controller.wait_vm(
                guest,
                lambda vm: (
                    vm["phase"] == "live"
                    and vm["agent"] is not None
                    and vm["assigned_bytes"] - (vm["desired_bytes"] or 0) < SMALL
                ),
                120,
                "small and at rest",
            )
        self.controller.wait_at_rest(self.victim, self.neighbour, limit=90, quiet=1.5)

    def resident(self) -> int:
        """The controller's resident memory, bytes."""
        return int(psutil.Process(self.controller.pid).memory_info().rss)

    def grow(self, mib: int = 420) -> None:
        """Have the victim grown, by a DIMM if it is more than its boot RAM, with all of it in use."""
        self.victim.workload.allocate(mib, rate=JOB_RATE)
        self.victim.workload.wait_event("done", "memory", 90)

    def wait_works(self, limit: float) -> None:
        """Until everything works: connected, all VMs live and heard, and memory moves to the victim."""

        def healthy(status: dict[str, Any]) -> bool:
            vms = [vm for vm in status["vms"] if vm["name"] in (self.victim.name, self.neighbour.name)]
            return (
                bool(status["host"]["connected"])
                and status["host"]["overdraft"] is None
                and len(vms) == 2
                and all(vm["phase"] == "live" and vm["agent"] and vm["report_age_seconds"] < 6 for vm in vms)
            )

        deadline = time.monotonic() + limit
        self.controller.wait_for(healthy, limit, "connected, all VMs live and heard")
        self.victim.workload.allocate(PROOF_MIB, rate=JOB_RATE, name="proof")
        self.victim.workload.wait_event("done", "proof", max(1.0, deadline - time.monotonic()))
        self.controller.wait_vm(
            self.victim,
            lambda vm: vm["assigned_bytes"] >= (vm["need_bytes"] or 0) > 0,
            max(1.0, deadline - time.monotonic()),
            "given what it needs",
        )
        self.victim.workload.free("proof")


@dataclass
class Fault:
    """One fault: `with Fault(…) as fault: prepare; with fault.on(): the fault as long as it lasts`.

    asserted: what is demanded beyond what is demanded of every fault. service_down: what moves memory is
    itself gone while the fault lasts (libvirt, the controller), so the neighbour's job may wait for its end.
    may_kill: the victim may come to its maximum, and kill there.
    """

    ward: Ward
    name: str
    asserted: str
    service_down: bool = False
    may_kill: bool = False
    seen: list[str] = field(default_factory=list)
    row: Row | None = None
    _began: float = 0.0
    _ended: float = 0.0

    def __enter__(self) -> Self:
        ward = self.ward
        ward.calm()
        self._before = Vitals.of(ward.controller)
        ward.first = ward.first or self._before
        self._books = Books(ward.controller)
        self._books.look()
        self._alone = Job(ward.neighbour).wait()
        ward.calm()
        self._boots = {guest.name: self._kills(guest) for guest in (ward.victim, ward.neighbour)}
        self._began = self._ended = time.monotonic()
        return self

    @contextmanager
    def on(self) -> Iterator[None]:
        """As long as this lasts the fault does; the neighbour's job begins with it."""
        self._began = time.monotonic()
        job = Job(self.ward.neighbour)
        try:
            yield
        finally:
            self._ended = time.monotonic()
            self._job = job

    def saw(self, text: str) -> None:
        """Something for the table."""
        self.seen.append(text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._tell(f"FAILED: {kind.__name__ if kind else ''}: {str(error).partition(chr(10))[0]}")
            return
        problems = self._problems()
        self._tell("held" if not problems else "FAILED: " + "; ".join(problems))
        assert not problems, "\n".join(problems) + "\n" + self.ward.controller.log_tail(40)

    def _tell(self, verdict: str) -> None:
        self.row = Row(self.name, self.asserted, "; ".join(self.seen), verdict)
        print(f"\n{self.name}: {self.row.seen}: {verdict}")

    # What is demanded of every fault.

    def _problems(self) -> list[str]:
        return [
            problem
            for check in (
                self._works_again,
                self._neighbour,
                self._in_books,
                self._nobody_killed,
                self._no_leaks,
            )
            if (problem := check()) is not None
        ]

    def _works_again(self) -> str | None:
        try:
            self.ward.wait_works(3 * RECOVERY)
        except VerifyError as error:
            return f"does not work again after {3 * RECOVERY:g} s: {error}"
        took = time.monotonic() - self._ended
        self.seen.append(f"works again after {took:.1f} s")
        return None if took <= RECOVERY else f"full function only after {took:.1f} s"

    def _neighbour(self) -> str | None:
        alone, during = self._alone, self._job.wait()
        self.seen.append(
            f"neighbour's job {alone.seconds:.1f} → {during.seconds:.1f} s, "
            f"of which it waited {alone.stalled:.1f} → {during.stalled:.1f} s"
        )
        allowed = PATIENCE + (self._ended - self._began if self.service_down else 0.0)
        late = during.stalled - alone.stalled
        return None if late <= allowed else f"the neighbour waited {late:.1f} s longer"

    def _in_books(self) -> str | None:
        capacity = self.ward.controller.capacity_bytes
        samples = [one for one in self.ward.rig.observer.samples if one.at >= self._began]
        self._books.look()
        recorded = [one for one in self._books.overdrafts if one.end >= self._began]
        self.seen.append(
            f"Σ charge ≤ {max(one.charge for one in samples) / MIB:.0f} of {capacity / MIB:.0f} MiB"
            f" in {len(samples)} samples" + "".join(f", recorded {one.cause}" for one in recorded)
        )
        unrecorded = self._books.unrecorded(samples)
        return f"{len(unrecorded)} samples above capacity: {describe(unrecorded[0])}" if unrecorded else None

    def _kills(self, guest: Guest) -> tuple[str, int]:
        return guest.workload.boot_id(), guest.workload.memory().vmstat["oom_kill"]

    def _nobody_killed(self) -> str | None:
        for guest in (self.ward.victim, self.ward.neighbour):
            boot, before = self._boots[guest.name]
            now_boot, kills = self._kills(guest)
            kills -= before if boot == now_boot else 0
            if kills and not (self.may_kill and guest is self.ward.victim):
                return f"{guest.name} killed {kills} programs for memory"
        return None

    def _no_leaks(self) -> str | None:
        controller, before = self.ward.controller, self._before
        self.ward.calm()

        def leaks() -> list[str]:
            return Vitals.of(controller).leaks(before, self.ward.first or before)

        try:
            controller.wait_for(lambda _: not leaks(), SETTLING, "threads, descriptors and tasks as before")
        except ControllerError:
            return "left behind: " + ", ".join(leaks())
        now = Vitals.of(controller)
        grown = now.resident_bytes - before.resident_bytes
        self.seen.append(
            f"threads {before.threads} → {now.threads}, tasks {before.tasks} → {now.tasks}, "
            f"descriptors {before.descriptors} → {now.descriptors}, RSS {grown / MIB:+.1f} MiB"
        )
        return None if grown <= GROWTH_BYTES else f"the controller grew by {grown / MIB:.1f} MiB"
