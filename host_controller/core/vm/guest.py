"""What a guest has said, by its agent or by its balloon's statistics, and what follows for what it needs."""

import math
from dataclasses import dataclass, field, replace
from typing import Final

from agent import wire
from host_controller.core.interface import GuestReading
from host_controller.core.model import MEMORY_BLOCK_BYTES, BalloonStats, GuestFacts, Limits
from host_controller.core.vm.demand import NOTHING_MOVES, Demand, Estimate, Transit
from host_controller.core.vm.report_validation import is_block_size

READING_SECONDS: Final = 60.0
"""For so long what was read through a QEMU guest agent is a witness; then statistics are the only one."""
READ: Final = "guest agent"
"""In place of a boot id: counters of such readings are compared with each other alone."""
NEW_COUNT_SECONDS: Final = 60.0
"""So often a guest's own word is enough for its reports to count from 0 again."""
BOOT_ID_PREFIX: Final = 8
"""Characters of it that a report carries."""


@dataclass(slots=True)
class Guest:
    """Validated words of one guest. Sizes are bytes."""

    facts: GuestFacts | None = None
    actual_when_heard_bytes: int = 0
    """What was known of its balloon when its own kernel last spoke."""
    reported_at: float = -math.inf
    """When the agent last reported."""
    stats: BalloonStats | None = None
    stats_at: float = -math.inf
    """When the balloon's driver last answered."""
    stats_came_at: float = -math.inf
    """When these statistics were first seen. The first of all may be of any time before."""
    actual_with_stats_bytes: int = 0
    """What its balloon claimed by then."""
    reading: GuestReading | None = None
    """What was last read through its QEMU guest agent."""
    read_at: float = -math.inf
    demand: Demand = field(default_factory=Demand)
    estimate: Estimate | None = None
    kernel_bytes: int | None = None
    """What its kernel keeps: the least of `actual` that its driver was seen not to count, without DIMMs."""
    counts_balloon: bool = False
    """What its balloon holds it tells as memory in use (fact: windows-counts-its-balloon)."""
    boot_id: str | None = None
    """Of the kernel whose agent spoke last."""
    next_boot_id: str | None = None
    """Of the kernel whose agent has said hello since."""
    port_closed: bool = False
    """The agent's port was closed since it last reported, so any kernel may be next."""
    may_count_anew: bool = False
    """Another agent may be speaking, whose reports count from 0: once for each time that QEMU says that the
    port was closed, and once a minute by the word of an agent that introduces itself. Who has its counters
    stand still and says hello before each report is believed no more often.
    """
    said_hello_at: float = -math.inf
    """When an introduction last counted for that."""
    agent_version: str | None = None
    zone: wire.Zone | None = None
    """Where new memory goes, as its agent has confirmed since it started."""
    block_bytes: int = MEMORY_BLOCK_BYTES
    channel_error: str | None = None
    """Why the host cannot open the agent's port: no fault of the guest's."""
    psi: bool | None = None
    noise: dict[str, int] = field(default_factory=dict)
    """What was not believed or no message, counted by kind."""

    # --- what it is heard to say ---

    def heard(self, facts: GuestFacts, actual_bytes: int, transit: Transit = NOTHING_MOVES) -> None:
        """Take in the guest's own view; `actual_bytes` is what its balloon claims by then."""
        self.facts, self.actual_when_heard_bytes = facts, actual_bytes
        self.demand.observe(facts, transit)
        if facts.from_agent:
            self.reported_at = facts.at

    def answered_stats(self, stats: BalloonStats, actual_bytes: int, now: float) -> bool:
        """Take in the driver's statistics, and what its balloon claims with them; returns whether it has
        answered since the last ones.
        """
        if self.stats is not None and stats.updated == self.stats.updated:
            return False
        self.stats_came_at, self.actual_with_stats_bytes = now, actual_bytes
        if self.stats is None:
            return False
        self.stats_at = now
        return True

    def keep_stats(self, stats: BalloonStats) -> None:
        """These are the newest, also where the driver has not answered since."""
        self.stats = stats

    def was_read(self, reading: GuestReading, now: float) -> None:
        """Its files were read through its QEMU guest agent."""
        self.reading, self.read_at = reading, now

    def is_read(self, now: float) -> bool:
        """Its files were read through its QEMU guest agent lately."""
        return self.reading is not None and now - self.read_at <= READING_SECONDS

    def with_reading(self, facts: GuestFacts, now: float) -> GuestFacts:
        """What statistics say, with what was read besides: statistics come often, and have no counters."""
        reading = self.reading
        if reading is None or not self.is_read(now):
            return facts
        return replace(
            facts,
            boot_id=READ,
            free_bytes=min(reading.free_bytes, facts.available_bytes),
            reclaimable_bytes=min(reading.reclaimable_bytes, facts.total_bytes),
            swap_used_bytes=reading.swap_used_bytes,
            swap_in_bytes=reading.swap_in_bytes,
            refault_bytes=reading.refault_bytes,
            stall_us=reading.stall_us,
            counted=now == self.read_at,
        )

    def keeps_for_its_kernel(self, size_bytes: int) -> None:
        """Seen at rest: so much of its memory its kernel does not count."""
        self.kernel_bytes = size_bytes if self.kernel_bytes is None else min(size_bytes, self.kernel_bytes)

    def is_seen_at_rest(self, untrusted_total_bytes: int, actual_bytes: int) -> None:
        """Twice in a row its balloon was where it was told to be, and its driver told this total: more than
        the balloon leaves cannot be, unless what it holds is counted.
        """
        self.counts_balloon = untrusted_total_bytes > actual_bytes

    def greeted(self, untrusted: wire.Hello, now: float) -> None:
        """Its agent has introduced itself."""
        if not untrusted.welcomed and now - self.said_hello_at >= NEW_COUNT_SECONDS:
            self.may_count_anew, self.said_hello_at = True, now
        self.agent_version = untrusted.agent_version
        self.next_boot_id = untrusted.boot_id[:BOOT_ID_PREFIX]
        if not untrusted.welcomed:
            self.zone = None  # it has just started
        if is_block_size(untrusted.block_bytes):
            self.block_bytes = untrusted.block_bytes
        elif untrusted.block_bytes:  # 0: it has no memory hotplug
            self.count("block-size")
        self.psi = untrusted.psi

    def channel_is(self, error: str | None) -> None:
        """The agent's port cannot be opened on this host, or is open."""
        self.channel_error = error

    def agent_left(self) -> None:
        """Nobody needs to wait for its silence: statistics stand in from now on."""
        self.reported_at = -math.inf
        self.port_closed = self.may_count_anew = True
        self.zone = None

    def confirm_zone(self, zone: wire.Zone) -> None:
        """Its agent keeps to this zone until it starts anew."""
        self.zone = zone

    def forget_zone(self) -> None:
        """Nobody knows to which zone its agent keeps."""
        self.zone = None

    def counted_anew(self) -> None:
        """Its reports count from 0 again, and that is believed."""
        self.may_count_anew = False

    def count(self, kind: str, times: int = 1) -> None:
        """Something that is not believed, or is no message."""
        self.noise[kind] = self.noise.get(kind, 0) + times

    def noise_of(self, before: "Guest") -> None:
        """The same guest, seen again: the counts go on."""
        self.noise = before.noise

    # --- its kernel ---

    def may_be_of(self, untrusted_boot_id: str) -> bool:
        """Whether a report of that kernel can be: of the one that runs, or of one whose agent said hello, or
        that came after the port was closed. Any other is late (PROTOCOL.md, another life).
        """
        return (
            self.port_closed or self.boot_id is None or untrusted_boot_id in (self.boot_id, self.next_boot_id)
        )

    def booted(self, boot_id: str) -> bool:
        """A report of that kernel is believed; returns whether another one spoke before."""
        another = self.boot_id not in (None, boot_id)
        self.boot_id, self.port_closed = boot_id, False
        return another

    def counts_anew(self) -> None:
        """Another kernel: what the last one's demand was says nothing about it."""
        self.demand = Demand()

    def forget(self) -> None:
        """Its kernel starts again: nothing that the last one said holds."""
        self.facts = self.boot_id = self.zone = None
        self.estimate = None
        self.stats = self.reading = None
        self.demand = Demand()

    def work_out(self, limits: Limits, now: float) -> None:
        """What it needs now; nothing is known before its first word."""
        self.estimate = self.demand.estimate(limits, now) if self.facts is not None else None
