"""Which accelerator our guests run under, the lab's and those of `dynmem verify`, and why."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Accelerator:
    """How guests run: `domain_type` is libvirt's word for it, `reason` one sentence for people."""

    name: str
    domain_type: str
    cpu: str
    reason: str


def _tcg(reason: str) -> Accelerator:
    return Accelerator("TCG", "qemu", "maximum", reason)


def find_accelerator(device: Path = Path("/dev/kvm"), cpuinfo: Path = Path("/proc/cpuinfo")) -> Accelerator:
    """KVM where it is usable by the calling account, else TCG.

    A /dev/kvm alone proves nothing: in some nested machines it exists, opens, and cannot boot a stock kernel.
    On x86 the CPU must also show `vmx` or `svm`.
    """
    if not device.exists():
        return _tcg(f"{device} does not exist")
    if not os.access(device, os.R_OK | os.W_OK):
        return _tcg(f"{device} is not accessible for this account (is it in the group kvm?)")
    if platform.machine() == "x86_64":
        flags: set[str] = set()
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("flags"):
                flags = set(line.split(":", 1)[1].split())
                break
        if not flags & {"vmx", "svm"}:
            return _tcg(f"{device} exists, but the CPU shows neither vmx nor svm")
    return Accelerator("KVM", "kvm", "host-passthrough", f"{device} is accessible and the CPU can virtualise")
