"""A simulated guest's agent: the real agent's decisions over the simulated kernel's figures."""

from collections.abc import Callable
from typing import Final

from agent import wire
from agent.probe import Facts
from agent.proc_text import Psi
from agent.report import Blocks, Reporter
from host_controller.core.model import MEMORY_BLOCK_BYTES
from host_controller.simulator.behaviours import Behaviour, Speech
from host_controller.simulator.memory import Memory

PAGE_BYTES: Final = 4096
PSI_TRIGGER_SHARE: Final = 0.07
"""`some 70000 1000000`: the share of a second's window that sets the trigger off."""

Say = Callable[[wire.GuestMessage], None]


def facts_of(memory: Memory, uptime: float) -> Facts:
    """What the real probe would read in this guest: a kernel tells its memory in KiB."""
    total = _kib(memory.total)
    return Facts(
        total_bytes=total,
        available_bytes=max(0, min(_kib(memory.available), total)),
        free_bytes=max(0, min(_kib(memory.free), total)),
        reclaimable_bytes=max(0, min(_kib(memory.cache), total)),
        swap_total_bytes=_kib(memory.swap_size),
        swap_used_bytes=_kib(memory.swapped),
        swap_cached_bytes=0,
        swap_disk_used_bytes=_kib(memory.swapped),
        swap_disk_free_bytes=_kib(memory.swap_size - memory.swapped),
        swap_in_pages=int(memory.swapped_in) // PAGE_BYTES,
        committed_bytes=_kib(memory.ideal * 1.2 + memory.slab),
        refault_pages=int(memory.refaulted) // PAGE_BYTES,
        major_faults=int(memory.refaulted + memory.swapped_in) // PAGE_BYTES,
        ballooned_bytes=_kib(memory.ballooned),
        floor_bytes=min(_kib(memory.high_mark), total),
        commit_limit_bytes=0,
        uptime_seconds=uptime,
        psi=Psi(memory.stall_avg10, 0.0, int(memory.stall_us), 0),
    )


def _kib(size: float) -> int:
    return int(size) >> 10 << 10


class SimulatedAgent:
    """One boot's agent. `step` is its poll loop: it samples when its reporter says so."""

    def __init__(self, boot_id: str, now: float, say: Say) -> None:
        self.reporter = Reporter(boot_id, now)
        self.zone: wire.Zone | None = None
        """None until the host has named one: Debian's default leaves new memory offline."""
        self._boot_id = boot_id
        self._born = now
        self._say = say
        self._heartbeat = now
        self._frozen: wire.Report | None = None
        self._hello(welcomed=False)

    def receive(self, message: wire.HostMessage, memory: Memory, now: float) -> None:
        """Act on what the host says; offlining and onlining is the guest's, which acknowledges."""
        if isinstance(message, wire.Welcome):
            self.reporter.welcome(message)
            self._hello(welcomed=True)
            self.reporter.force("hello", now)
        elif isinstance(message, wire.OnlineZone):
            self.zone = message.zone
            self._say(wire.Ack(message.request_id, ok=True))
        elif isinstance(message, wire.Ping):
            self._say(wire.Ack(message.request_id, ok=True))
            self.reporter.force("heartbeat", now)
        elif isinstance(message, wire.WhoHolds):
            sizes = (("workload", int(memory.anon)), ("system", int(memory.slab)))
            self._say(wire.Held(message.request_id, "services", sizes))

    def acknowledge(self, request_id: int, changed_bytes: int, detail: str = "") -> None:
        """Say what became of a request about memory blocks."""
        self._say(wire.Ack(request_id, ok=not detail, detail=detail, changed_bytes=changed_bytes))

    def next_look(self, moving: bool) -> float:
        """When to call `step` next: a guest in which nothing moves is only due its heartbeat."""
        if moving or self.reporter.alert(self.reporter.sample_due()):
            return self.reporter.sample_due()
        return max(self._heartbeat, self.reporter.sample_due())

    def step(self, memory: Memory, blocks: Callable[[], Blocks], now: float, behaviour: Behaviour) -> None:
        """Sample if it is time, and report if that is worth it."""
        if memory.stall_share >= PSI_TRIGGER_SHARE and not self.reporter.alert(now):
            self.reporter.psi_event(now)
        if now < self.reporter.sample_due() - 1e-9:
            return
        facts = facts_of(memory, now - self._born)
        report = self.reporter.observe(_coloured(facts, behaviour.speech), blocks(), now)
        if report is None:
            return
        self._heartbeat = now + self.reporter.cadence.heartbeat_seconds
        if behaviour.speech is Speech.STALE:
            self._frozen = self._frozen or report
            report = self._frozen._replace(sequence=report.sequence, uptime_seconds=report.uptime_seconds)
        else:
            self._frozen = None
        self._say(report)

    def _hello(self, *, welcomed: bool) -> None:
        hello = wire.Hello(
            boot_id=self._boot_id,
            agent_version="simulated",
            kernel_release="6.1.0-simulated",
            block_bytes=MEMORY_BLOCK_BYTES,
            psi=True,
            online_policy="online_movable",
            hotplug="kernel",
            welcomed=welcomed,
            holders="on",
        )
        self._say(hello)


def _coloured(facts: Facts, speech: Speech) -> Facts:
    """The facts as an agent of that behaviour tells them."""
    if speech is Speech.NEEDY:
        little = min(facts.available_bytes, facts.floor_bytes)
        return facts._replace(available_bytes=little, free_bytes=min(facts.free_bytes, little))
    if speech is Speech.GENEROUS:
        return facts._replace(available_bytes=facts.total_bytes * 9 // 10, floor_bytes=0)
    return facts
