"""An operation's life: one operation, its VM, and a hypervisor and a guest that do as a test tells them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

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
from host_controller.core.operations.stages import Outcome
from host_controller.core.vm.record import Vm
from host_controller.core.vm.virtio_mem import VirtioMem
from host_controller.units import MIB
from tests.support import build

SIZE = 256 * MIB


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
    sent: list[Command] = field(default_factory=list)
    """Every command that it gave."""
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
        self.sent.append(command)
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

    def answer_before_news(self) -> None:
        """The command is told as done before what came of it."""
        ticket = next(iter(self.asked))
        del self.asked[ticket]
        self.answer(ticket, None, timed_out=False)

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
        vm.virtio_mem.answered(ticket, error, self.now)
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


WORDS: Final[dict[str, Callable[[Life], None]]] = {
    "yes": lambda life: life.agent_answers(True),
    "no": lambda life: life.agent_answers(False),
    "agentless": Life.agent_comes_or_leaves,
    "done": lambda life: life.hypervisor_answers(None),
    "done-first": Life.answer_before_news,
    "refused": lambda life: life.hypervisor_answers("its reason"),
    "late": Life.hypervisor_is_late,
    "nothing-came": lambda life: life.late_command_ends(False),
    "it-came": lambda life: life.late_command_ends(True),
    "dimm-came": lambda life: life.operation.dimms_changed(life.vm, added=True),
    "gone": Life.dimm_leaves,
    "stays": Life.dimm_stays,
    "reset": Life.guest_starts_anew,
    "job": Life.job_begins_or_ends,
    "crowded": lambda life: life.guest_says(0, 0, 512),
    "needy": lambda life: life.guest_says(12, 0, 512),
    "spare": lambda life: life.guest_says(300, 0, 512),
    "online": lambda life: life.guest_says(300, 0, 768),
    "offline": lambda life: life.guest_says(300, 256, 512),
}
"""What can happen, for tables. A number of seconds or of MiB (the device's size) is a word, too."""


def happens(life: Life, word: str) -> None:
    if word.endswith("MiB"):
        life.device_has(int(word[:-3]))
    elif word.endswith("s") and word[0].isdigit():
        life.waits(float(word[:-1]))
    else:
        WORDS[word](life)
