"""Decide and show, and change nothing: after each decision the engine forgets what it believes to have sent.

The one thing that is answered as if it had been done is the target that equals what a VM already has,
with which a VM is taken over: it would change nothing, and without it nothing would be decided for that VM.
Where somebody else moves a balloon, it has been told what it comes to: nobody here sends it back, and it
does not fail to follow what it was never sent.
"""

from collections.abc import Sequence

from agent import wire
from host_controller.core.engine import Engine
from host_controller.core.interface import (
    Command,
    CommandDone,
    Resume,
    SendToGuest,
    SetPace,
    SetTarget,
    Suspend,
)
from host_controller.core.vm.check_progress import ON_TARGET_BYTES
from host_controller.core.vm.record import LIVE, Vm
from host_controller.units import format_size


def harmless(command: Command) -> bool:
    """Whether a dry run may send it: it looks, asks, says hello, or lets run whom a controller before us has
    stopped. We stop nobody, and nobody else would let that VM run.
    """
    return isinstance(command, SetPace | Resume) or (
        isinstance(command, SendToGuest) and isinstance(command.message, wire.Welcome | wire.WhoHolds)
    )


class DryRun:
    """Wraps one engine's decisions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def decide(self, now: float) -> tuple[list[Command], list[CommandDone]]:
        """What would be commanded now, and the answers that the engine is to be given."""
        for vm in self._engine.vms.values():
            self._go_along(vm, now)
        before = {uuid: vm.as_it_was() for uuid, vm in self._engine.vms.items()}
        commands = self._engine.decide(now)
        return commands, self._undo(commands, before, now)

    def _go_along(self, vm: Vm, now: float) -> None:
        target, present = vm.balloon.target_bytes, vm.present_bytes
        if vm.phase is not LIVE or target is None or abs(present - target) <= ON_TARGET_BYTES:
            return
        ticket = self._engine.state.ticket()
        vm.send_target(ticket, present, now)
        vm.balloon.answered(ticket, None, now)

    def _undo(self, commands: Sequence[Command], before: dict[str, Vm], now: float) -> list[CommandDone]:
        answers = []
        for command in commands:
            vm = self._engine.vms.get(command.vm)
            if vm is None or harmless(command):
                continue
            if self._engine.state.operations.pop(command.vm, None) is not None:
                vm.unask(before[command.vm])
            if isinstance(command, Suspend):
                self._runs_on(vm, now)
            if not isinstance(command, SetTarget):
                continue
            was = before[command.vm]
            if was.balloon.target_bytes is None and command.target_bytes == vm.balloon.actual_bytes:
                answers.append(CommandDone(command.vm, command.ticket, None))
            else:
                vm.unsend(command.ticket, was)
        return answers

    def _runs_on(self, vm: Vm, now: float) -> None:
        """It was reset without room; that it stands still is not so."""
        state = self._engine.state
        missing = format_size(state.standstills.pop(vm.config.uuid).missing_bytes)
        vm.pauses.stand_still(False)
        told = [one for one in state.notices if (one.vm, one.kind) != (vm.config.uuid, "reset")]
        state.notices.clear()
        state.notices.extend(told)
        text = f"{vm.name} would stand still after its reset: {missing} of its RAM are not free"
        state.notice(now, "reset", vm, text)
