"""What a guest of each release lives through, with each way to grow, under the controller of this tree."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import libvirt

from host_controller.units import MIB
from host_controller.verify.errors import VerifyError
from host_controller.verify.observer import Observer, Sample, describe
from lab.controller import Controller, Limits, enable
from lab.domain import ARM64, GuestSpec
from lab.guest import Guest
from lab.image import Image
from lab.lab import Lab
from lab.matrix.cells import Cell
from lab.matrix.suites import Suite

LEAVES_SECONDS: Final = 240.0
"""A guest that refused twice, as one does that is at work, is asked again after 30 and then 60 s."""
CAPACITY: Final = 2300
RESET_WAIT: Final = 60.0
NEIGHBOUR: Final = Limits(512, 160, 1400, growth="balloon")
CROWDS_OUT: Final = 900
"""MiB that the neighbour allocates: beside them the guest's whole RAM does not fit."""
BOOT_LIMIT: Final = 300.0
STARTUP, MAXIMUM, ALLOCATES = 640, 1280, 620
GROWTHS: Final = ("hotadd", "balloon", "virtio-mem")
LEFT: Final = (
    "find / -xdev -name '*dynmem*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/lab/*' "
    "-not -path '/var/log/*' -not -path '/run/*'"
)
INSTALL: Final = "dpkg --install /lab/package/*.deb && sync"
JOURNAL: Final = "journalctl --no-pager -n 60 -u dynmem-agent; dmesg | tail -n 25"
PURGE: Final = "dpkg --purge dynmem-agent"


class Stage:
    """One guest of the suite with one way to grow."""

    def __init__(
        self, lab: Lab, controller: Controller, observer: Observer, guest: Guest, growth: str
    ) -> None:
        self.lab, self.controller, self.observer = lab, controller, observer
        self.guest, self.growth = guest, growth
        self.stopping = (math.inf, math.inf)
        """From its reset until its vCPUs stood still, CLOCK_MONOTONIC seconds."""

    def until(self, holds: Callable[[dict[str, Any]], bool], limit: float, what: str) -> dict[str, Any]:
        """The VM as the controller sees it, once it holds."""
        return self.controller.wait_vm(self.guest, holds, limit, what)

    def journal(self) -> str:
        """What the agent said last, and the kernel; or why that cannot be had."""
        try:
            return self.guest.workload.exec(JOURNAL, limit=60)
        except VerifyError as error:
            return str(error)

    def reports(self) -> str:
        """The agent's package is installed, and its reports come; the lab's own init has started it else."""
        if self.guest.spec.agent is None:
            self.guest.workload.exec(INSTALL, limit=180)
        self.controller.wait_managed(self.guest, limit=90)
        return "Python " + self.guest.workload.exec("python3 -V").strip().rpartition(" ")[2]

    def grows(self) -> str:
        """It allocates more than its startup, and gets it."""
        self.until(lambda vm: vm["assigned_bytes"] < STARTUP * MIB, 60, "squeezed below its startup")
        before = self.guest.workload.memory().vmstat["oom_kill"]
        self.guest.workload.allocate(ALLOCATES, rate=40)
        self.guest.workload.wait_event("done", "memory", 120)
        vm = self.until(lambda vm: vm["assigned_bytes"] > (STARTUP + 64) * MIB, 60, "past its startup")
        memory = self.guest.workload.memory()
        if memory.vmstat["oom_kill"] != before:
            raise AssertionError("its kernel killed for memory")
        by = {
            "hotadd": vm["dimms"],
            "virtio-mem": vm["virtio_mem_bytes"],
            "balloon": vm["ram_bytes"] == MAXIMUM * MIB,
        }
        if not by[self.growth]:
            raise AssertionError(f"it did not grow by {self.growth}: {vm}")
        return f"to {vm['assigned_bytes'] // MIB} MiB"

    def shrinks(self) -> str:
        """It frees what it has, and gets smaller."""
        self.guest.workload.free()
        vm = self.until(lambda vm: vm["assigned_bytes"] < (STARTUP - 96) * MIB, 90, "small again")
        return f"to {vm['assigned_bytes'] // MIB} MiB"

    def is_reset_without_room(self) -> str:
        """Its vCPUs stand still until another guest has made room for all of its RAM; then it boots."""
        spec = GuestSpec("m-neighbour", startup_mib=NEIGHBOUR.startup)
        neighbour = self.lab.guest(spec)
        try:
            enable(neighbour, NEIGHBOUR)
            neighbour.start()
            self.observer.start(neighbour)
            neighbour.wait_booted(BOOT_LIMIT)
            self.controller.wait_managed(neighbour, limit=90)
            neighbour.workload.allocate(CROWDS_OUT, rate=60)
            neighbour.workload.wait_event("done", "memory", 120)
            boot, since = self.guest.workload.boot_id(), time.monotonic()
            self.guest.reset()
            stopped = self.observer.wait_event(self.guest, "STOP", 60, since)
            neighbour.workload.free()
            self.stopping = (since, stopped.at)
            resumed = self.observer.wait_event(self.guest, "RESUME", RESET_WAIT, stopped.at)
            self.guest.wait_booted(BOOT_LIMIT)
            if self.guest.workload.boot_id() == boot:
                raise AssertionError("it was not reset")
            self.controller.wait_managed(self.guest, limit=90)
        finally:
            self.observer.forget(neighbour)
            neighbour.remove()
        return f"stood still after {stopped.at - since:.1f} s, for {resumed.at - stopped.at:.0f} s"

    def violations(self) -> list[Sample]:
        """Samples above the capacity, but for those in which it had been reset and did not stand still yet.

        Until then nobody can tell what its new kernel takes, and all of its RAM counts. A sample is a span:
        the reset may come while it is read.
        """
        since, until = self.stopping
        over = self.observer.violations(CAPACITY * MIB)
        return [one for one in over if not since - one.window <= one.at <= until + one.window]

    def gives_back(self) -> str:
        """What was added to it is taken out again."""
        if self.growth == "virtio-mem":
            self.until(lambda vm: vm["virtio_mem_bytes"] == 0, LEAVES_SECONDS, "its device empty")
        else:
            self.until(lambda vm: vm["dimms"] == 0, LEAVES_SECONDS, "without DIMMs")
        return "seen"

    def reboots(self) -> str:
        """systemd reboots it, and its agent reports again."""
        boot = self.guest.workload.boot_id()
        self.guest.started_at = time.monotonic()
        self.guest.workload.exec("systemctl --no-block reboot")
        self.guest.workload.close()
        self.until(lambda vm: vm["phase"] == "starting", 90, "known to boot")
        self.guest.wait_booted(BOOT_LIMIT)
        if self.guest.workload.boot_id() == boot:
            raise AssertionError("it did not reboot")
        self.controller.wait_managed(self.guest, limit=90)
        return "seen"

    def purges(self) -> str:
        """Nothing of the package is left."""
        self.guest.workload.exec(PURGE, limit=120)
        if left := self.guest.workload.exec(LEFT).split():
            raise AssertionError(f"left behind: {left}")
        return "nothing left"


def play(
    lab: Lab, suite: Suite, image: Image, disk: Path, growths: Sequence[str], log: Callable[[str], None]
) -> Iterator[Cell]:
    """Each cell when it is known. growths: of GROWTHS, a guest each."""
    settings: dict[str, Any] = {
        "shrink_after": 4, "settle": 1, "unplug_after": 3, "reset_wait": RESET_WAIT, "keep_ready": 0,
    }  # fmt: skip
    for growth in growths:
        directory = lab.directory / f"matrix-{suite.name}-{growth}"
        with (
            Observer() as observer,
            Controller(directory, lab.session.uri, CAPACITY, **settings) as controller,
        ):
            guest = _guest(lab, suite, f"m-{growth}", image, disk)
            stage = Stage(lab, controller, observer, guest, growth)
            try:
                enable(guest, Limits(STARTUP, 200, MAXIMUM, growth=growth))
                yield from _live(stage, suite.name, log)
            finally:
                guest.remove()


def _guest(lab: Lab, suite: Suite, name: str, image: Image, disk: Path) -> Guest:
    if suite.architecture:
        spec = GuestSpec(name, startup_mib=STARTUP, machine="virt", platform=ARM64)
        return lab.guest(spec, image=image)
    spec = GuestSpec(name, startup_mib=STARTUP, agent=None, cpu_without=suite.cpu_without)
    return lab.guest(spec, code_disk=disk, image=image)


def _live(stage: Stage, name: str, log: Callable[[str], None]) -> Iterator[Cell]:
    def boots() -> str:
        stage.guest.start()
        stage.observer.start(stage.guest)
        stage.guest.wait_booted(BOOT_LIMIT)
        return "seen"

    steps = [boots, stage.reports, stage.grows, stage.shrinks]
    if stage.growth != "balloon":
        steps.append(stage.gives_back)
    else:
        steps.append(stage.is_reset_without_room)
    if stage.growth == "hotadd" and stage.guest.spec.agent is None:
        steps += [stage.reboots, stage.purges]
    for step in steps:
        begun = time.monotonic()
        title = f"{stage.growth}: {step.__name__.replace('_', ' ')}"
        try:
            said = step()
        except (VerifyError, AssertionError, libvirt.libvirtError) as error:
            log(
                f"--- {name}, {title}\n{error}\n{stage.guest.console_tail(30)}\n"
                f"{stage.controller.log_tail()}\nThe agent's journal ends:\n{stage.journal()}\n"
            )
            yield Cell(title, False, "", time.monotonic() - begun)
            return
        yield Cell(title, True, said, time.monotonic() - begun)
    if over := stage.violations():
        listing = "\n".join(describe(sample) for sample in over)
        log(f"--- {name}, {stage.growth}: {len(over)} samples above the capacity:\n{listing}\n")
    yield Cell(f"{stage.growth}: within the capacity", not over, "" if over else "seen", 0.0)
