"""The check of `dynmem-agent doctor` of the kernel that saves a crash (kdump).

It has its memory by ranges of what the guest boots with: RHEL and others have it set aside nothing below 1 or
2 GiB [Documentation/admin-guide/kdump/kdump.rst]. And where it has a driver of the balloon that driver obeys,
at once, what its host had told the kernel that crashed: a crash kernel of 192 MiB was asked for 1 GiB, and
panicked ("System is deadlocked on memory"). As a module the driver is rarely among what it boots with.
"""

from __future__ import annotations

import os

from agent.finding import Finding
from agent.system import read_file

DRIVER = "virtio_balloon"
_WANTED = "crashkernel="
_NONE = ("", "0", "0m", "no", "off")
_CONFIGURATIONS = ("etc/default/kdump-tools", "etc/sysconfig/kdump", "etc/kdump.conf")
_MOST_BYTES = 1 << 16


def crash_kernel(root: str) -> Finding:
    """A crash can be saved, where its kernel was told to set memory aside for that."""
    check = "crash kernel"
    told = _read(root, "proc/cmdline").split()
    wanted = [one for one in told if one.startswith(_WANTED) and one[len(_WANTED) :].lower() not in _NONE]
    size = _read(root, "sys/kernel/kexec_crash_size").strip()
    if wanted and size == "0":
        found = f"{wanted[-1]} set nothing aside, since the kernel booted with less: no crash is saved"
        remedy = (
            "crashkernel=256M, which counts whatever it boots with; or on the host: dynmem enable with a "
            "larger --startup (by virtio-mem --minimum, too)"
        )
        return Finding(check, "note", found, remedy)
    if size not in ("", "0") and _would_obey(root):
        found = "it has a driver of the balloon, and would give the host its own memory: no crash is saved"
        remedy = (
            f"initcall_blacklist={DRIVER}_driver_init in KDUMP_CMDLINE_APPEND of /etc/default/kdump-tools, "
            "or in KDUMP_COMMANDLINE_APPEND of /etc/sysconfig/kdump"
        )
        return Finding(check, "note", found, remedy)
    return Finding(check, "ok", "it has its memory, or none is wanted")


def _would_obey(root: str) -> bool:
    """The balloon's driver is part of the kernel, and nobody keeps it from the one that saves a crash."""
    part = os.path.exists(os.path.join(root, "sys/bus/virtio/drivers", DRIVER)) and not any(
        line.startswith(f"{DRIVER} ") for line in _read(root, "proc/modules").splitlines()
    )
    return part and not any(DRIVER in _read(root, one) for one in _CONFIGURATIONS)


def _read(root: str, path: str) -> str:
    return read_file(os.path.join(root, path), _MOST_BYTES).decode("utf-8", "replace")
