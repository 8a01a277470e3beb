"""Programs of the host that kill the largest process, which is a VM, when memory is short: what they want to
be available VMs cannot have. They are those that kill in guests (`agent.killers`).
"""

import os
from pathlib import Path
from typing import Final

from agent.killers import EARLYOOM, NOHANG, share_of
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
        self._proc = root / "proc"
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
        try:
            pids = [int(one) for one in os.listdir(self._proc) if one.isdecimal()]
        except OSError:
            return 0, ""
        found = [(0, "")]
        for pid in pids:
            name = proc.name(pid, self._proc)
            if name in (EARLYOOM, NOHANG) and self._is_the_hosts(pid):
                words = [one.decode(errors="replace") for one in proc.arguments(pid, self._proc)]
                found.append((share_of(name, str(self._root), words, total_bytes), name))
        return max(found)

    def _is_the_hosts(self, pid: int) -> bool:
        """It runs as root or as a service, and in no container: anybody can call a program so."""
        service = SERVICES in proc.cgroup(pid, self._proc) or proc.owner(pid, self._proc) == 0
        return service and self._namespace(str(pid)) == self._namespace("self")

    def _namespace(self, pid: str) -> str:
        try:
            return os.readlink(self._proc / pid / "ns/pid")
        except OSError:
            return ""
