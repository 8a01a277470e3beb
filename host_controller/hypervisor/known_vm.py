"""What is known of one running domain. Whatever changes of it the core is told, here and nowhere else.

Two sources overlap. Libvirt's events come at once and say little. What is read from libvirt is whole, and may
be older than an event. So a state that was read counts only if no event told one meanwhile.
"""

from dataclasses import replace

import structlog

from host_controller.core.interface import (
    BalloonChanged,
    BalloonSampled,
    DimmsChanged,
    Inbox,
    JobChanged,
    ResidentSampled,
    VirtioMemChanged,
    VmAppeared,
    VmConfigChanged,
    VmGone,
    VmStateChanged,
)
from host_controller.core.model import LARGEST_MAXIMUM_BYTES, Dimm, RunState
from host_controller.domain_xml.view import DomainView
from host_controller.host.qemu_process import Resident
from host_controller.hypervisor import libvirt_calls

log = structlog.get_logger(__name__)


class KnownVm:
    """One domain that runs, managed or not. Of one that is not managed nothing is told."""

    def __init__(self, uuid: str, emit: Inbox, *, booted: bool, announced: bool = False) -> None:
        """`announced`: the core knows it, from an earlier connection."""
        self.uuid = uuid
        self.view: DomainView | None = None
        """As libvirt last described it; None before that."""
        self.state = RunState.RUNNING
        self.job: str | None = None
        self.resident: Resident | None = None
        self.managed = False
        """It was announced with VmAppeared as it is now."""
        self.announced = announced
        """The core knows it, perhaps as it was before a restart: VmGone is due once it is not managed."""
        self.states_told = 0
        """How many events have told a state so far."""
        self._started_with: int | None = None
        """None before it is announced."""
        self._emit = emit
        self._booted = booted
        self._dimms_due = False

    @property
    def name(self) -> str:
        """Its name; its UUID until libvirt has described it."""
        return self.view.name if self.view is not None else self.uuid

    @property
    def started_with(self) -> int | None:
        """Where its balloon was when its start was seen, bytes; more than any RAM where it was not seen.
        None: it has just started, and its XML says it.
        """
        if self.managed:
            return self._started_with
        return None if self._booted else LARGEST_MAXIMUM_BYTES

    @property
    def marked(self) -> bool:
        """Its XML says that a controller has stopped it."""
        return self.view is not None and self.view.standing is not None

    @property
    def came_held(self) -> bool:
        """It runs since before it was seen here, and its XML says that its operator has paused it."""
        return self.view is not None and self.view.held and not self._booted

    def has_port(self, alias: str | None) -> bool:
        """Whether that device is the agent's port of a managed VM."""
        return self.managed and self.view is not None and self.view.channel_alias == alias

    # --- what events tell ---

    def appeared(self, *, booted: bool) -> None:
        """It has started again, perhaps unseen: it is announced anew once it is described."""
        self.managed = False
        self._booted = booted

    def state_told(self, state: RunState) -> None:
        """The vCPUs were stopped or continued, or the guest died."""
        self.states_told += 1
        self._take_state(state)

    def job_seen(self, job: str | None) -> bool:
        """A job was seen to run, or to be over. Returns whether one has just ended."""
        if job == self.job:
            return False
        self.job = job
        if self.managed:
            self._emit(JobChanged(self.uuid, job))
        return job is None

    def balloon_moved(self, actual_bytes: int) -> None:
        """QEMU's event; a VM that was not announced yet tells its figure then."""
        if self.managed:
            self._emit(BalloonChanged(self.uuid, actual_bytes))

    def virtio_mem_moved(self, current_bytes: int) -> None:
        """QEMU's event. It does not say what was asked for."""
        if self.managed:
            self._emit(VirtioMemChanged(self.uuid, current_bytes))

    def dimm_left(self, alias: str) -> None:
        """QEMU's event. The XML may have been read while the DIMM was leaving."""
        view = self.view
        found = [one for one in view.dimms if one.alias == alias] if view is not None else []
        if view is not None and found:
            blocks = list(view.ram_blocks)
            blocks.remove(found[0].size_bytes)
            self.take_dimms(tuple(one for one in view.dimms if one.alias != alias), tuple(blocks))

    # --- what was read ---

    def take_dimms(self, dimms: tuple[Dimm, ...], ram_blocks: tuple[int, ...]) -> None:
        """These DIMMs are plugged now. `ram_blocks`: the sizes of all of its RAM, bytes."""
        if self.view is not None:
            self.view = replace(self.view, dimms=dimms, ram_blocks=ram_blocks)
            if self.managed:
                self._emit(DimmsChanged(self.uuid, dimms))

    def take_sample(self, sample: libvirt_calls.Sample, resident: Resident | None) -> None:
        """Balloon and resident memory, in this order: the second confirms the first."""
        if sample.actual_bytes is not None:
            self._emit(BalloonSampled(self.uuid, sample.actual_bytes, sample.stats))
        if resident is not None:
            self.resident = resident
            self._emit(
                ResidentSampled(self.uuid, resident.guest_bytes, resident.overhead_bytes, resident.huge_bytes)
            )

    def tell_dimms_anew(self) -> None:
        """A command whose outcome nobody knows is over: the next look tells the DIMMs, changed or not."""
        self._dimms_due = True

    def described(self, found: libvirt_calls.Inspection, *, state_is_fresh: bool) -> None:
        """As libvirt describes it; announced or not, if it is managed the core is told what is new.

        `state_is_fresh`: no event told a state while it was read.
        """
        view, old = found.view, self.view
        self.view = view
        if view.problems and (old is None or old.problems != view.problems):
            log.warning(
                "domain has problems", vm=view.name, problems=list(view.problems), error=found.unreadable
            )
        if view.config is None:
            self._booted = False  # nobody of ours knows what it is told from here on
            return
        if not self.managed:
            self.job = found.job or self.job
            self._announce(found, found.state if state_is_fresh else self.state)
            return
        if state_is_fresh:
            self._take_state(found.state)
        if old is None or old.config != view.config:
            self._emit(VmConfigChanged(self.uuid, view.config))
        if old is None or old.dimms != view.dimms or self._dimms_due:
            self._emit(DimmsChanged(self.uuid, view.dimms))
        self._dimms_due = False
        if view.config.virtio_mem_bytes:
            asked = view.virtio_mem_requested_bytes
            self._emit(VirtioMemChanged(self.uuid, view.virtio_mem_bytes, asked))

    def gone(self, reason: str) -> None:
        """It does not run any more, or is nobody's of ours."""
        if self.announced:
            self.managed = self.announced = self._booted = False
            self._emit(VmGone(self.uuid, reason))

    def _announce(self, found: libvirt_calls.Inspection, state: RunState) -> None:
        view = found.view
        assert view.config is not None
        self.managed = self.announced = True
        self.state, self._dimms_due = state, False
        # Of one that was found running nobody knows where its balloon began.
        self._started_with = view.actual_bytes if self._booted else LARGEST_MAXIMUM_BYTES
        self._emit(
            VmAppeared(
                vm=self.uuid,
                config=view.config,
                state=state,
                dimms=view.dimms,
                actual_bytes=view.actual_bytes,
                booted=self._booted,
                virtio_mem_bytes=view.virtio_mem_bytes,
                virtio_mem_requested_bytes=view.virtio_mem_requested_bytes,
                vcpu_seconds=found.vcpu_seconds,
                stopped_after_reset=found.stands_for_us and state is RunState.PAUSED,
            )
        )
        if self.job is not None:
            self._emit(JobChanged(self.uuid, self.job))

    def _take_state(self, state: RunState) -> None:
        if state is not self.state:
            self.state = state
            if self.managed:
                self._emit(VmStateChanged(self.uuid, state))
