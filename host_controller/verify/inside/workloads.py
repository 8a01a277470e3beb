"""What the workloads of a lab guest do, each in a process of its own: allocate, read, thrash.

`say` sends an event to the workload server, which has started them. Standard library only.
"""

from __future__ import annotations  # Debian 11 has Python 3.9

import mmap
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
LEFT_TO_OTHERS = 8 << 20
"""Bytes that a program which waits for memory leaves to its kernel and to the other programs."""

Say = Callable[..., None]


def write(path: str, text: str) -> None:
    with open(path, "w") as handle:
        handle.write(text)


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


class Pace:
    """At most `rate` MiB/s, piece by piece of a MiB; 0: as fast as it goes.

    Time that was lost is not made up for, but for CATCHES_UP seconds: on a busy machine a guest stands still
    for a while, and a slow program that hurried afterwards would be a burst that nobody asked for.
    """

    CATCHES_UP = 0.1

    def __init__(self, rate: float) -> None:
        self._seconds = 1 / rate if rate > 0 else 0.0
        self._next = time.monotonic()

    def wait(self) -> None:
        """Sleep until the next piece may be done."""
        if not self._seconds:
            return
        now = time.monotonic()
        self._next = max(self._next + self._seconds, now - self.CATCHES_UP)
        if self._next > now:
            time.sleep(self._next - now)


def none_left(swaps: bool) -> bool:
    """Would the next page be one for which the kernel swaps? swaps: for which it kills."""
    lines = (line.split() for line in read("/proc/meminfo").splitlines())
    kib = {fields[0].rstrip(":"): int(fields[1]) for fields in lines}
    return (kib["MemAvailable"] + (kib["SwapFree"] if swaps else 0)) * 1024 < LEFT_TO_OTHERS


def touch(say: Say, mib: int, rate: float, swaps: bool = False, greedy: bool = False) -> None:
    """Allocate and write `mib` MiB with content that does not compress, then keep it until killed.

    While there is no memory left it stands still, as whoever waits for its memory sees. One that swaps goes
    on for as long as there is free swap. A greedy one goes on, and lives if memory comes before its kernel
    kills it: which of the two it is depends on the machine.
    """
    holding: list[bool] = []
    signal.signal(signal.SIGUSR1, lambda *_: holding.append(True))
    noise = [os.urandom(MIB) for _ in range(2)]
    held = []  # piece by piece, as programs do: a single mapping above MemTotal would be refused
    pace, reported = Pace(rate), time.monotonic()
    say("started", mib=0)
    done = 0
    while done < mib and not holding:
        if not greedy and none_left(swaps):
            time.sleep(0.02)
            continue
        area = mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area[:] = noise[done % 2]
        held.append(area)
        done += 1
        if time.monotonic() - reported > 0.5:
            reported = time.monotonic()
            say("progress", mib=done)
        pace.wait()
    say("done", mib=done)
    while True:
        signal.pause()


def read_file(say: Say, mib: int, rate: float) -> None:
    """Read a file of `mib` MiB on the root disk over and over: cache refaults, MemAvailable stays flat."""
    path = f"/var/tmp/thrash-{os.getpid()}"
    block = os.urandom(MIB)
    with open(path, "wb") as handle:
        for _ in range(mib):
            handle.write(block)
        handle.flush()
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    descriptor = os.open(path, os.O_RDONLY)
    os.unlink(path)
    buffer = bytearray(MIB)
    pace = Pace(rate)
    say("started", mib=0)
    done = 0
    while True:
        os.preadv(descriptor, [buffer], (done % mib) * MIB)
        done += 1
        if done % mib == 0:
            say("progress", mib=done)
        pace.wait()


def over_limit(say: Say, mib: int, rate: float, high_mib: int) -> None:
    """Write `mib` MiB over and over in a cgroup whose memory.high is less than that."""
    group = f"/sys/fs/cgroup/lab-{os.getpid()}"
    os.mkdir(group)
    write(f"{group}/memory.high", str(high_mib * MIB))
    write(f"{group}/cgroup.procs", str(os.getpid()))
    area = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    noise = os.urandom(MIB)
    pace = Pace(rate)
    say("started", mib=0)
    done = 0
    while True:
        at = done % mib
        area[at * MIB : (at + 1) * MIB] = noise
        done += 1
        if done % 16 == 0:
            say("progress", mib=done)
        pace.wait()


KINDS: dict[str, Callable[..., None]] = {
    "allocate": touch,
    "thrash": read_file,
    "thrash_cgroup": over_limit,
}
