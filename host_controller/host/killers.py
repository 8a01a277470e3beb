"""Programs of the host that kill the largest process, which is a VM, when memory is short: what they want to
be available VMs cannot have. They are those that kill in guests (`agent.killers`).
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from agent.killers import BUSTD, EARLYOOM, NOHANG, OOMD, share_of
from host_controller.core.books.capacity import default_spare_bytes
from host_controller.host import proc
from host_controller.host.limits import Limit
from host_controller.host.memory import Memory

EVERY_SECONDS: Final = 60.0
"""All processes' names are looked at."""
ENOUGH_SWAP: Final = 4
"""They kill when swap is short, too: as long as this part of it is free they do not."""
SERVICES: Final = "/system.slice/"


class Killers:
    """Looks for them now and then."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._looked_at = float("-inf")
        self._found: tuple[int, str] = (0, "")

    def limit(self, memory: Memory, taken_bytes: int, now: float) -> Limit | None:
        """What VMs may cost while nobody is to be killed; None where nobody kills.

        taken_bytes: what everybody but VMs of ours has.
        """
        if now - self._looked_at >= EVERY_SECONDS:
            self._looked_at, self._found = now, self._look(memory.total_bytes)
        percent, name = self._found
        if not percent or memory.swap_free_bytes * ENOUGH_SWAP > memory.swap_total_bytes:
            return None
        kept = default_spare_bytes(memory.ordinary_bytes) + memory.total_bytes * percent // 100
        left = memory.ordinary_bytes - taken_bytes - kept
        return Limit(max(0, left), f"{name}, which kills below {percent} % of available memory")

    def _look(self, total_bytes: int) -> tuple[int, str]:
        """The largest share that one of them wants, percent, and its name."""
        found = [(0, "")]
        for pid, name in _of_the_host((EARLYOOM, NOHANG), self._root / "proc"):
            words = [one.decode(errors="replace") for one in proc.arguments(pid, self._root / "proc")]
            found.append((share_of(name, str(self._root), words, total_bytes), name))
        return max(found)


def stall_killers(root: Path = Path("/")) -> tuple[str, ...]:
    """Those that kill where others stall for memory, or by swap: no available memory keeps VMs from them."""
    return tuple(sorted({name for _, name in _of_the_host((OOMD, BUSTD), root / "proc")}))


def _of_the_host(names: Collection[str], processes: Path) -> Iterator[tuple[int, str]]:
    """Processes that have one of these names, and kill in all of this host."""
    try:
        pids = [int(one) for one in os.listdir(processes) if one.isdecimal()]
    except OSError:
        return
    for pid in pids:
        name = proc.name(pid, processes)
        if name in names and _is_the_hosts(pid, processes):
            yield pid, name


def _is_the_hosts(pid: int, processes: Path) -> bool:
    """It runs as root or as a service, and in no container: anybody can call a program so."""
    service = SERVICES in proc.cgroup(pid, processes) or proc.owner(pid, processes) == 0
    return service and not proc.in_container(pid, processes)
