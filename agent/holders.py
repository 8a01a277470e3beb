"""Who holds this guest's memory: its services, or where there are none its programs. Told when a host asks.

Services are control groups (v2): of each unit, or of each last group elsewhere, memory.current less its file
cache, which the kernel drops for whoever needs memory. They are told where process 1 is in a group of its
own, as systemd's is: then everybody else is in one, too. Elsewhere it is programs: the processes of one name
together, each with what it shares with no file (/proc/PID/statm, resident less shared). Not Pss: smaps_rollup
wants a capability that the agent does not have, and waits for the process's mmap lock, which whoever stalls
for memory may hold.

All of it goes in steps: each `yield` follows one or two small reads, and whoever goes on decides when. A
guest has thousands of processes, and reports must not wait for them.

DYNMEM_HOLDERS=hide in the environment has the agent tell no host. Nothing here is read before one asks.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Generator, Mapping

from agent.lean import TypeVar
from agent.system import group_bytes, groups_beneath, kernel_threads, read_file
from agent.values import HOLDER_LETTERS, MAX_HOLDER_CHARS, MOST_HOLDERS
from agent.wire import Ack, Held, Seen

T = TypeVar("T")
Steps = Generator[None, None, T]
Found = tuple[tuple[str, int], ...]
_GROUPS, _PROC = "sys/fs/cgroup", "proc"
_MOST_GROUPS = 1024
_MOST_PROCESSES = 8192
_DEEPEST = 8
EVERY_SECONDS = 1.0  # at most: each look reads a file or two of every service or process
STEPS_PER_TURN = 32  # about a millisecond, after which whatever is due comes first
_UNITS = (".service", ".scope")


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the guest's administrator lets hosts be told; the default is yes."""
    return environment.get("DYNMEM_HOLDERS", "tell").strip().lower() != "hide"


class Teller:
    """Answers one question at a time, some steps in each turn of the loop."""

    def __init__(self, root: str, now: float, *, allowed: bool) -> None:
        self.allowed = allowed
        self._root = root
        self._asked_at = now - EVERY_SECONDS
        self._looking: Steps[Held] | None = None

    @property
    def busy(self) -> bool:
        """A question is being answered: turn the loop without waiting."""
        return self._looking is not None

    def ask(self, request_id: int, total_bytes: int, now: float) -> Ack | None:
        """Begin with an answer, or say why there will be none."""
        if not self.allowed:
            return Ack(request_id, False, "this guest's administrator does not want it told")
        if self._looking is not None or now - self._asked_at < EVERY_SECONDS:
            return Ack(request_id, False, "asked again too soon")
        self._asked_at = now
        self._looking = look(request_id, self._root, total_bytes)
        return None

    def go_on(self) -> Held | None:
        """One turn's steps; the answer when it is complete."""
        assert self._looking is not None
        try:
            for _ in range(STEPS_PER_TURN):
                next(self._looking)
        except StopIteration as end:
            self._looking = None
            answer: Held = end.value
            return answer
        return None

    def forget(self) -> None:
        """Answer no more: whoever asked is gone."""
        self._looking = None


def look(request_id: int, root: str, total_bytes: int) -> Steps[Held]:
    """The answer to a host. `total_bytes`: MemTotal."""
    found = yield from services(root)
    if found:
        return Held(request_id, "services", found)
    programs, seen = yield from processes(root, total_bytes)
    return Held(request_id, "processes", programs, seen)


def services(root: str = "/") -> Steps[Found]:
    """The services that hold most, largest first, bytes; empty where not everybody is in a group."""
    if not _all_in_groups(os.path.join(root, _PROC)):
        return ()
    sizes: dict[str, int] = {}
    paths: dict[str, list[str]] = {}
    for path, size in (yield from _groups(os.path.join(root, _GROUPS))):
        name = holder_name(_without_suffix(os.path.basename(path)))
        sizes[name] = sizes.get(name, 0) + size
        paths.setdefault(name, []).append(path)
    found: dict[str, int] = {}
    for name, size in _largest(sizes, len(sizes)):
        # Less its cache a group only gets smaller: once five are above the next one, they are the five.
        if len(found) >= MOST_HOLDERS and sorted(found.values())[-MOST_HOLDERS] >= size:
            break
        found[name] = size
        for path in paths[name]:
            yield
            found[name] -= group_bytes(path, (b"active_file", b"inactive_file"))
        found[name] = max(0, found[name])
    return _largest(found, MOST_HOLDERS)


def processes(root: str = "/", total_bytes: int = 1 << 50) -> Steps[tuple[Found, Seen]]:
    """The programs that hold most, largest first, bytes, and which of them were seen. What forked processes
    share counts in each, so no program is said to hold more than `total_bytes`, MemTotal.
    """
    directory, page_bytes = os.path.join(root, _PROC), os.sysconf("SC_PAGE_SIZE")
    sizes: dict[str, int] = {}
    seen: Seen = "all" if read_file(os.path.join(directory, "1/statm")) else "hidden"
    yield
    of_the_kernel = kernel_threads(directory)
    count = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.isdecimal() or entry.name in of_the_kernel:
                continue
            if count == _MOST_PROCESSES:
                seen = "cut"
                break
            count += 1
            yield
            words = read_file(f"{entry.path}/statm").split()
            if len(words) < 3 or (pages := int(words[1]) - int(words[2])) <= 0:
                continue
            name = holder_name(read_file(f"{entry.path}/comm").decode("utf-8", "replace"))
            sizes[name] = min(total_bytes, sizes.get(name, 0) + pages * page_bytes)
    return _largest(sizes, MOST_HOLDERS), seen


def holder_name(text: str) -> str:
    """A name as the wire takes it: who runs in the guest may have chosen any."""
    plain = "".join(one if one in HOLDER_LETTERS else "?" for one in text.strip())
    return plain[:MAX_HOLDER_CHARS].strip() or "?"


def _largest(sizes: Mapping[str, int], most: int) -> Found:
    return tuple(sorted(sizes.items(), key=lambda one: (-one[1], one[0]))[:most])


def _all_in_groups(proc: str) -> bool:
    """Whether process 1 is in a group. Where it is hidden (hidepid): whether we are a unit of systemd's."""
    first = _unified(os.path.join(proc, "1/cgroup"))
    return first not in ("", "/") or (
        not first and _unified(os.path.join(proc, "self/cgroup")).endswith(_UNITS)
    )


def _unified(path: str) -> str:
    """The group (v2) that a process's cgroup file names, such as `/init.scope`."""
    lines = read_file(path).decode("utf-8", "replace").splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "")


def _groups(root: str) -> Steps[list[tuple[str, int]]]:
    """Units, and groups that have none beneath them, with memory.current: the largest first, since no group
    holds more than the one above it. So where there are too many it is small ones that are missed.
    """
    found: list[tuple[str, int]] = []
    waiting = [(0, 0, root)]
    while waiting and len(found) < _MOST_GROUPS:
        size, depth, path = heapq.heappop(waiting)
        is_unit = depth > 0 and path.endswith(_UNITS)
        beneath = [] if is_unit or depth > _DEEPEST else (yield from _beneath(path))
        for current, one in beneath:
            heapq.heappush(waiting, (-current, depth + 1, one))
        if depth > 0 and not beneath:
            found.append((path, -size))
    return found


def _beneath(directory: str) -> Steps[list[tuple[int, str]]]:
    """The groups in a group that count memory, with memory.current."""
    found = []
    for path in groups_beneath(directory):
        yield
        current = read_file(f"{path}/memory.current").strip()
        if current.isdigit():
            found.append((int(current), path))
    return found


def _without_suffix(name: str) -> str:
    for suffix in _UNITS:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name
