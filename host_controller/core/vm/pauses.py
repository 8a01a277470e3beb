"""Why a VM is not to be touched: its vCPUs stand still, a job moves it, its operator or a fault says so."""

import math
from dataclasses import dataclass

from host_controller.core.model import RUNNING, RunState


@dataclass(slots=True)
class Pauses:
    """Each has another author, and ends by that author's word."""

    state: RunState = RunState.RUNNING
    """What the hypervisor last said of its vCPUs."""
    ran_at: float = -math.inf
    """When its vCPUs were last seen to be let run."""
    job: str | None = None
    """One that moves or copies it: migration, save, snapshot."""
    paused: bool = False
    """By the operator: observed, charged, not touched."""
    stopped: bool = False
    """We have told its vCPUs to stand still, or are telling them to run again (`standstill.py`)."""
    fault: str | None = None
    """An error of ours while we dealt with it: it is left alone until it starts again."""

    @property
    def hands_off(self) -> bool:
        """No command may be sent to it: its vCPUs stand still (fact: paused-target-is-lost), or a job
        moves it.
        """
        return self.job is not None or self.state is not RUNNING or self.stopped

    @property
    def left_alone(self) -> bool:
        """Nothing new may be begun with it: the operator paused it, or we ran into an error of our own."""
        return self.paused or self.fault is not None

    def run_state(self, state: RunState, now: float) -> None:
        """What the hypervisor says of its vCPUs."""
        self.state = state
        if state is RUNNING:
            self.ran_at = now

    def job_is(self, job: str | None) -> None:
        """A job began, or the last one is over."""
        self.job = job

    def by_operator(self, paused: bool) -> None:
        """The operator pauses its management, or resumes it."""
        self.paused = paused

    def stand_still(self, stopped: bool) -> None:
        """A standstill of ours holds it, or is over."""
        self.stopped = stopped

    def fail(self, fault: str) -> None:
        """We ran into an error of our own with it."""
        self.fault = fault
