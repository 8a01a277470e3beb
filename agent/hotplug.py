"""Brings new memory online in the zone that the host chose, and gives ranges back when asked.

Nothing is done of our own accord to blocks that were there when we started: after a reset the host
wants surviving DIMMs left offline, and boot memory is nobody's to take. Only blocks that appear later,
and ranges that the host names, are touched.

Taking a range offline may take long: a child does it (`offlining.py`). Bringing online takes milliseconds
and happens here, one block per turn of the loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from agent.blocks import MemoryBlocks
from agent.lean import NamedTuple
from agent.offlining import LOOK_SECONDS, Offlining
from agent.wire import Ack, Hotplug, Offline, Online, OnlineZone, Zone, printable

MOST_JOBS = 16
# The kernel brings a new block online itself within milliseconds of its add event; one that is still
# offline after this is ours to do.
KERNEL_GRACE_SECONDS = 1.0
_RETRIES = 3
_POLICY: dict[Zone, str] = {"movable": "online_movable", "kernel": "online_kernel"}

Log = Callable[[int, str, str], None]


class _Job(NamedTuple):
    request_id: int
    word: str  # what is written to `state`
    blocks: list[int]
    changed: list[int]


class Hotplugger:
    """The one writer of memory block states in this guest. No call blocks for longer than one onlining."""

    def __init__(self, blocks: MemoryBlocks, log: Log, moved_pages: Callable[[], int]) -> None:
        """moved_pages: how many pages the kernel has moved to another place since it booted."""
        self._blocks = blocks
        self._log = log
        self._moved_pages = moved_pages
        self._zone: Zone | None = None
        self._jobs: deque[_Job] = deque()
        self._offlining: tuple[_Job, Offlining] | None = None
        self._new: dict[int, tuple[float, int]] = {}  # block → (when to look, how often we tried)
        self._mode: Hotplug = "none"
        if blocks.block_bytes:
            self._mode = "kernel" if blocks.policy_writable() else "agent"

    @property
    def mode(self) -> Hotplug:
        """Who brings new memory online, as Hello says it."""
        return self._mode

    def handle(
        self, message: OnlineZone | Offline | Online, spare_bytes: Callable[[], int], now: float
    ) -> Ack | None:
        """Start what the host asks for. Returns the Ack if that ends it; else step() will.

        spare_bytes: tells the available memory above the floor. A range larger than that is not taken
        offline: its pages would have nowhere to go.
        """
        if isinstance(message, OnlineZone):
            return self._set_zone(message, now)
        try:
            numbers = self._blocks.in_range(message.start_bytes, message.size_bytes)
        except ValueError as error:
            return Ack(message.request_id, False, printable(str(error)))
        if len(self._jobs) >= MOST_JOBS:
            return Ack(message.request_id, False, "busy: too many requests are waiting")
        if isinstance(message, Online):
            word = _POLICY[message.zone]
            self._call_off(numbers)
        else:
            word = "offline"
            if message.size_bytes > (spare := spare_bytes()):
                return Ack(message.request_id, False, f"only {max(0, spare) >> 20} MiB can be spared")
            numbers.reverse()  # from the end, where the kernel has put the least
        self._jobs.append(_Job(message.request_id, word, numbers, []))
        return None

    def uevents(self, last: Mapping[int, str], now: float) -> bool:
        """Take note of what happened last to these blocks: the uevent's word, by the block's number. Returns
        whether the host should hear at once how the totals have changed.

        Of what the kernel is about to bring online it hears when that is done, or with the next sample.
        """
        told = False
        for number, action in last.items():
            block = self._blocks.refresh(number)
            if block is None or block.online:
                self._new.pop(number, None)  # nothing is left to be done about it
            elif action == "add" and self._zone is not None:
                self._appeared(number, now)
                if self._mode == "kernel":
                    continue
            told = True
        return told

    def look_again(self) -> None:
        """Read the blocks anew that were offline: a uevent comes a moment after its block is in use."""
        for number in self._blocks.offline():
            self._blocks.refresh(number)

    def scan(self, now: float) -> None:
        """Read every block anew. That finds new ones where no uevents come, and where some were lost: their
        socket holds 256 (measured with Linux 6.18), and a large DIMM has more blocks.
        """
        for number in self._blocks.scan():
            if self._zone is not None:
                self._appeared(number, now)

    def _appeared(self, number: int, now: float) -> None:
        self._new[number] = (now + (KERNEL_GRACE_SECONDS if self._mode == "kernel" else 0.0), 0)

    def keep_policy(self) -> None:
        """Set the kernel's policy again if somebody changed it. For every heartbeat."""
        if self._zone is not None and self._mode == "kernel":
            wanted = _POLICY[self._zone]
            if self._blocks.policy() != wanted:
                self._log(5, "policy", f"auto_online_blocks was changed; setting {wanted} again")
                self._write_policy(wanted)

    def next_wake(self, now: float) -> float | None:
        """When step() wants to be called; None if only an event can bring work."""
        if self._offlining is not None:
            return now + LOOK_SECONDS  # whatever is due waits for its end
        if self._jobs:
            return now
        return min(due for due, _ in self._new.values()) if self._new else None

    def child_fd(self) -> int | None:
        """Readable when the offlining child has ended, for poll(); None without one."""
        return self._offlining[1].fd if self._offlining is not None else None

    def step(self, now: float) -> tuple[Ack | None, bool]:
        """One unit of work: at most one block online, or a look at the child.

        Returns the Ack of a request that ended, and whether the totals may have changed.
        """
        if self._offlining is not None:
            ack = self._reap(*self._offlining, now)
            return ack, ack is not None
        if self._jobs:
            job = self._jobs[0]
            if job.word == "offline":
                return self._start_offline(self._jobs.popleft(), now), False
            return self._online_one(job), True
        for number, (due, tries) in self._new.items():
            if due <= now:
                return None, self._online_new(number, tries, now)
        return None, False

    def close(self) -> None:
        """End the child."""
        if self._offlining is not None:
            self._offlining[1].close()
            self._offlining = None

    def _set_zone(self, message: OnlineZone, now: float) -> Ack:
        if self._mode == "none":
            return Ack(message.request_id, False, "no memory hotplug in this kernel")
        self._zone = message.zone
        wanted = _POLICY[message.zone]
        if self._mode == "kernel" and self._blocks.policy() != wanted:
            self._write_policy(wanted)
        who = "the kernel" if self._mode == "kernel" else "the agent"
        return Ack(message.request_id, True, f"{who} brings new memory online as {message.zone}")

    def _write_policy(self, word: str) -> None:
        try:
            self._blocks.write_policy(word)
        except OSError as error:
            self._mode = "agent"
            self._log(
                4, "policy", f"auto_online_blocks refuses {word}: {error.strerror}; onlining on uevents"
            )
            if self._blocks.policy() not in ("", "offline"):
                self._try_policy_off()

    def _try_policy_off(self) -> None:
        try:
            self._blocks.write_policy("offline")
        except OSError as error:
            self._log(4, "policy", f"the kernel chooses the zone of new memory itself: {error.strerror}")

    def _online_one(self, job: _Job) -> Ack | None:
        number = job.blocks.pop(0)
        refusal = self._write_online(number, job.word, job.changed)
        if refusal is None and job.blocks:
            return None
        self._jobs.popleft()
        return self._ack(job, refusal)

    def _online_new(self, number: int, tries: int, now: float) -> bool:
        del self._new[number]
        if self._zone is None:
            return False
        changed: list[int] = []
        refusal = self._write_online(number, _POLICY[self._zone], changed)
        if refusal is not None:
            self._log(4, "online", refusal)
            if tries + 1 < _RETRIES:
                self._new[number] = (now + KERNEL_GRACE_SECONDS, tries + 1)
        return bool(changed)

    def _write_online(self, number: int, word: str, changed: list[int]) -> str | None:
        """Bring a block online unless it is. Returns why it would not go."""
        block = self._blocks.refresh(number)
        if block is None:
            return f"memory block {number} is gone"
        if block.online:
            return None
        try:
            self._blocks.write_state(number, word)
        except OSError as error:
            block = self._blocks.refresh(number)
            if block is not None and block.online:  # the kernel was quicker
                return None
            return f"memory block {number} does not go online: {error.strerror}"
        self._blocks.refresh(number)
        changed.append(number)
        return None

    def _start_offline(self, job: _Job, now: float) -> Ack | None:
        targets = [
            number for number in job.blocks if (block := self._blocks.refresh(number)) and block.online
        ]
        if not targets:
            return self._ack(job, None)
        try:
            child = Offlining(self._blocks, targets, self._moved_pages, now)
        except OSError as error:
            return self._ack(job, f"no memory for a helper process: {error.strerror}")
        self._offlining = job, child
        return None

    def _call_off(self, numbers: list[int]) -> None:
        """What the host wants back online is not offlined any further: the guest may be in need of it."""
        if self._offlining is not None:
            _, child = self._offlining
            if not set(numbers).isdisjoint(child.numbers):
                child.end("the host called it off")

    def _reap(self, job: _Job, child: Offlining, now: float) -> Ack | None:
        done = child.reap()
        if done is None:
            child.look(now)
            return None
        self._offlining = None
        gone, refusal = done
        job.changed.extend(gone)
        return self._ack(job, refusal)

    def _ack(self, job: _Job, refusal: str | None) -> Ack:
        changed_bytes = len(job.changed) * self._blocks.block_bytes
        done = f"{len(job.changed)} blocks {'offline' if job.word == 'offline' else 'online'}"
        detail = done if refusal is None else f"{done}, then: {refusal}"
        self._log(6 if refusal is None else 5, "blocks", detail)
        return Ack(job.request_id, refusal is None, printable(detail), changed_bytes)
