"""Limits on control groups above the VMs: a slice with MemoryMax has no more, whatever the host has, and one
that is held to some of its NUMA nodes has theirs alone.

cgroup v2 (memory.max, memory.high, cpuset.mems) and v1 (memory.limit_in_bytes, cpuset.mems). The limit of a
VM's own group is that VM's alone. Inside a container the mount's root is a group with a limit like any other.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from host_controller.host import nodes, proc
from host_controller.host.memory import kernel_text

ALWAYS: Final = tuple(map(PurePosixPath, ("/machine.slice", "/machine", "/")))
"""Where libvirt puts what starts next, with systemd and without; and what a container has around all."""
_V2: Final = "sys/fs/cgroup"
_V2_BESIDE_V1: Final = "sys/fs/cgroup/unified"
"""Where other controllers are v1's (a hybrid layout), and memory may be v2's all the same."""
_V1: Final = "sys/fs/cgroup/memory"
_V1_CPUSET: Final = "sys/fs/cgroup/cpuset"
_WITHOUT_LIMIT: Final = 1 << 62
"""Bytes. What cgroup v1 says where nobody has set a limit is more."""
_OWN_SCOPE: Final = ("machine-", ".scope")
_OWN_GROUP: Final = ".libvirt-qemu"
"""How the group is called that libvirt makes for one VM, with systemd and without."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What the tightest group leaves to VMs."""

    left_bytes: int
    group: str
    """Which setting of which group, for people."""


def group_of(cgroup: str) -> tuple[PurePosixPath, bool] | None:
    """The group that accounts a process's memory, and whether it is cgroup v1, from /proc/PID/cgroup.

    None also for one that lies outside of our own namespace of groups: its limits cannot be seen from here.
    """
    unified = None
    for line in cgroup.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        group = PurePosixPath(path)
        if not group.is_absolute() or ".." in group.parts:
            continue
        if "memory" in controllers.split(","):
            return group, True
        if not controllers:
            unified = group
    return None if unified is None else (unified, False)


def above(group: PurePosixPath) -> list[PurePosixPath]:
    """The groups above a VM's own, from it to the root; with its own when nothing shows which that is.

    libvirt puts QEMU into groups below the VM's own (`…scope/libvirt/emulator`).
    """
    parts = group.parts
    for index, part in enumerate(parts):
        scope = part.startswith(_OWN_SCOPE[0]) and part.endswith(_OWN_SCOPE[1])
        if scope or part.endswith(_OWN_GROUP):
            return [PurePosixPath(*parts[:end]) for end in range(index, 0, -1)]
    return [group, *group.parents]


def own_groups(pid: int, root: Path = Path("/")) -> tuple[list[PurePosixPath], bool]:
    """The groups that hold one VM and nobody else, the outermost first; and whether they are cgroup v1's.
    There are none where that cannot be told, and where a VM shares its group with others.
    """
    group, old = group_of(proc.cgroup(pid, root / "proc")) or (PurePosixPath("/"), False)
    outer = above(group)[0]
    ends = range(len(outer.parts) + 1, len(group.parts) + 1)
    return [PurePosixPath(*group.parts[:end]) for end in ends], old


def of_its_own(pid: int, root: Path = Path("/"), others: Iterable[int] = ()) -> Limit | None:
    """The tightest limit on one VM alone, QEMU's own memory included, whoever set it; None without one.

    others: the processes of the other VMs. A slice in which none of them is counts as this one's own.
    """
    groups, old = own_groups(pid, root)
    found = [_alone(root, one, old) for one in groups]
    found += _of_its_slices(proc.cgroup(pid, root / "proc"), set(others) - {pid}, root)
    return min(filter(None, found), key=lambda one: one.left_bytes, default=None)


def _alone(root: Path, group: PurePosixPath, old: bool) -> Limit | None:
    return _limit(root, group, old, _WITHOUT_LIMIT, 0, _WITHOUT_LIMIT)


def _of_its_slices(cgroup: str, others: Iterable[int], root: Path) -> Iterator[Limit | None]:
    """Limits on groups above a VM that is alone there, though not on the host."""
    elsewhere: list[PurePosixPath] | None = None
    for group, old in _groups(cgroup):
        limit = None if group in ALWAYS else _alone(root, group, old)
        if limit is None:
            continue
        if elsewhere is None:
            groups = (group_of(proc.cgroup(pid, root / "proc")) for pid in others)
            elsewhere = [one[0] for one in groups if one is not None]
        if elsewhere and not any(one.is_relative_to(group) for one in elsewhere):
            yield limit


def unevictable_bytes(pid: int, root: Path = Path("/")) -> int:
    """What a VM's own group holds that the kernel can put nowhere else; 0 where that cannot be told."""
    groups, old = own_groups(pid, root)
    stat = _stat(_directory(root, groups[0], old)) if groups else {}
    return _sum(stat, ("total_unevictable",) if old else ("unevictable",))


def tightest(
    qemus: Mapping[int, int],
    root: Path = Path("/"),
    most_bytes: int = _WITHOUT_LIMIT,
    *,
    session: bool = False,
    could_take: Mapping[int, int] | None = None,
) -> Limit | None:
    """What the tightest limit above the VMs leaves them; None where nothing limits them below `most_bytes`.

    qemus: of each QEMU process of our libvirt what it holds, bytes. A limit is shared with what else is in
    its group, so what that holds is taken off; what VMs hold outside of the group does not count in it.

    session: that libvirt is a user's own, and starts its VMs among that user's processes.

    could_take: of each process, as far as it is known, what it may come to hold as its VM is, bytes. A group
    of some of the VMs that has room for all of that bounds nobody: least of all those that are not in it.
    """
    inside: dict[tuple[PurePosixPath, bool], list[int]] = {}
    processes = root / "proc"
    for pid in qemus:
        for group in _groups(proc.cgroup(pid, processes)):
            inside.setdefault(group, []).append(pid)
    old = (root / _V1 / "memory.limit_in_bytes").exists()
    of_all = _of_this_user(processes) if session else ALWAYS
    for one in of_all:
        inside.setdefault((one, old), [])
    total, known = sum(qemus.values()), could_take or {}
    limits = []
    for (path, is_old), pids in inside.items():
        held = sum(qemus[pid] for pid in pids)
        needed = _WITHOUT_LIMIT
        if path not in of_all and len(pids) < len(qemus):
            needed = sum(known.get(pid, _WITHOUT_LIMIT) for pid in pids)
        found = (find(root, path, is_old, held, total - held, most_bytes) for find in (_limit, _of_nodes))
        limits += [one for one in found if one is not None and needed > one.left_bytes - (total - held)]
    return min(limits, key=lambda one: one.left_bytes, default=None)


def _of_this_user(processes: Path) -> list[PurePosixPath]:
    """What is around all that this user runs, as far as we are in it."""
    found = group_of(proc.cgroup(os.getpid(), processes))
    around = [] if found is None else [found[0], *found[0].parents]
    names = [one.name for one in around]
    slice_ = f"user-{os.geteuid()}.slice"
    return around[names.index(slice_) :] if slice_ in names else [PurePosixPath("/")]


def _directory(root: Path, group: PurePosixPath, old: bool) -> Path:
    mount = _V1 if old else _V2
    if not old and (root / _V2_BESIDE_V1 / "cgroup.controllers").exists():
        mount = _V2_BESIDE_V1
    return root / mount / str(group).lstrip("/")


@lru_cache(maxsize=4096)
def _groups(cgroup: str) -> tuple[tuple[PurePosixPath, bool], ...]:
    """The groups above a VM by its /proc/PID/cgroup, each with whether it is cgroup v1."""
    found = group_of(cgroup)
    return () if found is None else tuple((one, found[1]) for one in above(found[0]))


def _limit(
    root: Path, group: PurePosixPath, old: bool, held: int, elsewhere: int, most_bytes: int
) -> Limit | None:
    directory = _directory(root, group, old)
    names = ("memory.limit_in_bytes",) if old else ("memory.max", "memory.high")
    settings: Iterable[tuple[int, str]] = (
        (int(text), name) for name in names if (text := kernel_text(directory / name).strip()).isdecimal()
    )
    size, name = min(settings, default=(most_bytes, ""))
    if size >= most_bytes:
        return None
    used = kernel_text(directory / ("memory.usage_in_bytes" if old else "memory.current")).strip()
    beside = max(0, (int(used) if used.isdecimal() else 0) - _cache(directory, old) - held)
    return Limit(max(0, size - beside) + elsewhere, f"{name} of {_name(group)}")


def _of_nodes(
    root: Path, group: PurePosixPath, old: bool, held: int, elsewhere: int, most_bytes: int
) -> Limit | None:
    """As `_limit`, of a group that has memory of some of the host's nodes only. What it holds lies there."""
    if old:
        text = kernel_text(root / _V1_CPUSET / str(group).lstrip("/") / "cpuset.effective_mems")
    else:
        text = kernel_text(_directory(root, group, old) / "cpuset.mems.effective")
    allowed, there = nodes.listed(text), nodes.with_memory(root)
    if not allowed or there <= allowed:
        return None
    size, used = nodes.ordinary_and_used(allowed & there, root)
    left = max(0, size - max(0, used - held)) + elsewhere
    return Limit(left, f"cpuset.mems of {_name(group)}") if left < most_bytes else None


def _cache(directory: Path, old: bool) -> int:
    """What the group holds and would give back under pressure."""
    wanted = (
        ("total_inactive_file", "total_active_file")
        if old
        else ("inactive_file", "active_file", "slab_reclaimable")
    )
    return _sum(_stat(directory), wanted)


def _stat(directory: Path) -> dict[str, str]:
    lines = kernel_text(directory / "memory.stat").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if " " in line)


def _sum(stat: Mapping[str, str], names: Iterable[str]) -> int:
    return sum(int(stat[name]) for name in names if stat.get(name, "").isdecimal())


def _name(group: PurePosixPath) -> str:
    return group.name or "the control group that all of this runs in"
