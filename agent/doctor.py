"""What `dynmem-agent doctor` looks at. Each check returns one Finding; those not "ok" carry a remedy.

`root` stands for /, so the checks run on recorded trees; those that need the live kernel are in doctor_live,
and those of the host's devices in doctor_devices.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from agent import boot_limits, disk_swap, killers, maximum, unit_limits
from agent.blocks import MemoryBlocks
from agent.crash_kernel import crash_kernel
from agent.doctor_devices import DEVICES
from agent.doctor_live import LIVE
from agent.finding import Finding
from agent.mounts import left_behind, mounts_of
from agent.overcommit import huge_bytes
from agent.port import find_port
from agent.probe import Probe
from agent.proc_text import is_swap_in_memory
from agent.system import read_file
from agent.wire import PORT_NAME

# More movable than this for each byte the kernel can use itself starves the kernel.
# [Documentation/admin-guide/mm/memory-hotplug.rst, "ZONE_MOVABLE sizing considerations"]
MOVABLE_RATIO = 3
_NAMED = 5
_MOST_KEPT_FREE_BYTES = 256 << 20


def psi(probe: Probe) -> Finding:
    """PSI figures are there."""
    if probe.has_psi:
        return Finding("psi", "ok", "the kernel reports pressure")
    remedy = "boot with psi=1; needs a kernel with CONFIG_PSI. Until then the agent samples twice a second"
    return Finding("psi", "problem", "no /proc/pressure/memory", remedy)


def port(root: str) -> Finding:
    """The channel to the host exists."""
    path = find_port(root)
    if path is not None:
        return Finding("port", "ok", path)
    remedy = "on the host: dynmem enable VM, then start the VM again; in the guest: modprobe virtio_console"
    return Finding("port", "problem", f"no virtio port named {PORT_NAME}", remedy)


def online_policy(root: str) -> Finding:
    """New memory can be brought online in a zone of the host's choice."""
    blocks = MemoryBlocks(root)
    if blocks.block_bytes == 0:
        remedy = "use a kernel with CONFIG_MEMORY_HOTPLUG, or growth = balloon on the host"
        return Finding("online policy", "problem", "no memory hotplug in this kernel", remedy)
    policy = blocks.policy() or "none"
    if blocks.policy_writable():
        return Finding("online policy", "ok", f"auto_online_blocks is {policy}, and can be set")
    remedy = "run as root; the agent brings new memory online on uevents instead"
    return Finding("online policy", "note", f"auto_online_blocks is {policy}, and cannot be set", remedy)


def block_size(root: str) -> Finding:
    """The size in which memory is plugged."""
    size = MemoryBlocks(root).block_bytes
    if size <= 1 << 28:
        return Finding("block size", "ok", f"{size >> 20} MiB")
    remedy = "DIMMs of at least this size are used, so memory moves in large steps"
    return Finding("block size", "note", f"{size >> 20} MiB", remedy)


def zones(root: str) -> Finding:
    """Movable memory does not starve the kernel."""
    totals = MemoryBlocks(root).totals()
    normal = totals.online_bytes - totals.movable_bytes
    found = f"{totals.movable_bytes >> 20} MiB movable, {normal >> 20} MiB for the kernel"
    if totals.movable_bytes <= MOVABLE_RATIO * normal:
        return Finding("zones", "ok", found)
    remedy = "raise startup on the host, so that the VM boots with more memory of its own"
    return Finding("zones", "problem", found, remedy)


def offline_memory(root: str) -> Finding:
    """No plugged memory lies idle."""
    idle = MemoryBlocks(root).totals().offline_bytes
    if idle == 0:
        return Finding("offline memory", "ok", "none")
    remedy = "the host unplugs it or asks for it; by hand: echo online_movable > …/memoryN/state"
    return Finding("offline memory", "note", f"{idle >> 20} MiB plugged and not online", remedy)


def swap(root: str) -> Finding:
    """What kind of swap there is: disk swap counts as demand, zram and zswap's pool do not."""
    lines = [line for line in read_file(os.path.join(root, "proc/swaps")).splitlines()[1:] if line.strip()]
    if not lines:
        return Finding("swap", "note", "none", "a small swap lets the host take memory that is not used")
    told = [line.split()[0].decode("utf-8", "replace") for line in lines]
    in_memory = [" (in memory)" if is_swap_in_memory(line) else "" for line in lines]
    found = ", ".join(map("".join, zip(told, in_memory)))
    if disk_swap.pool_percent(root):
        found += "; zswap keeps a part of it in memory"
    return Finding("swap", "ok", found)


def overcommit(root: str) -> Finding:
    """The kernel does not refuse memory that the guest's maximum allows."""
    mode, kbytes = (_word(root, f"proc/sys/vm/overcommit_{name}") for name in ("memory", "kbytes"))
    if mode == "0":
        remedy = (
            "the agent sets vm.overcommit_memory to 1 while a host manages this guest; where "
            "DYNMEM_OVERCOMMIT=leave keeps it from that, add swap"
        )
        return Finding("overcommit", "note", "0: one mapping above MemTotal + swap is refused", remedy)
    if mode == "2" and kbytes in ("", "0"):
        remedy = "the agent keeps CommitLimit at what it is at maximum; else set vm.overcommit_kbytes"
        return Finding("overcommit", "note", "2: CommitLimit follows MemTotal down", remedy)
    return Finding("overcommit", "ok", f"vm.overcommit_memory is {mode or 'not shown'}")


_KILLERS_REMEDIES = {
    killers.EARLYOOM: "systemctl disable --now earlyoom, or a smaller -m, lets the host use that share",
    killers.NOHANG: "a smaller soft_threshold_min_mem in nohang.conf lets the host use that share",
    killers.OOMD: "systemd-oomd kills by swap and PSI: give the guest swap, or set ManagedOOMSwap=auto",
    killers.BUSTD: "bustd kills by PSI: a larger minimum for this VM keeps it calm",
    killers.KUBELET: "kubelet evicts pods below memory.available: a buffer above it keeps them",
}


def killing_daemons(root: str, total_bytes: int) -> Finding:
    """Nothing in the guest kills because memory has left it."""
    found = killers.find(root, total_bytes)
    if not found.names:
        return Finding("killing daemons", "ok", "none")
    told = " and ".join(found.names)
    if found.percent:
        told += f", which kills below {found.percent} % of MemTotal: the host keeps more available"
    remedy = "; ".join(_KILLERS_REMEDIES[name] for name in found.names)
    return Finding("killing daemons", "note", told, remedy)


def file_systems(root: str, total_bytes: int) -> Finding:
    """File systems in memory may hold what the guest's present size allows."""
    small = left_behind(mounts_of(root), total_bytes)
    if not small:
        return Finding("file systems in memory", "ok", "none is smaller than half of MemTotal")
    told = ", ".join(f"{place} holds {size >> 20} MiB" for place, size in small)
    remedy = f"mount -o remount,size=50% {small[0][0]}; a limit follows no memory that was added later"
    return Finding("file systems in memory", "note", f"{told}: less than half of MemTotal", remedy)


def limits_of_its_boot(root: str, total_bytes: int) -> Finding:
    """The kernel's own limits allow what the guest's present size does."""
    check, small = "limits of its boot", boot_limits.left_behind(root, total_bytes)
    if not small:
        return Finding(check, "ok", "none is less than half of what MemTotal allows")
    wanted = boot_limits.settings(small, max(maximum.told(root), total_bytes))
    remedy = (
        f"sysctl -w {' '.join(wanted)}, and the same in /etc/sysctl.d; services keep theirs until they are "
        "started anew"
    )
    told = ", ".join(small.values())
    found = f"{told}: the kernel booted with less, and these follow no memory that comes later"
    return Finding(check, "note", found, remedy)


def set_aside(root: str, total_bytes: int) -> Finding:
    """No setting takes at each boot what a guest that boots with less may not have: memory in huge pages, and
    what is kept free, of which the kernel itself takes 256 MiB or 5 % at most [mm/page_alloc.c,
    calculate_min_free_kbytes(); mm/khugepaged.c, set_recommended_min_free_kbytes()].
    """
    check, huge = "memory set aside", huge_bytes(root)
    free = int(_word(root, "proc/sys/vm/min_free_kbytes") or 0) << 10
    found = [f"{huge >> 20} MiB in huge pages (vm.nr_hugepages)"] if huge else []
    if free > max(_MOST_KEPT_FREE_BYTES, total_bytes // 16):
        found.append(f"{free >> 20} MiB kept free (vm.min_free_kbytes)")
    if not found:
        return Finding(check, "ok", "none by settings")
    remedy = (
        "where /etc/sysctl.d or the kernel's line has it, it is taken of what the guest boots with: startup "
        "on the host must be larger by that. vm.nr_overcommit_hugepages takes huge pages as they are used"
    )
    return Finding(check, "note", " and ".join(found), remedy)


def limits_of_services(root: str, total_bytes: int) -> Finding:
    """No service is held to a share of what the guest has booted with."""
    check, shares = "limits of services", unit_limits.left_behind(root, total_bytes)
    if not shares:
        return Finding(check, "ok", "none is less than half of the share of memory that it is to be")
    told = ", ".join(f"{name}: {limit}" for name, limit in list(shares.items())[:_NAMED])
    found = f"{told}: of what the guest had when systemd read that, which follows no memory that comes later"
    remedy = "a size instead of a share, as MemoryMax=2G; or systemctl daemon-reload once the guest has grown"
    return Finding(check, "note", found, remedy)


def memmap_on_memory(root: str) -> Finding:
    """Hot-added memory pays for its own memmap, 1/64 of it."""
    value = _word(root, "sys/module/memory_hotplug/parameters/memmap_on_memory")
    if value not in ("", "N", "0"):
        return Finding("memmap on memory", "ok", value)
    remedy = "boot with memory_hotplug.memmap_on_memory=1 (Linux 5.12)"
    return Finding(
        "memmap on memory",
        "note",
        "off: 1/64 of a DIMM is taken from free memory, and waited for where there is none",
        remedy,
    )


def _word(root: str, path: str) -> str:
    """A setting of the kernel's; nothing where it has none."""
    return read_file(os.path.join(root, path), 64).decode("ascii", "replace").strip()


RECORDED: tuple[Callable[[str], Finding], ...] = (
    port,
    online_policy,
    block_size,
    zones,
    offline_memory,
    swap,
    overcommit,
    crash_kernel,
    *DEVICES,
    memmap_on_memory,
)


def examine(root: str = "/") -> list[Finding]:
    """All findings; those of the live kernel only for the real root. Raises OSError without /proc/meminfo."""
    probe = Probe(root)
    try:
        pressure, total_bytes = psi(probe), probe.look().total_bytes
    finally:
        probe.close()
    sized = (killing_daemons, file_systems, limits_of_its_boot, set_aside, limits_of_services)
    of_its_size = [check(root, total_bytes) for check in sized]
    checks = RECORDED + (LIVE if root == "/" else ())
    return [pressure, *of_its_size, *(check(root) for check in checks)]
