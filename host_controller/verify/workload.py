"""The driver of the workload server in a guest: one method per command, each with a limit."""

import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from host_controller.verify.errors import WorkloadError
from host_controller.verify.workload_port import WorkloadEvent, WorkloadPort


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """A guest's own view. `meminfo` in bytes, `vmstat` counters, `blocks`: memory block → (state, zones)."""

    meminfo: dict[str, int]
    vmstat: dict[str, int]
    blocks: dict[str, tuple[str, str]]
    block_bytes: int
    psi: str

    @property
    def total_bytes(self) -> int:
        """MemTotal."""
        return self.meminfo["MemTotal"]

    @property
    def available_bytes(self) -> int:
        """MemAvailable."""
        return self.meminfo["MemAvailable"]

    @property
    def online_blocks(self) -> int:
        """How many memory blocks are online."""
        return sum(state == "online" for state, _ in self.blocks.values())


@dataclass(frozen=True, slots=True)
class AgentState:
    """The agent's process in the guest: its pid or None, the exit statuses so far, the end of its output."""

    pid: int | None
    ends: list[int]
    log: str


class Workload:
    """Commands one guest. Connects when first used, and again after the guest has been reset."""

    def __init__(self, guest: str, path: Path, context: Callable[[], str]) -> None:
        """`path`: the port's socket. `context` tells what to add to an error message (the end of the guest's
        console).
        """
        self._guest = guest
        self._port = WorkloadPort(guest, path, context)

    @property
    def events(self) -> deque[WorkloadEvent]:
        """What workloads have said and nobody has taken out yet, oldest first."""
        return self._port.events

    def close(self) -> None:
        """Close the port's host end."""
        self._port.close()

    def wait_answering(self, limit: float) -> None:
        """Until the server answers a ping. Raises WorkloadError after `limit` seconds."""
        deadline = time.monotonic() + limit
        while True:
            try:
                self.ping(limit=min(1.0, max(0.1, deadline - time.monotonic())))
                return
            except WorkloadError:
                if time.monotonic() > deadline:
                    raise

    def ping(self, limit: float = 10.0) -> tuple[float, float, float]:
        """Guest CLOCK_MONOTONIC and CLOCK_REALTIME, and our CLOCK_MONOTONIC half-way through, in seconds."""
        before = time.monotonic()
        answer = self._port.ask("ping", limit)
        return answer["mono"], answer["real"], (before + time.monotonic()) / 2

    def clock_offset(self, tries: int = 10) -> tuple[float, float]:
        """(offset, error) in seconds: guest CLOCK_MONOTONIC less ours, from the quickest of some pings."""
        best = (0.0, float("inf"))
        for _ in range(tries):
            before = time.monotonic()
            guest, _, middle = self.ping()
            error = (time.monotonic() - before) / 2
            if error < best[1]:
                best = (guest - middle, error)
        return best

    def boot_id(self) -> str:
        """The kernel's boot id: changes with every boot."""
        return str(self._port.ask("ping", 10.0)["result"]["boot_id"])

    def allocate(
        self,
        mib: int,
        rate: float = 0.0,
        name: str = "memory",
        *,
        swaps: bool = False,
        greedy: bool = False,
    ) -> None:
        """Start to touch `mib` MiB at `rate` MiB/s (0: as fast as it goes); see `wait_event`.

        It stands still while its guest has no memory left; one that swaps, while there is no free swap,
        either. A greedy one never does, and may be killed.
        """
        how = {"mib": mib, "rate": rate, "swaps": swaps, "greedy": greedy}
        self._port.ask("start", 10.0, kind="allocate", name=name, **how)

    def hold(self, name: str = "memory") -> None:
        """Stop an allocation where it is, and keep what it has touched."""
        self._port.ask("hold", 10.0, name=name)

    def free(self, name: str | None = None, limit: float = 30.0) -> None:
        """End one workload, or all of them, and wait until the guest has its memory back."""
        names = self._port.ask("free", 10.0, name=name)["result"]["freed"]
        waiting = set(names)
        deadline = time.monotonic() + limit
        while waiting:
            waiting -= {event.name for event in self.events if event.kind == "ended"}
            self.events.clear()
            if waiting and time.monotonic() > deadline:
                raise self._port.error(f"workloads {sorted(waiting)} did not end within {limit:g} s")
            if waiting:
                self._port.pump(deadline)

    def thrash(self, mib: int, rate: float = 0.0, name: str = "thrash") -> None:
        """Read a file of `mib` MiB over and over: cache refaults while MemAvailable stays flat."""
        self._port.ask("start", 10.0, kind="thrash", name=name, mib=mib, rate=rate)

    def thrash_cgroup(self, mib: int, high_mib: int, rate: float = 0.0, name: str = "container") -> None:
        """Use `mib` MiB in a cgroup with memory.high at `high_mib`: PSI is high, the guest itself idle."""
        self._port.ask("start", 10.0, kind="thrash_cgroup", name=name, mib=mib, rate=rate, high_mib=high_mib)

    def memory(self, limit: float = 30.0) -> GuestMemory:
        """The guest's own view of its memory, now."""
        result = self._port.ask("meminfo", limit)["result"]
        blocks = {name: (state, zones) for name, (state, zones) in result["blocks"].items()}
        return GuestMemory(result["meminfo"], result["vmstat"], blocks, result["block_size"], result["psi"])

    def exec(self, command: str, limit: float = 30.0, check: bool = True) -> str:
        """Output (at most 64 KiB) of a shell command in the guest; killed there after `limit` seconds.

        Raises WorkloadError when `check` and its status is not 0.
        """
        result = self._port.ask("exec", limit + 5.0, command=command, limit=limit)["result"]
        if check and result["status"] != 0:
            raise WorkloadError(
                f"In {self._guest}, `{command}` ended with {result['status']}: {result['output'][-1000:]}"
            )
        return str(result["output"])

    def agent(self) -> AgentState:
        """What the agent's process is doing."""
        return AgentState(**self._port.ask("agent", 10.0)["result"])

    def wait_agent(self, limit: float, other_than: int | None = None) -> int:
        """The pid of a running agent other than `other_than`. Raises WorkloadError after `limit` seconds."""
        deadline = time.monotonic() + limit
        while (state := self.agent()).pid in (None, other_than):
            if time.monotonic() > deadline:
                raise self._port.error(
                    f"no new agent within {limit:g} s; ends {state.ends}, log:\n{state.log[-1000:]}"
                )
        assert state.pid is not None
        return state.pid

    def wait_no_agent(self, limit: float) -> None:
        """Until no agent runs. Raises WorkloadError after `limit` seconds."""
        deadline = time.monotonic() + limit
        while (state := self.agent()).pid is not None:
            if time.monotonic() > deadline:
                raise self._port.error(f"agent {state.pid} still runs after {limit:g} s")

    def signal_agent(self, number: signal.Signals = signal.SIGKILL, respawn: bool | None = None) -> int:
        """Signal the agent (its old pid is returned); `respawn` says whether it shall be started again."""
        return int(self._port.ask("signal_agent", 10.0, number=int(number), respawn=respawn)["result"]["pid"])

    def start_agent(self, command: str | None = None, respawn: bool = False) -> None:
        """Start an agent where none runs, by the command it had at boot or by another one."""
        self._port.ask("start_agent", 10.0, command=command, respawn=respawn)

    def program(self, *arguments: str, limit: float = 30.0) -> None:
        """Run a Python program, where there is no shell. Raises WorkloadError when its status is not 0."""
        result = self._port.ask("program", limit, arguments=arguments)["result"]
        if result["status"] != 0:
            raise self._port.error(f"{arguments[0]} ended with {result['status']}: {result['output']}")

    def balloon_driver(self, *, bound: bool, limit: float = 30.0) -> None:
        """Bind the balloon's driver, or unbind it: it gives all memory back to the guest first."""
        self._port.ask("balloon_driver", limit, bound=bound)

    def crash(self) -> None:
        """Panic the guest's kernel. It hangs then, unless its command line has `panic=`."""
        self._port.tell("sysrq", key="c")

    def reboot(self) -> None:
        """Reboot the guest at once, without a clean shutdown."""
        self._port.tell("sysrq", key="b")

    def load_kexec(self) -> None:
        """Take in the kernel that `kexec` boots. It must fit into half of what the guest has then."""
        self.exec("kexec load")

    def kexec(self) -> None:
        """Boot the loaded kernel from within this one, past the firmware."""
        self.exec("(sleep 0.5; exec kexec go) > /dev/null 2>&1 &")
        self.close()

    def sleep_to_ram(self) -> None:
        """ACPI S3; QEMU's `system_wakeup` ends it."""
        sleep = "(sleep 0.5; echo deep > /sys/power/mem_sleep; echo mem > /sys/power/state)"
        self.exec(f"{sleep} > /dev/null 2>&1 &")

    def power_off(self) -> None:
        """Power the guest off at once."""
        self._port.tell("sysrq", key="o")

    def wait_event(self, kind: str, name: str, limit: float) -> WorkloadEvent:
        """The next event of that kind and workload; those before it are dropped.

        Raises WorkloadError once the workload has got no further for `limit` seconds, or as soon as it has
        ended, with what was seen. A busy machine makes it slow, which is no failure; memory that does not
        come makes it stand still.
        """
        deadline = time.monotonic() + limit
        furthest = 0
        seen: list[str] = []
        while True:
            while self.events:
                event = self.events.popleft()
                if event.name == name and event.kind == kind:
                    return event
                if event.name == name and (event.mib or 0) > furthest:
                    furthest, deadline = event.mib or 0, time.monotonic() + limit
                seen.append(
                    f"{event.name} {event.kind} {event.mib if event.status is None else event.status}"
                )
                if event.name == name and event.kind == "ended":
                    raise self._port.error(
                        f"workload {name} ended before it said {kind!r}; seen: {seen[-5:]}"
                    )
            if time.monotonic() > deadline:
                raise self._port.error(
                    f"workload {name} did not say {kind!r}, nor get further in {limit:g} s; seen: {seen[-5:]}"
                )
            self._port.pump(deadline)
