"""Limits that a kernel works out of the memory with which it boots. They follow no memory that comes later.

kernel.threads-max    threads in all: one for eight stacks of them [kernel/fork.c, set_max_threads()]. Of
                      these a user may have half, and a service of systemd's 15 % (TasksMax=)
net.ipv4.tcp_mem      pages that all TCP connections may hold: 3/32 of memory [net/ipv4/tcp.c,
                      tcp_init_mem()]
crashkernel=          memory for the kernel that saves a crash, by ranges: RHEL and others have it set aside
                      nothing below 1 or 2 GiB [Documentation/admin-guide/kdump/kdump.rst]
"""

from __future__ import annotations

import os

from agent.proc_text import PAGE_BYTES
from agent.system import read_file

_THREADS = "kernel.threads-max"
_TCP = "net.ipv4.tcp_mem"
_CRASH = "crashkernel="
_NO_CRASH = ("", "0", "0m", "no", "off")
_STACK_BYTES = max(16 << 10, PAGE_BYTES)


def left_behind(root: str, total_bytes: int) -> list[str]:
    """Those that are less than half of what a kernel would take that boots with `total_bytes`, in words."""
    found = []
    threads, pages = _numbers(root, _THREADS), _numbers(root, _TCP)
    if threads and 2 * threads[0] < _threads(total_bytes):
        found.append(f"{_THREADS} is {threads[0]}")
    if len(pages) == 3 and 2 * pages[2] < _tcp_pages(total_bytes)[2]:
        found.append(f"{_TCP} ends at {pages[2] * PAGE_BYTES >> 20} MiB")
    return found


def crash_kernel_left_out(root: str) -> str:
    """What its kernel was told of a crash kernel, where that set nothing aside; "" where all is as told."""
    told = read_file(os.path.join(root, "proc/cmdline")).decode("utf-8", "replace").split()
    wanted = [one for one in told if one.startswith(_CRASH) and one[len(_CRASH) :].lower() not in _NO_CRASH]
    size = read_file(os.path.join(root, "sys/kernel/kexec_crash_size")).strip()
    return wanted[-1] if wanted and size == b"0" else ""


def settings(total_bytes: int) -> list[str]:
    """What that kernel would take, as sysctl takes it."""
    pages = " ".join(map(str, _tcp_pages(total_bytes)))
    return [f"{_THREADS}={_threads(total_bytes)}", f'{_TCP}="{pages}"']


def _threads(total_bytes: int) -> int:
    return total_bytes // (8 * _STACK_BYTES)


def _tcp_pages(total_bytes: int) -> tuple[int, int, int]:
    limit = total_bytes // PAGE_BYTES // 16
    return limit * 3 // 4, limit, limit * 3 // 2


def _numbers(root: str, setting: str) -> list[int]:
    path = os.path.join(root, "proc/sys", setting.replace(".", "/"))
    words = read_file(path).decode("ascii", "replace").split()
    return [int(one) for one in words if one.isdecimal()]
