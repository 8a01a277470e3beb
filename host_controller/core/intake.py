"""How each event changes what is known. Events are facts or claims; nothing is decided here."""

import math
import re
from functools import singledispatchmethod
from typing import Final

from agent import wire
from host_controller.core import interface as hv
from host_controller.core.books import charge as books
from host_controller.core.books.capacity import why_smaller
from host_controller.core.books.ledger import Reservation
from host_controller.core.model import BalloonStats, Growth, RunState
from host_controller.core.operations.standstill import Stage, Standstill
from host_controller.core.operator_events import HoldVm, MakeRoom, Release, Reserve, SettingsChanged
from host_controller.core.state import State
from host_controller.core.vm import lifecycle
from host_controller.core.vm.guest_facts import (
    Contradiction,
    facts_from_report,
    facts_from_stats,
    is_block_size,
)
from host_controller.core.vm.record import Phase, Vm
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB, format_size

RATE_WINDOW: Final = (0.05, 2.0)
"""Seconds between two readings of a moving balloon from which its speed is worked out."""
FASTEST_INFLATION: Final = 1 << 30
"""Bytes/s: no balloon of 4 KiB pages is faster, whatever a guest makes its figures say."""
RETRY_SECONDS: Final = 1.0
"""After a command failed; a VM that timed out is probed by the adapter at its own pace."""
TELL_AGAIN_SECONDS: Final = 60.0
_NUMBER: Final = re.compile(r"\d+")


class Intake:
    """Applies events to the state."""

    def __init__(self, state: State) -> None:
        self.state = state
        # Python makes such a method anew each time that it is looked up.
        self._take_host, self._take_vm = self._on_host, self._on_vm

    def apply(self, event: object, now: float) -> None:
        """Take in one event. An event about a VM that is not known (any more) is dropped."""
        uuid = getattr(event, "vm", None)
        if uuid is None:
            self._take_host(event, now)
            return
        if isinstance(event, hv.VmAppeared):
            self._appeared(event, now)
        elif (vm := self.state.vms.get(uuid)) is not None:
            self._take_vm(event, vm, now)
        self.state.dirty.add(uuid)

    # --- about the host ---

    @singledispatchmethod
    def _on_host(self, event: object, now: float) -> None:
        raise TypeError(f"no such event: {event!r}")

    @_on_host.register
    def _(self, event: hv.Tick, now: float) -> None:
        self.state.dirty.update(uuid for uuid, vm in self.state.vms.items() if vm.look_at <= now)
        for reservation in self.state.ledger.expire(now):
            self.state.notice(now, "reservation", None, f"the reservation for {reservation.name} ran out")

    @_on_host.register
    def _(self, event: hv.HostSampled, now: float) -> None:
        before = self.state.host.facts if self.state.host else None
        self.state.host = event
        self._measure(why_smaller(before, event.facts))
        emergency = self.state.emergency
        if emergency.observe(event.facts, self.state.ledger.host.spare_bytes):
            text = f"emergency: {emergency.cause}" if emergency.cause else "the emergency is over"
            self.state.notice(now, "emergency", None, text)
        known = {} if before is None else dict(before.unread)
        for uuid, why in event.facts.unread:
            vm = self.state.vms.get(uuid)
            if vm is not None and uuid not in known:
                text = (
                    f"what {vm.name} holds cannot be read, so nothing that it gives back is believed: {why}"
                )
                self.state.notice(now, "unread", vm, text)

    @_on_host.register
    def _(self, event: hv.ConnectionChanged, now: float) -> None:
        self.state.connected = event.up
        word = "reached" if event.up else "lost"
        self.state.notice(now, "connection", None, f"the hypervisor was {word}: {event.detail}")

    @_on_host.register
    def _(self, event: SettingsChanged, now: float) -> None:
        self.state.settings = event.settings
        self._measure("capacity was lowered")
        self.state.dirty.update(self.state.vms)

    def _measure(self, cause: str) -> None:
        """The capacity follows the host and the settings; if it falls, overdrafts come from that."""
        facts = self.state.host.facts if self.state.host else None
        if self.state.ledger.measure(self.state.settings, facts) > 0:
            self.state.last_cause = cause

    @_on_host.register
    def _(self, event: MakeRoom, now: float) -> None:
        self.state.ledger.room_wanted[event.name] = event.size_bytes

    @_on_host.register
    def _(self, event: Reserve, now: float) -> None:
        self.state.ledger.room_wanted.pop(event.name, None)
        self.state.ledger.reservations[event.name] = Reservation(
            event.name, event.size_bytes, event.expires, event.huge_page_bytes, event.huge_bytes
        )

    @_on_host.register
    def _(self, event: Release, now: float) -> None:
        self.state.ledger.room_wanted.pop(event.name, None)
        self.state.ledger.reservations.pop(event.name, None)

    # --- about a VM ---

    def _appeared(self, event: hv.VmAppeared, now: float) -> None:
        known = self.state.vms.get(event.vm)
        vm = Vm(event.config, Phase.STARTING, now, now)
        vm.dimms, vm.state = event.dimms, event.state
        asked = event.virtio_mem_requested_bytes
        vm.virtio_mem = VirtioMem(event.virtio_mem_bytes, asked, asked, confirmed_bytes=asked, moved_at=now)
        lifecycle.claim(vm, _unwrapped(vm, event.actual_bytes), now)
        if event.booted:
            # The hypervisor starts a VM with its boot target, which we know: nothing needs to be sent.
            startup = event.config.growth is Growth.BALLOON
            vm.target_bytes = event.config.limits.startup_bytes if startup else vm.ram_bytes
        if known is not None:
            vm.overhead_bytes, vm.held = known.overhead_bytes, known.held
            vm.noise = known.noise
            self.state.operations.pop(event.vm, None)
        plug = self.state.left_plugs.pop(event.vm, None)
        if not event.booted:
            lifecycle.take_over(vm, now)
            vm.actual_at = -math.inf
            if plug is not None and len(event.dimms) <= plug.dimms:
                lifecycle.await_plug(vm, plug.size_bytes, now)
        self.state.vms[event.vm] = vm
        self._found_standing(event, vm, now)
        self.state.ledger.reservations.pop(vm.name, None)
        self.state.last_cause = f"{vm.name} {'was started' if event.booted else 'was found running'}"
        how = "started" if event.booted else "found running"
        self.state.notice(now, "appeared", vm, f"{vm.name} was {how}")
        self._tell_pinned(vm, now)

    def _tell_pinned(self, vm: Vm, now: float) -> None:
        """Once: what is taken from such a VM never comes back, so it is never worth asking it."""
        if vm.config.pinned is not None:
            why = f"{vm.config.pinned}; `dynmem doctor {vm.name}` says what to do"
            self.state.notice(now, "pinned", vm, f"{vm.name} is charged all of its RAM: {why}")

    def _found_standing(self, event: hv.VmAppeared, vm: Vm, now: float) -> None:
        """Go on with a standstill that we, or a controller before us, began; others are their user's."""
        before = self.state.left_standing.pop(event.vm, None) or self.state.standstills.pop(event.vm, None)
        if before is None or event.booted or vm.state is not RunState.PAUSED:
            return
        if before.ran_since(event.vcpu_seconds, now):
            self.state.notice(now, "reset", vm, f"{vm.name} ran after we had stopped it: it is left as it is")
            return
        before.stage, vm.stopped = Stage.STANDING, True
        self.state.standstills[event.vm] = before
        self._boots_anew(vm, now)

    @singledispatchmethod
    def _on_vm(self, event: object, vm: Vm, now: float) -> None:
        raise TypeError(f"no such event: {event!r}")

    @_on_vm.register
    def _(self, event: hv.VmGone, vm: Vm, now: float) -> None:
        del self.state.vms[event.vm]
        self.state.operations.pop(event.vm, None)
        self.state.standstills.pop(event.vm, None)
        self.state.notice(now, "gone", vm, f"{vm.name} is gone: {event.reason}")

    @_on_vm.register
    def _(self, event: hv.VmConfigChanged, vm: Vm, now: float) -> None:
        if event.config != vm.config:
            pinned, vm.config = vm.config.pinned, event.config
            self.state.notice(now, "config", vm, f"the limits of {vm.name} were changed")
            if event.config.pinned != pinned:
                self._tell_pinned(vm, now)

    @_on_vm.register
    def _(self, event: hv.VmStateChanged, vm: Vm, now: float) -> None:
        vm.state = event.state
        if event.state is RunState.RUNNING:
            vm.ran_at = now
        if (standstill := self.state.standstills.get(event.vm)) is not None:
            standstill.state_changed(event.state, vm.name)
        self.state.notice(now, "state", vm, f"{vm.name} is {event.state}")

    @_on_vm.register
    def _(self, event: hv.VmReset, vm: Vm, now: float) -> None:
        self._restarted(vm, now, "was reset")
        # Of one that stands still already the time goes on.
        wait = self.state.settings.reset_wait_seconds
        self.state.standstills.setdefault(event.vm, Standstill(now, now + wait))

    @_on_vm.register
    def _(self, event: hv.JobChanged, vm: Vm, now: float) -> None:
        if event.job != vm.job:
            what = f"{event.job} began" if event.job else f"{vm.job} is over"
            self.state.notice(now, "job", vm, f"{vm.name}: {what}")
        vm.job = event.job

    @_on_vm.register
    def _(self, event: hv.BalloonChanged, vm: Vm, now: float) -> None:
        self._balloon(vm, _unwrapped(vm, event.actual_bytes), now)

    @_on_vm.register
    def _(self, event: hv.BalloonSampled, vm: Vm, now: float) -> None:
        actual = _unwrapped(vm, event.actual_bytes)
        if actual != vm.actual_bytes:
            self._balloon(vm, actual, now)
        else:
            lifecycle.claim(vm, actual, now)
        stats = event.stats
        if stats is None:
            return
        if vm.stats is not None and stats.updated != vm.stats.updated:
            vm.stats_at = now
            if not vm.has_agent(now, self.state.settings.stale_seconds):
                self._judge_by_stats(vm, stats, now)
        vm.stats = stats

    @_on_vm.register
    def _(self, event: hv.ResidentSampled, vm: Vm, now: float) -> None:
        lifecycle.confirm(vm, event.guest_bytes, event.overhead_bytes, now, event.huge_bytes)

    @_on_vm.register
    def _(self, event: hv.DimmsChanged, vm: Vm, now: float) -> None:
        before = {d.alias: d for d in vm.dimms}
        after = {d.alias: d for d in event.dimms}
        added = sum(d.size_bytes for alias, d in after.items() if alias not in before)
        removed = sum(d.size_bytes for alias, d in before.items() if alias not in after)
        vm.dimms = event.dimms
        operation = self.state.operations.get(event.vm)
        if operation is not None:
            operation.dimms_changed(vm, added=bool(added))
        if not added and not removed:
            return
        if added:
            vm.grown_at = now
            if vm.awaited_until < math.inf:
                lifecycle.plug_came(vm, now)
        # QEMU keeps the ballooned amount, so `actual` and the target in force move with the RAM.
        change = added - removed
        vm.actual_bytes = max(0, vm.actual_bytes + change)
        vm.claim_bytes += added
        vm.ceiling_bytes = max(0, vm.ceiling_bytes + change)
        if vm.target_bytes is not None:
            vm.target_bytes = max(0, vm.target_bytes + change)
        vm.followed = tuple((since, max(0, size + change)) for since, size in vm.followed)
        vm.progress_bytes, vm.progress_at = vm.actual_bytes, now
        vm.dimms_changed_at = now
        vm.resend = True
        if operation is None:
            if added:
                self.state.last_cause = f"{vm.name} got a DIMM from somebody else"
            self.state.notice(now, "foreign", vm, f"somebody else changed the DIMMs of {vm.name}")

    @_on_vm.register
    def _(self, event: hv.DimmRefused, vm: Vm, now: float) -> None:
        operation = self.state.operations.get(event.vm)
        if operation is not None:
            operation.refused(vm, event.alias)

    @_on_vm.register
    def _(self, event: hv.VirtioMemChanged, vm: Vm, now: float) -> None:
        if not vm.virtio_mem.observe(event.current_bytes, event.requested_bytes, now):
            return
        if event.vm not in self.state.operations:
            vm.virtio_mem.release()
        asked = format_size(vm.virtio_mem.requested_bytes)
        self.state.last_cause = f"somebody else asked the virtio-mem device of {vm.name} for {asked}"
        self.state.notice(now, "foreign", vm, self.state.last_cause)

    @_on_vm.register
    def _(self, event: hv.CommandDone, vm: Vm, now: float) -> None:
        if event.ticket in vm.sent:
            target = vm.sent.pop(event.ticket)
            if event.error is not None:
                vm.resend = True
                vm.retry_at = now + RETRY_SECONDS
            elif not vm.sent:
                # Commands to one VM are carried out in order, so this one is in force.
                vm.ceiling_bytes = target
        vm.virtio_mem.answered(event.ticket, event.error)
        if (standstill := self.state.standstills.get(event.vm)) is not None:
            standstill.done(event)
        operation = self.state.operations.get(event.vm)
        if operation is not None:
            operation.done(vm, event.ticket, event.error, event.timed_out, now)
        if event.error is not None:
            self._tell_error(vm, event.error, now)

    def _tell_error(self, vm: Vm, error: str, now: float) -> None:
        """Once a minute and kind: a VM that does not answer fails many commands."""
        kind = _NUMBER.sub("N", error)
        told, at = vm.last_error
        if kind != told or now - at >= TELL_AGAIN_SECONDS:
            vm.last_error = (kind, now)
            self.state.notice(now, "command", vm, f"a command to {vm.name} failed: {error}")

    @_on_vm.register
    def _(self, event: hv.GuestNoise, vm: Vm, now: float) -> None:
        vm.noise[event.kind] = vm.noise.get(event.kind, 0) + event.count

    @_on_vm.register
    def _(self, event: hv.GuestGone, vm: Vm, now: float) -> None:
        vm.reported_at = -math.inf  # nobody needs to wait for its silence: statistics stand in from now on
        vm.zone = None
        self.state.notice(now, "agent", vm, f"the agent of {vm.name} left")

    @_on_vm.register
    def _(self, event: hv.ChannelChanged, vm: Vm, now: float) -> None:
        vm.channel_error = event.error
        what = "is open" if event.error is None else f"cannot be opened on this host: {event.error}"
        self.state.notice(now, "channel", vm, f"the agent's port of {vm.name} {what}")

    @_on_vm.register
    def _(self, event: hv.GuestSpoke, vm: Vm, now: float) -> None:
        message = event.untrusted_message
        match message:
            case wire.Report():
                self._reported(vm, message, now)
            case wire.Hello():
                self._greeted(vm, message, now)
            case wire.Ack():
                operation = self.state.operations.get(event.vm)
                if operation is not None:
                    operation.acknowledged(vm, message)
            case wire.Error():
                self._count(vm, "error-from-agent")

    def _greeted(self, vm: Vm, untrusted: wire.Hello, now: float) -> None:
        if vm.agent_version != untrusted.agent_version:
            self.state.notice(now, "agent", vm, f"{vm.name} runs dynmem-agent {untrusted.agent_version}")
        vm.agent_version = untrusted.agent_version
        if not untrusted.welcomed:
            vm.zone = None  # it has just started
        if is_block_size(untrusted.block_bytes):
            vm.block_bytes = untrusted.block_bytes
        elif untrusted.block_bytes:  # 0: it has no memory hotplug
            self._count(vm, "block-size")
        vm.psi = untrusted.psi

    def _judge_by_stats(self, vm: Vm, untrusted: BalloonStats, now: float) -> None:
        """No agent speaks: the balloon's statistics stand in for it."""
        # A stale `actual` of an earlier boot says nothing about this one (fact: actual-survives-reset).
        actual = vm.actual_bytes if vm.moved or vm.phase is not Phase.STARTING else vm.ram_bytes
        virtio_mem = vm.virtio_mem.current_bytes
        last = vm.stats
        grown = vm.dimms or virtio_mem
        if not grown and actual == vm.target_bytes and last and last.total_bytes == untrusted.total_bytes:
            # At rest the two figures are of one moment.
            kept = max(0, actual - untrusted.total_bytes)
            vm.kernel_bytes = kept if vm.kernel_bytes is None else min(kept, vm.kernel_bytes)
        facts = facts_from_stats(
            untrusted,
            config=vm.config,
            ram_bytes=vm.ram_bytes + virtio_mem,
            actual_bytes=actual + virtio_mem,
            unseen_bytes=vm.virtio_mem.may_hold_bytes - virtio_mem,
            now=now,
            sequence=untrusted.updated,
            kernel_bytes=vm.kernel_bytes,
            block_bytes=vm.block_bytes,
        )
        if isinstance(facts, Contradiction):
            self._count(vm, facts.kind)
        else:
            lifecycle.heard(vm, facts)

    def _reported(self, vm: Vm, untrusted: wire.Report, now: float) -> None:
        if vm.facts is not None and untrusted.sequence <= vm.facts.sequence:
            vm.zone = None  # an agent that has just started, and whose Hello was lost
        facts = facts_from_report(
            untrusted,
            config=vm.config,
            ram_bytes=vm.ram_bytes,
            now=now,
            previous=vm.facts,
            block_bytes=vm.block_bytes,
            virtio_mem=vm.virtio_mem if vm.config.virtio_mem_bytes else None,
        )
        if isinstance(facts, Contradiction):
            self._count(vm, facts.kind)
            return
        if vm.boot_id not in (None, facts.boot_id):
            self._another_kernel(vm, now)
        vm.boot_id = facts.boot_id
        lifecycle.heard(vm, facts)

    def _another_kernel(self, vm: Vm, now: float) -> None:
        """A kexec, or a reset that we did not see."""
        if vm.facts is not None and vm.facts.from_agent:
            self._restarted(vm, now, "runs another kernel")
            return
        if (operation := self.state.operations.get(vm.config.uuid)) is not None:
            operation.restarted(vm)
        # Its agent had left, so it was watched since, and its new driver has said what it holds by now.
        vm.booted_at, vm.demand = now, type(vm.demand)()
        vm.survivors = frozenset(one.alias for one in vm.dimms)
        self.state.notice(now, "reset", vm, f"{vm.name} runs another kernel")

    def _restarted(self, vm: Vm, now: float, what: str) -> None:
        operation = self.state.operations.get(vm.config.uuid)
        if operation is not None:
            operation.restarted(vm)
        self._boots_anew(vm, now)
        self.state.last_cause = f"{vm.name} {what}"
        self.state.notice(now, "reset", vm, f"{vm.name} {what}")

    @staticmethod
    def _boots_anew(vm: Vm, now: float) -> None:
        lifecycle.reset(vm, now)
        vm.survivors = frozenset(one.alias for one in vm.dimms)
        # The new kernel's driver obeys the old target at once, counted from RAM that it may not see
        # (facts: dimm-counts-at-once, dimms-survive-reset): give it all of that RAM, which it is charged
        # with anyway.
        startup = vm.config.growth is Growth.BALLOON
        vm.target_bytes = vm.config.limits.startup_bytes if startup else vm.ram_bytes
        vm.resend = True

    @_on_vm.register
    def _(self, event: HoldVm, vm: Vm, now: float) -> None:
        vm.held = event.on
        self.state.notice(now, "held", vm, f"{vm.name} was {'paused' if event.on else 'resumed'} here")

    @staticmethod
    def _count(vm: Vm, kind: str) -> None:
        vm.noise[kind] = vm.noise.get(kind, 0) + 1

    def _balloon(self, vm: Vm, actual_bytes: int, now: float) -> None:
        self._measure_inflation(vm, actual_bytes, now)
        if actual_bytes > books.guest_charge(vm):
            self.state.last_cause = f"{vm.name} took memory back from its balloon"
            self.state.unseen_seconds = lifecycle.unseen_seconds(vm, now)
        lifecycle.balloon_moved(vm, actual_bytes, now)

    @staticmethod
    def _measure_inflation(vm: Vm, actual_bytes: int, now: float) -> None:
        """Learn how fast this balloon inflates: it bounds a single command (rule: small-steps)."""
        seconds = now - vm.actual_at
        inflated = vm.actual_bytes - actual_bytes
        asked = vm.target_bytes is not None and actual_bytes >= vm.target_bytes - MIB
        quiet = vm.phase is Phase.LIVE and now - max(vm.since, vm.dimms_changed_at) > RATE_WINDOW[1]
        if asked and quiet and inflated > 0 and RATE_WINDOW[0] <= seconds <= RATE_WINDOW[1]:
            rate = min(inflated / seconds, FASTEST_INFLATION)
            vm.inflate_rate = rate if vm.inflate_rate == 0 else 0.7 * vm.inflate_rate + 0.3 * rate


def _unwrapped(vm: Vm, actual_bytes: int) -> int:
    """QEMU counts what the kernel before a reset had ballooned from the RAM of now: with its DIMMs gone that
    is less than nothing, and wraps to millions of TiB. Then the balloon says nothing.
    """
    most = max(vm.ram_bytes, vm.config.limits.maximum_bytes)
    return actual_bytes if actual_bytes <= most else vm.ram_bytes
