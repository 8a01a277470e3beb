"""Processes of a lab, found by the lab's own directory in their command line, and ended by pid."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

GUESTS_NICE = -5
_OURS = ("qemu-system", "libvirtd", "virtlogd", "dynmem")


def start_time(pid: int) -> int | None:
    """When a process started, in ticks since boot: with the pid it names one process for ever. None: gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def processes_of(directory: Path) -> list[int]:
    """Pids of guests, daemons and controllers whose command line names `directory`; of no other program."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            arguments = Path(entry.path, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # A script's name stands behind its interpreter's.
        programs = [os.path.basename(argument).decode(errors="replace") for argument in arguments[:2]]
        named = any(os.fsencode(directory) + b"/" in argument for argument in arguments)
        ours = any(program.startswith(_OURS) for program in programs)
        if named and ours and start_time(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def wait_gone(pids: Iterable[int], limit: float) -> list[int]:
    """Wait until all have ended, at most `limit` seconds. Returns those that have not."""
    left = list(pids)
    deadline = time.monotonic() + limit
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if start_time(pid) is not None]
        time.sleep(0.02 if left else 0)
    return left


def prefer(pid: int, nice: int = -10) -> None:
    """Let others on this machine not starve a process, as far as we may: only root can.

    What measures goes before the guests and what they run under (GUESTS_NICE), and these before the rest of
    the machine: what else it is busy with says nothing about the product.
    """
    if os.geteuid() != 0:
        return
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    with contextlib.suppress(OSError):  # where sessions are scheduled as groups, the group's share counts
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))
