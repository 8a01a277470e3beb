"""A real guest for the checks: libvirt's part is given, the rest is the workload server's and the agent's."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from host_controller.verify.agent_end import AgentEnd
from host_controller.verify.burn_in.checks import BOOT_LIMIT
from host_controller.verify.burn_in.machine import MIB, InGuest
from host_controller.verify.errors import VerifyError, WorkloadError
from host_controller.verify.guest_xml import DIMM_MIB, Place
from host_controller.verify.observer import Observer
from host_controller.verify.processes import processes_of
from host_controller.verify.smaps import read_smaps
from host_controller.verify.workload import Workload

WORK: Final = "verify"
TOUCH_LIMIT: Final = 60.0


class Domain(Protocol):
    """What hypervisor/throwaway.py has: libvirt's part, bytes."""

    def dimms(self) -> tuple[Any, ...]: ...
    def actual(self) -> int: ...
    def set_balloon(self, target: int) -> None: ...
    def plug(self, size: int) -> str: ...
    def unplug(self, alias: str) -> None: ...
    def resize(self, requested: int) -> None: ...
    def virtio_mem(self) -> int: ...
    def reset(self) -> None: ...
    def end(self) -> None: ...


class RealMachine:
    """As `machine.Machine` says. The observer watches it from its start on."""

    block_bytes = DIMM_MIB * MIB

    def __init__(
        self, name: str, ram_bytes: int, place: Place, start: Callable[[], Domain], observer: Observer
    ) -> None:
        self.name = name
        self.ram_bytes = ram_bytes
        self.observer_socket = place.observer_socket
        self._place = place
        self._start = start
        self._observer = observer
        self._domain: Domain | None = None
        self._agent: AgentEnd | None = None
        self._workload = Workload(name, place.lab_socket, self._console)

    def qemu_pid(self) -> int:
        """Its QEMU. Raises VerifyError when there is none."""
        pids = processes_of(self._place.directory)
        if len(pids) != 1:
            raise VerifyError(f"{self.name} has {len(pids)} QEMU processes, not one")
        return pids[0]

    def end(self) -> None:
        """Let go of it; its QEMU ends."""
        self._workload.close()
        if self._agent is not None:
            self._agent.close()
        if self._domain is not None:
            self._domain.end()

    # --- the machine ---

    def clock(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def boot(self) -> None:
        self._domain = self._start()
        self._observer.start(self)
        self._agent = AgentEnd(self._place.agent_socket)
        self._workload.wait_answering(BOOT_LIMIT)

    def reset(self) -> None:
        self._agent_end.forget()
        self._workload.close()
        self._running.reset()
        self._workload.wait_answering(BOOT_LIMIT)

    def hears_agent(self, limit: float) -> bool:
        return self._agent_end.greets(limit)

    def set_balloon(self, target: int) -> None:
        self._running.set_balloon(target)

    def actual(self) -> int:
        return self._running.actual()

    def resident(self) -> int:
        return read_smaps(self.qemu_pid()).resident_bytes

    def plug(self) -> str:
        return self._running.plug(self.block_bytes)

    def offline(self, alias: str) -> bool:
        dimm = next(one for one in self._running.dimms() if one.alias == alias)
        return self._agent_end.offline(dimm.base_bytes, dimm.size_bytes)

    def unplug(self, alias: str) -> None:
        self._running.unplug(alias)

    def dimms(self) -> tuple[str, ...]:
        return tuple(one.alias for one in self._running.dimms())

    def resize(self, requested: int) -> None:
        self._running.resize(requested)

    def virtio_mem(self) -> int:
        return self._running.virtio_mem()

    def inside(self) -> InGuest:
        memory = self._workload.memory()
        return InGuest(memory.total_bytes, memory.available_bytes, memory.vmstat.get("oom_kill", 0))

    def touch(self, mib: int) -> None:
        self._workload.allocate(mib, name=WORK)
        self._workload.wait_event("done", WORK, TOUCH_LIMIT)
        self._workload.free(WORK)

    def begin_allocation(self, mib: int, rate: float) -> None:
        self._workload.allocate(mib, rate, name=WORK, greedy=True)

    def allocation_survives(self, limit: float) -> bool:
        try:
            self._workload.wait_event("done", WORK, limit)
            self._workload.free(WORK)
        except WorkloadError:
            return False
        return True

    def forge_actual(self, mib: int) -> None:
        self._workload.program("/verify/forge_actual.py", str(mib))

    def unbind_balloon(self) -> None:
        self._workload.balloon_driver(bound=False)

    def bind_balloon(self) -> None:
        self._workload.balloon_driver(bound=True)

    # --- its parts ---

    @property
    def _running(self) -> Domain:
        if self._domain is None:
            raise VerifyError("the guest has not been started")
        return self._domain

    @property
    def _agent_end(self) -> AgentEnd:
        if self._agent is None:
            raise VerifyError("the guest has not been started")
        return self._agent

    def _console(self) -> str:
        try:
            text = Path(self._place.console).read_text(errors="replace")
        except OSError:
            return ""
        return "Its console ends:\n  " + "\n  ".join(text.splitlines()[-8:])
