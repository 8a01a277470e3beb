"""A VM that was reset while memory is short stands still until there is room for what it may take.

A new kernel touches what it likes of the VM's RAM, balloon or not (fact: actual-survives-reset). Where the
charge of all of it does not fit, the vCPUs are stopped before that kernel has got far: a VM that stands still
holds what it holds. Room is made meanwhile as for a VM that is to start: it is charged in full, so the others
get smaller and nobody grows. Then it runs on, after `Settings.reset_wait_seconds` at the latest, and what is
still missing is an overdraft with its cause.

Whoever lets the VM run in between is not contradicted, and whatever stands still without us stays so.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from host_controller.core.interface import Command, CommandDone, Resume, Suspend
from host_controller.core.model import RunState
from host_controller.core.vm.record import Vm
from host_controller.units import format_size

RETRY_SECONDS: Final = 1.0
"""Between two attempts to let a VM run."""
LATE_SECONDS: Final = 60.0
"""A command of a controller that is gone may be carried out for so long after a target of ours was:
libvirt waits half a minute for whoever else is at work on a VM, and QEMU may be as late."""
VCPU_NOISE_SECONDS: Final = 0.1
"""A kernel needs far more to boot, and somebody to stop and start it again."""


class Stage(StrEnum):
    """How far it is."""

    DUE = "due"
    """It was reset; whether there is room for it is not known yet."""
    STOPPING = "stopping"
    INHERITED = "inherited"
    """A controller before us told it to stand still, and heard no answer; it runs yet."""
    STANDING = "standing"
    STARTING = "starting"
    OVER = "over"


class Heard(StrEnum):
    """What can happen to it."""

    STANDS = "its vCPUs stand still"
    RUNS = "its vCPUs run"
    CARRIED_OUT = "the hypervisor carried the command out"
    REFUSED = "the hypervisor refused the command"
    SPARED = "there is room for it, or it is not ours to stop"
    SHORT = "there is no room for it"
    ENOUGH = "there is room, or the time is over, or it is not ours to stop any more"
    AGAIN = "it was told to run, and does not"


TABLE: Final[Mapping[tuple[Stage, Heard], Stage]] = {
    (Stage.DUE, Heard.SPARED): Stage.OVER,
    (Stage.DUE, Heard.SHORT): Stage.STOPPING,
    (Stage.STOPPING, Heard.STANDS): Stage.STANDING,
    (Stage.STOPPING, Heard.REFUSED): Stage.OVER,  # it was not stopped, and runs
    (Stage.STOPPING, Heard.ENOUGH): Stage.STARTING,
    (Stage.INHERITED, Heard.STANDS): Stage.STANDING,
    (Stage.INHERITED, Heard.REFUSED): Stage.OVER,
    (Stage.INHERITED, Heard.SPARED): Stage.OVER,
    (Stage.STANDING, Heard.REFUSED): Stage.OVER,
    (Stage.STANDING, Heard.RUNS): Stage.OVER,  # somebody else let it run
    (Stage.STANDING, Heard.ENOUGH): Stage.STARTING,
    (Stage.STARTING, Heard.AGAIN): Stage.STARTING,
    (Stage.STARTING, Heard.CARRIED_OUT): Stage.OVER,
    (Stage.STARTING, Heard.RUNS): Stage.OVER,
}
"""What it hears in each stage, and where that leads. What has no row does not concern it."""


@dataclass(slots=True)
class Standstill:
    """One VM that was reset, from then until it runs for good. Times are seconds of our clock."""

    since: float
    until: float
    """The longest that it stands still."""
    stage: Stage = Stage.DUE
    missing_bytes: int = 0
    """Of what it may take, at the last look."""
    vcpu_seconds: float | None = None
    """Processor time of its vCPUs when they were stopped: a later controller sees whether they ran since."""
    notices: list[str] = field(default_factory=list)
    """What happened, for people; taken by the engine."""
    _ticket: int = -1
    _answered: bool = True
    _retry_at: float = 0.0
    _inherited_until: float = math.inf
    """For so long it may yet be stopped by a controller before us; without end while its QEMU hangs."""

    def describe(self, now: float) -> str:
        """For people."""
        if self.stage is Stage.INHERITED:
            return "it was told to stand still after its reset, and whether it will is not known yet"
        return (
            f"it stands still after its reset until {format_size(self.missing_bytes)} more are free, "
            f"for {max(0.0, self.until - now):.0f} s at most"
        )

    def ran_since(self, vcpu_seconds: float | None, now: float) -> bool:
        """Whether a VM that is found to stand still has run since we stopped it: then somebody else did.

        Where that is not known it stands still because of us only as long as it may.
        """
        if vcpu_seconds is None or self.vcpu_seconds is None:
            return now > max(self.until, self.since + LATE_SECONDS)
        return abs(vcpu_seconds - self.vcpu_seconds) > VCPU_NOISE_SECONDS

    def go_on(self, state: RunState, now: float) -> bool:
        """A VM of which this was known is seen again; whether it may still stand still because of us.

        A command outlives whoever gave it, so one without an answer may yet stop a VM that runs.
        """
        may_stop = self.stage in (Stage.STOPPING, Stage.INHERITED, Stage.STANDING)
        if state is RunState.PAUSED:
            self.stage = Stage.STANDING
        elif state is RunState.RUNNING and may_stop and self.vcpu_seconds is None:
            self.stage, self._inherited_until = Stage.INHERITED, math.inf
        else:
            return False
        return True

    def state_changed(self, state: RunState, name: str) -> None:
        """The hypervisor says that its vCPUs stand still, or run."""
        stood = self.stage is Stage.STANDING
        self._hear(Heard.STANDS if state is RunState.PAUSED else Heard.RUNS)
        if stood and self.stage is Stage.OVER:
            self.notices.append(f"somebody else let {name} run")

    def done(self, event: CommandDone) -> None:
        """The hypervisor answered. After a time-out `state_changed` tells what came of the command."""
        if event.ticket != self._ticket:
            return
        self._answered = True
        if event.error is None:
            if self.stage is not Stage.STARTING:
                self.vcpu_seconds = event.vcpu_seconds
            self._hear(Heard.CARRIED_OUT)
        elif not event.timed_out:
            self._hear(Heard.REFUSED)

    def advance(self, vm: Vm, missing_bytes: int, ticket: Callable[[], int], now: float) -> list[Command]:
        """The next command for it. `missing_bytes`: of what it may take, what is not free."""
        self.missing_bytes = missing_bytes
        seen = self._look(vm, now)
        if seen is None:
            return []
        before, self.stage = self.stage, TABLE[self.stage, seen]
        if self.stage is Stage.OVER:
            return []
        self._ticket, self._answered = ticket(), False
        if self.stage is Stage.STOPPING:
            missing = format_size(self.missing_bytes)
            self.notices.append(f"{vm.name} stands still after its reset: {missing} of its RAM are not free")
            return [Suspend(vm.config.uuid, self._ticket)]
        if before is not Stage.STARTING:
            self._tell_that_it_runs_on(vm, now)
        self._retry_at = now + RETRY_SECONDS
        return [Resume(vm.config.uuid, self._ticket)]

    def _look(self, vm: Vm, now: float) -> Heard | None:
        enough = self.missing_bytes == 0 or now >= self.until
        not_ours = vm.pauses.left_alone
        if self.stage is Stage.DUE:
            untouchable = vm.pauses.job is not None or vm.pauses.state is not RunState.RUNNING
            return Heard.SPARED if enough or not_ours or untouchable else Heard.SHORT
        if self.stage is Stage.OVER or vm.pauses.job is not None:
            return None  # whoever moves or saves it has it as it is
        if self.stage is Stage.INHERITED:
            return self._look_for_a_late_stop(vm, now)
        if not self._answered or now < self._retry_at:
            return None
        if self.stage is Stage.STARTING:
            return Heard.AGAIN
        return Heard.ENOUGH if enough or not_ours else None

    def _look_for_a_late_stop(self, vm: Vm, now: float) -> Heard | None:
        if vm.balloon.ours and self._inherited_until == math.inf:
            self._inherited_until = now + LATE_SECONDS
        return Heard.SPARED if now >= self._inherited_until else None

    def _hear(self, heard: Heard) -> None:
        self.stage = TABLE.get((self.stage, heard), self.stage)

    def _tell_that_it_runs_on(self, vm: Vm, now: float) -> None:
        text = f"{vm.name} runs on, {now - self.since:.1f} s after its reset"
        if self.missing_bytes:
            text += f"; {format_size(self.missing_bytes)} could not be found"
        self.notices.append(text)

    @property
    def stops_it(self) -> bool:
        """We have told it to stand still, or are telling it to run again: nobody else would let it run."""
        return self.stage in (Stage.STOPPING, Stage.STANDING, Stage.STARTING)

    def holds_nothing_more(self, vm: Vm) -> bool:
        """Its vCPUs are known to stand still."""
        return self.stage is Stage.STANDING and vm.pauses.state is RunState.PAUSED


def left_behind(standstills: Mapping[str, Standstill]) -> dict[str, Standstill]:
    """What the next controller must know of, by UUID. No answer to a command of ours will reach it."""
    return {
        uuid: Standstill(one.since, one.until, Stage.STANDING, one.missing_bytes, one.vcpu_seconds)
        for uuid, one in standstills.items()
        if one.stage not in (Stage.DUE, Stage.OVER)
    }
