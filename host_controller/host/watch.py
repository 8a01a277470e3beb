"""One look at the host: its memory, every QEMU on it, and what bounds the VMs. Gives the core its HostFacts.

    used = what VMs of this controller hold + what other QEMUs hold + what everybody else uses

Each byte in use is in one of the three, so whoever is taken for something else changes no sum: a program that
calls itself a VM counts with what it really holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from host_controller.core.model import HostFacts
from host_controller.host import limits, proc
from host_controller.host.census import Census, Qemu
from host_controller.host.identity import Identity
from host_controller.host.killers import Killers
from host_controller.host.libvirt_run import is_session
from host_controller.host.memory import read_memory
from host_controller.host.peak import FadingPeak
from host_controller.units import MIB, round_down, round_up

DEPARTED_SECONDS: Final = 30.0
"""A large process's memory is freed for seconds after it has ended (fact: freed-after-the-end)."""
ARRIVING_SECONDS: Final = 30.0
"""A QEMU of our libvirt is there before libvirt says so; later it counts as one that is not managed."""
FOREIGN_FADE_SECONDS: Final = 60.0
"""QEMUs of others come and go with their guests; a stopped one is not waited for as long as a program."""
STEP_BYTES: Final = 16 * MIB
"""What others use moves all the time; smaller changes than this are not told."""

UNNAMED_OVERHEAD_BYTES: Final = 256 * MIB
"""QEMU's own, of a VM whose process we could not learn, and of one that has not taken it yet."""


@dataclass(frozen=True, slots=True)
class VmMemory:
    """What is known of one VM of our libvirt."""

    managed: bool
    ordinary_bytes: int
    """RAM that it may take of the host's ordinary memory: 0 of it where it lies in huge pages."""
    unmapped: bool = False
    """No process maps it (fact: guest-memory-of-nobody)."""


@dataclass(slots=True)
class _Departures:
    """QEMUs that have just ended, with what they held."""

    held: dict[int, int] = field(default_factory=dict)
    gone: dict[int, tuple[float, int]] = field(default_factory=dict)

    def observe(self, held: dict[int, int], now: float) -> int:
        for pid, size in self.held.items():
            if pid not in held:
                self.gone[pid] = (now, size)
        self.held = held
        self.gone = {pid: one for pid, one in self.gone.items() if now - one[0] < DEPARTED_SECONDS}
        return sum(size for _, size in self.gone.values())


class HostWatch:
    """Looks at one host again and again. `read` is for one thread at a time."""

    def __init__(
        self,
        uri: str,
        *,
        root: Path = Path("/"),
        meminfo: Path | None = None,
        identity: Identity | None = None,
    ) -> None:
        self._root = root
        self._session = is_session(uri)
        self._meminfo = meminfo
        self.identity = identity or Identity(uri, root / "proc")
        self._census = Census(root / "proc")
        self._killers = Killers(root)
        self._others = FadingPeak()
        self._foreign = FadingPeak(FOREIGN_FADE_SECONDS)
        self._departures = _Departures()
        self._arrived: dict[int, float] = {}
        self._others_now = 0

    def read(
        self,
        now: float,
        vms: Mapping[str, VmMemory],
        *,
        vm_swap_bytes: int = 0,
        unread: Mapping[str, str] | None = None,
    ) -> HostFacts:
        """The host now; `vms` are those that run on our libvirt, by UUID, with what is known of each.

        Raises:
            OSError, KeyError: /proc/meminfo cannot be read.
        """
        before = read_memory(self._root, self._meminfo)
        seen = self._census.look(now)
        own = self.identity.all(one.pid for one in seen)
        qemus = [one for one in seen if one.called_so or one.pid in own]
        after = read_memory(self._root, self._meminfo)
        # A VM that grows between the readings is not others' growth.
        used = min(before.used_bytes, after.used_bytes)
        held = {one.pid: one.held_bytes for one in qemus}
        self._add_unmapped(held, own, vms)
        departed = self._departures.observe(held, now)
        most = max(0, used - max(0, sum(held.values()) - self._merged(after.merged_bytes, qemus)))
        # What has just ended is still being freed: where that explains a rise, others use what they did.
        self._others_now = others = min(most, max(self._others_now, most - departed))
        unmanaged, foreign = self._not_managed(qemus, own, vms, used, now)
        # What bounds somebody else's QEMU, in its container, bounds none of ours.
        held_by_ours = {pid: held[pid] for pid in own}
        limit = limits.tightest(
            held_by_ours,
            self._root,
            after.ordinary_bytes,
            session=self._session,
            could_take={
                pid: vms[uuid].ordinary_bytes + UNNAMED_OVERHEAD_BYTES
                for pid, uuid in own.items()
                if uuid in vms
            },
        )
        elsewhere = round_up(self._foreign.observe(foreign, now), STEP_BYTES)
        others = round_up(self._others.observe(others, now), STEP_BYTES)
        spared = self._killers.limit(after, others + elsewhere, now)
        if spared is not None and (limit is None or spared.left_bytes < limit.left_bytes):
            limit = spared
        return HostFacts(
            at=now,
            total_bytes=after.total_bytes,
            available_bytes=after.available_bytes,
            vm_swap_bytes=vm_swap_bytes,
            unmanaged_bytes=unmanaged,
            foreign_bytes=elsewhere,
            evictable_bytes=after.evictable_bytes,
            ordinary_bytes=after.ordinary_bytes,
            others_bytes=others,
            pools=after.pools,
            default_huge_page_bytes=after.default_huge_page_bytes,
            limit_bytes=None if limit is None else round_down(limit.left_bytes, STEP_BYTES),
            limited_by="" if limit is None else limit.group,
            psi_some_percent=after.psi_some_percent,
            psi_full_percent=after.psi_full_percent,
            swap_in_bytes=after.swap_in_bytes,
            swap_out_bytes=after.swap_out_bytes,
            unread=tuple(sorted((unread or {}).items())),
        )

    def _merged(self, merged_bytes: int, qemus: list[Qemu]) -> int:
        """What of KSM's savings can be QEMUs': there are others whose pages it merges, and in a container it
        is the whole machine's.
        """
        if not merged_bytes:
            return 0
        found = [proc.merged_bytes(one.pid, self._root / "proc") for one in qemus]
        known = [one for one in found if one is not None]
        return min(merged_bytes, sum(known)) if len(known) == len(found) else merged_bytes

    def _add_unmapped(
        self, held: dict[int, int], own: Mapping[int, str], vms: Mapping[str, VmMemory]
    ) -> None:
        """What VMs hold that their processes do not show: it would count again, as others'."""
        for pid, uuid in own.items():
            vm = vms.get(uuid)
            if vm is not None and vm.unmapped and pid in held:
                most = max(0, vm.ordinary_bytes - held[pid])
                held[pid] += min(most, limits.unevictable_bytes(pid, self._root))

    def _not_managed(
        self, qemus: list[Qemu], own: Mapping[int, str], vms: Mapping[str, VmMemory], used: int, now: float
    ) -> tuple[int, int]:
        """What unmanaged VMs of our libvirt cost, all of their RAM, and what any other QEMU holds."""
        named = set(own.values())
        ours: dict[str, int] = {}
        foreign = arriving = 0
        for one in qemus:
            uuid = own.get(one.pid)
            if uuid is None and one.uuid is not None and one.uuid in vms and one.uuid not in named:
                # libvirt has such a VM, and its process is not known: this one counts as part of it.
                room = vms[one.uuid].ordinary_bytes + UNNAMED_OVERHEAD_BYTES - ours.get(one.uuid, 0)
                counted = min(one.held_bytes, max(0, room))
                ours[one.uuid] = ours.get(one.uuid, 0) + counted
                foreign += one.held_bytes - counted
            elif uuid is None:
                foreign += one.held_bytes
            elif uuid in vms:
                ours[uuid] = one.held_bytes
            elif now - self._arrived.setdefault(one.pid, now) < ARRIVING_SECONDS:
                arriving += one.held_bytes
            else:
                foreign += one.held_bytes
        living = {one.pid for one in qemus}
        self._arrived = {pid: at for pid, at in self._arrived.items() if pid in living}
        # Pages that several processes share are there once, whatever each of them is said to hold.
        foreign = min(foreign, max(0, used - sum(ours.values()) - arriving))
        whole = sum(max(vm.ordinary_bytes, ours.get(uuid, 0)) for uuid, vm in vms.items() if not vm.managed)
        return whole, foreign
