"""Operations under any order of events: never stuck, never two commands at once, no debt at the end."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import wire
from host_controller.core.interface import (
    AttachDimm,
    Command,
    DetachDimm,
    ResizeVirtioMem,
    SendToGuest,
    SetTarget,
)
from host_controller.core.model import Dimm, Growth
from host_controller.core.operations import Operation, Plug, Resize, Unplug
from host_controller.core.operations.resize import ANSWER_LIMIT
from host_controller.core.operations.stages import HARMLESS, Outcome
from host_controller.core.operations.unplug import LATE_LIMIT, OFFLINE_LIMIT
from host_controller.core.vm.record import Vm
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB
from tests.support import build

SIZE = 256 * MIB
LONGEST = OFFLINE_LIMIT + LATE_LIMIT + 2 * ANSWER_LIMIT
"""Seconds after which every stage of one operation is over, whatever the guest does."""


@dataclass
class Life:
    """One operation, its VM, and a hypervisor and a guest that do as they are told to by the test."""

    vm: Vm
    operation: Operation
    now: float = 1.0
    agent: bool = True
    asked: dict[int, Command] = field(default_factory=dict)
    """Commands that the hypervisor has neither answered nor called late."""
    limbo: dict[int, Command] = field(default_factory=dict)
    """Commands that it has called late and may still carry out."""
    said: list[wire.HostMessage] = field(default_factory=list)
    restarted: bool = False

    @property
    def ended(self) -> bool:
        return self.operation.outcome is not Outcome.UNDER_WAY

    def look(self) -> None:
        """As the engine does after each event."""
        if self.ended:
            return
        if self.vm.pauses.hands_off:
            self.operation.hold(self.now)
            return
        commands = self.operation.advance(self.vm, self.now, self.agent)
        assert len(commands) <= 1
        for command in commands:
            self.take(command)

    def take(self, command: Command) -> None:
        match command:
            case SendToGuest(_, message):
                self.said.append(message)
            case (
                SetTarget(_, ticket, _)
                | AttachDimm(_, ticket, _)
                | DetachDimm(_, ticket, _)
                | ResizeVirtioMem(_, ticket, _)
            ):
                waiting = [*self.asked.values(), *self.limbo.values()]
                assert not waiting, f"{command} while {waiting} is not answered"
                self.asked[ticket] = command
                if isinstance(command, AttachDimm):
                    assert self.vm.plug.pending_bytes == command.size_bytes, "paid before it is asked for"

    # --- what can happen ---

    def waits(self, seconds: float) -> None:
        self.now += seconds

    def agent_answers(self, ok: bool) -> None:
        if self.said:
            asked = self.said[-1]
            self.operation.acknowledged(self.vm, wire.Ack(asked.request_id, ok, "" if ok else "EBUSY"))  # type: ignore[union-attr]

    def an_old_answer_comes(self) -> None:
        self.operation.acknowledged(self.vm, wire.Ack(12345, True, ""))

    def agent_comes_or_leaves(self) -> None:
        self.agent = not self.agent
        self.vm.guest.forget_zone()

    def hypervisor_answers(self, error: str | None) -> None:
        if not self.asked:
            return
        ticket, command = next(iter(self.asked.items()))
        del self.asked[ticket]
        if error is None:
            self.carry_out(command)
        self.answer(ticket, error, timed_out=False)

    def hypervisor_is_late(self) -> None:
        if self.asked:
            ticket = next(iter(self.asked))
            self.limbo[ticket] = self.asked.pop(ticket)
            self.answer(ticket, "no answer in time", timed_out=True)

    def late_command_ends(self, carried_out: bool) -> None:
        if self.limbo:
            command = self.limbo.pop(next(iter(self.limbo)))
            before = self.vm.dimms.plugged
            if carried_out:
                self.carry_out(command)
            if self.vm.dimms.plugged == before:
                self.operation.dimms_changed(self.vm, added=False)

    def answer(self, ticket: int, error: str | None, timed_out: bool) -> None:
        vm = self.vm
        vm.balloon.answered(ticket, error, self.now)
        vm.virtio_mem.answered(ticket, error)
        self.operation.done(vm, ticket, error, timed_out, self.now)

    def carry_out(self, command: Command) -> None:
        match command:
            case AttachDimm(_, _, size):
                self.vm.replug((*self.vm.dimms.plugged, Dimm("new", size, 8192 * MIB)), self.now)
                self.operation.dimms_changed(self.vm, added=True)
            case SetTarget(_, _, target):
                self.vm.balloon.read(target, self.now)

    def dimm_leaves(self) -> None:
        if self.vm.dimms.plugged:
            self.vm.replug(self.vm.dimms.plugged[:-1], self.now)
            self.operation.dimms_changed(self.vm, added=False)

    def dimm_stays(self) -> None:
        self.operation.refused(self.vm, "dimm0")

    def guest_says(self, available_mib: int, offline_mib: int, online_mib: int) -> None:
        facts = build.facts(
            512, 512 - available_mib, at=self.now, from_agent=self.agent,
            offline_bytes=offline_mib * MIB, online_bytes=online_mib * MIB,
        )  # fmt: skip
        build.says(self.vm, facts)

    def device_has(self, mib: int) -> None:
        self.vm.virtio_mem.observe(mib * MIB, None, self.now)

    def guest_starts_anew(self) -> None:
        self.operation.restarted(self.vm)
        self.restarted = True

    def job_begins_or_ends(self) -> None:
        self.vm.pauses.job_is(None if self.vm.pauses.job else "migration")


def plugging() -> Life:
    vm = build.vm(512, pending_bytes=SIZE)
    return Life(vm, Plug(iter(range(100, 10_000)).__next__, size_bytes=SIZE))


def unplugging(raise_to: int | None) -> Life:
    vm = build.vm(600, dimms_mib=(256,))
    return Life(vm, Unplug(iter(range(100, 10_000)).__next__, alias="dimm0", raise_to_bytes=raise_to))


def resizing(to_mib: int, raise_to: int | None) -> Life:
    config = {"growth": Growth.VIRTIO_MEM, "slots": 1, "virtio_mem_bytes": 512 * MIB}
    vm = build.vm(512, config=config, virtio_mem=VirtioMem(SIZE, SIZE, SIZE))
    zone: wire.Zone | None = "movable" if to_mib * MIB > SIZE else None
    vm.virtio_mem.promise(to_mib * MIB)
    operation = Resize(
        iter(range(100, 10_000)).__next__, size_bytes=to_mib * MIB, zone=zone, raise_to_bytes=raise_to
    )
    return Life(vm, operation)


KINDS: dict[str, Callable[[], Life]] = {
    "hot add": plugging,
    "unplug": lambda: unplugging(700 * MIB),
    "unplug of an offline DIMM": lambda: unplugging(None),
    "more virtio-mem": lambda: resizing(512, None),
    "less virtio-mem": lambda: resizing(128, None),
    "virtio-mem for the balloon": lambda: resizing(128, 640 * MIB),
}

EVENTS: st.SearchStrategy[tuple[Callable[..., None], tuple[object, ...]]] = st.one_of(
    st.tuples(st.just(Life.waits), st.tuples(st.sampled_from((0.05, 0.5, 4.0, 16.0, 40.0)))),
    st.tuples(st.just(Life.agent_answers), st.tuples(st.booleans())),
    st.tuples(st.just(Life.an_old_answer_comes), st.just(())),
    st.tuples(st.just(Life.agent_comes_or_leaves), st.just(())),
    st.tuples(st.just(Life.hypervisor_answers), st.tuples(st.sampled_from((None, None, "no")))),
    st.tuples(st.just(Life.hypervisor_is_late), st.just(())),
    st.tuples(st.just(Life.late_command_ends), st.tuples(st.booleans())),
    st.tuples(st.just(Life.dimm_leaves), st.just(())),
    st.tuples(st.just(Life.dimm_stays), st.just(())),
    st.tuples(
        st.just(Life.guest_says),
        st.tuples(st.sampled_from((0, 12, 300)), st.sampled_from((0, 256)), st.sampled_from((512, 768))),
    ),
    st.tuples(st.just(Life.device_has), st.tuples(st.sampled_from((0, 128, 200, 256, 512)))),
    st.tuples(st.just(Life.guest_starts_anew), st.just(())),
    st.tuples(st.just(Life.job_begins_or_ends), st.just(())),
)
STORY = st.lists(EVENTS, max_size=40)


@pytest.mark.parametrize("kind", KINDS)
@given(story=STORY)
@settings(max_examples=150, deadline=None)
def test_an_operation_ends_owes_nothing_and_never_commands_twice_without_an_answer(
    kind: str, story: list[tuple[Callable[..., None], tuple[object, ...]]]
) -> None:
    life = KINDS[kind]()
    life.guest_says(300, 0, 512)
    life.look()
    for event, details in story:
        event(life, *details)
        life.look()
    end_it(life)
    operation, vm = life.operation, life.vm
    assert life.ended, operation.describe()
    vm.virtio_mem.release()
    vm.virtio_mem.catch_up(life.now + 100.0)
    device = vm.virtio_mem
    if isinstance(operation, Plug):
        assert vm.plug.pending_bytes == 0 or operation.outcome is Outcome.DROPPED
    unsure = device.unsure or life.asked  # it stays charged until the hypervisor answers
    assert unsure or device.may_hold_bytes == max(device.current_bytes, device.requested_bytes)
    assert operation.note or operation.outcome is Outcome.DONE
    gone = [one for one in life.said if isinstance(one, wire.Offline)]
    back = [one for one in life.said if isinstance(one, wire.Online)]
    if life.restarted:
        assert operation.outcome is not Outcome.FAILED or len(back) == len(gone)
    elif operation.outcome is Outcome.FAILED:
        assert [(one.start_bytes, one.size_bytes) for one in back] == [
            (one.start_bytes, one.size_bytes) for one in gone
        ], "what was taken from the guest is given back"
    else:
        assert not back


def end_it(life: Life) -> None:
    """The job ends and the hypervisor says what became of every command. Nobody else does anything."""
    life.vm.pauses.job_is(None)
    began = life.now
    while not life.ended and life.now - began < LONGEST:
        if life.asked:
            life.hypervisor_answers(None)
        elif life.limbo:
            life.late_command_ends(False)
        life.look()
        life.waits(0.5)


@given(story=STORY)
@settings(max_examples=150, deadline=None)
def test_an_operation_that_was_held_back_before_it_changed_anything_has_commanded_nothing(
    story: list[tuple[Callable[..., None], tuple[object, ...]]],
) -> None:
    life = plugging()
    life.guest_says(300, 0, 512)
    for event, details in story:
        event(life, *details)
        life.look()
        if life.operation.stage in HARMLESS:
            assert not life.asked
            assert not life.limbo
