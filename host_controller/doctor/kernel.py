"""What the doctor reads of the host's own kernel. `root` stands for /."""

from pathlib import Path
from typing import NamedTuple

from host_controller.host.killers import stall_killers
from host_controller.host.memory import kernel_text, overcommit_memory, read_meminfo


class Kernel(NamedTuple):
    """The host's kernel, as far as it matters."""

    overcommit_memory: int
    memmap_on_memory: bool | None
    swap_total_bytes: int
    swap_used_bytes: int
    ksm: bool
    khugepaged_fills: bool
    """Whether khugepaged makes whole huge pages of those with holes."""
    kvm: str | None
    """Why KVM cannot be used."""
    killers: tuple[str, ...] = ()
    """Programs that kill where others stall for memory."""
    selinux: bool = False
    """It enforces what programs may do."""


def read_kernel(root: Path = Path("/")) -> Kernel:
    """Read it. What cannot be read has its default value."""
    memory = read_meminfo(kernel_text(root / "proc/meminfo"))
    total = memory.get("SwapTotal", 0)
    memmap = kernel_text(root / "sys/module/memory_hotplug/parameters/memmap_on_memory").strip()
    return Kernel(
        overcommit_memory=overcommit_memory(root),
        memmap_on_memory=None if not memmap else memmap not in ("N", "0"),
        swap_total_bytes=total,
        swap_used_bytes=total - memory.get("SwapFree", total),
        ksm=kernel_text(root / "sys/kernel/mm/ksm/run").strip() == "1",
        khugepaged_fills=_khugepaged_fills(root / "sys/kernel/mm/transparent_hugepage"),
        kvm=kvm_problem(root),
        killers=stall_killers(root),
        selinux=kernel_text(root / "sys/fs/selinux/enforce").strip() == "1",
    )


def kvm_problem(root: Path = Path("/")) -> str | None:
    """Why KVM cannot be used. /dev/kvm alone says nothing: it can be there and not boot a kernel."""
    if not (root / "dev/kvm").exists():
        return "there is no /dev/kvm"
    info = kernel_text(root / "proc/cpuinfo")
    # Whoever made it (Hygon, Zhaoxin): other architectures have no such line.
    x86 = any(line.startswith("flags") for line in info.splitlines())
    if x86 and not {"vmx", "svm"} & set(info.split()):
        return "the processor shows neither vmx nor svm"
    return None


def _khugepaged_fills(root: Path) -> bool:
    if "[never]" in (enabled := kernel_text(root / "enabled")) or not enabled:
        return False
    return kernel_text(root / "khugepaged/max_ptes_none").strip() not in ("", "0")
