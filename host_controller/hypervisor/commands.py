"""The commands of one VM: carried out one at a time, in order, and each answered exactly once."""

import time
from collections import deque
from typing import Final

from host_controller.core.interface import CommandDone, Inbox
from host_controller.errors import CallFailed, HypervisorUnreachable
from host_controller.hypervisor import libvirt_calls
from host_controller.hypervisor.connections import Late
from host_controller.hypervisor.known_vm import KnownVm
from host_controller.hypervisor.lanes import Lane

CONTROL_LIMIT_SECONDS: Final = 2.0
"""For one request to libvirt that changes or describes a VM."""


class Commands:
    """The queue of one VM. Every command that is added ends in one CommandDone, whatever happens."""

    def __init__(self, vm: KnownVm, emit: Inbox) -> None:
        self._vm = vm
        self._emit = emit
        self._waiting: deque[libvirt_calls.VmCommand] = deque()
        self._running: tuple[libvirt_calls.VmCommand, float] | None = None

    def __bool__(self) -> bool:
        """Whether a command waits to be carried out."""
        return bool(self._waiting)

    def add(self, command: libvirt_calls.VmCommand) -> None:
        """It is carried out after those that were added before."""
        self._waiting.append(command)

    def refuse(self, command: libvirt_calls.VmCommand, why: str) -> None:
        """Answer a command that was never in the queue, as not sent."""
        self._answer(command, why)

    def refuse_all(self, why: str) -> None:
        """Empty the queue; each is answered as not sent, with this reason."""
        while self._waiting:
            self._answer(self._waiting.popleft(), why)

    def lose(self, why: str) -> None:
        """Nobody will know what became of the one under way, and those that wait are not sent."""
        if self._running is not None:
            command, begun = self._running
            self._running = None
            self._answer(command, why, timed_out=True, seconds=time.monotonic() - begun)
        self.refuse_all(why)

    async def carry_out_next(self, lane: Lane) -> None:
        """Take the next one out of the queue, and send it.

        Raises:
            Late: libvirt did not answer in time. It is answered as timed out.
            Exception: a mistake of ours. It is answered as timed out as well, for nobody knows how much of it
                was carried out; the next description of the VM tells.
        """
        command, begun = self._waiting.popleft(), time.monotonic()
        self._running = (command, begun)
        error: str | None = None
        timed_out = False
        done = libvirt_calls.Done()
        try:
            done = await lane.call(
                lambda connection: libvirt_calls.carry_out(connection, command, CONTROL_LIMIT_SECONDS),
                CONTROL_LIMIT_SECONDS,
            )
            if done.view is not None:
                self._vm.take_dimms(done.view.dimms, done.view.ram_blocks)
        except Late:
            error, timed_out = "no answer in time", True
            raise
        except libvirt_calls.JobRunning as failed:
            self._vm.job_seen(failed.job)
            error = failed.message
        except CallFailed as failed:
            error = failed.message
        except HypervisorUnreachable as lost:
            error, timed_out = lost.message, True
        except Exception as mistake:
            error, timed_out = f"an internal error: {type(mistake).__name__}: {mistake}", True
            self._vm.tell_dimms_anew()
            raise
        finally:
            if self._running is not None:
                self._running = None
                took = time.monotonic() - begun
                self._answer(command, error, timed_out=timed_out, seconds=took, done=done)

    def _answer(
        self,
        command: libvirt_calls.VmCommand,
        error: str | None,
        *,
        timed_out: bool = False,
        seconds: float = 0.0,
        done: libvirt_calls.Done | None = None,
    ) -> None:
        vcpu_seconds = None if done is None else done.vcpu_seconds
        self._emit(CommandDone(command.vm, command.ticket, error, timed_out, seconds, vcpu_seconds))
