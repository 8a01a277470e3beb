"""Limits that a kernel works out of the memory with which it boots. They follow no memory that comes later.

kernel.threads-max    threads in all: one for eight stacks of them [kernel/fork.c, set_max_threads()]. Of
                      these a user may have half, and a service of systemd's 15 % (TasksMax=)
net.ipv4.tcp_mem      pages that all TCP connections may hold: 3/32 of memory [net/ipv4/tcp.c,
                      tcp_init_mem()]; net.ipv4.udp_mem twice that [net/ipv4/udp.c, udp_init()]
net.ipv4.tcp_max_orphans, tcp_max_tw_buckets
                      connections that no program has any more: one for 256 KiB at least [net/ipv4/tcp.c,
                      tcp_init()]. Beyond them others are reset, or end too early
fs.inotify.max_user_watches
                      files and directories that a user's programs may watch: a hundredth of memory for them,
                      since Linux 5.11 [fs/notify/inotify/inotify_user.c]. Beyond it "no space left on device"
net.netfilter.nf_conntrack_max
                      connections that a firewall or NAT knows: some for each MiB as its module is loaded, and
                      65536 from 1 GiB on [net/netfilter/nf_conntrack_core.c, nf_conntrack_init_start()]. The
                      packets of others are dropped
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from agent.proc_text import PAGE_BYTES
from agent.system import read_file

_THREADS = "kernel.threads-max"
_TCP, _UDP = "net.ipv4.tcp_mem", "net.ipv4.udp_mem"
_LEFT = ("net.ipv4.tcp_max_orphans", "net.ipv4.tcp_max_tw_buckets")
_WATCHES = "fs.inotify.max_user_watches"
_WATCH_BYTES = 1312  # of Linux 6.18 on x86; others differ by a tenth
_FIRST_BY_MEMORY = (5, 11)
_CONNECTIONS = "net.netfilter.nf_conntrack_max"
_STACK_BYTES = max(16 << 10, PAGE_BYTES)
_GIB = 1 << 30
_MOST_PLACES = 1 << 19


def left_behind(root: str, total_bytes: int) -> dict[str, str]:
    """Those that are less than half of what a kernel would take that boots with `total_bytes`: in words, by
    their names.
    """
    found = {}
    for name, wanted in _wanted(total_bytes).items():
        if name == _WATCHES and _release(root) < _FIRST_BY_MEMORY:
            continue
        now = _numbers(root, name)
        if len(now) == len(wanted) and now[-1] and 2 * now[-1] < wanted[-1]:
            found[name] = (
                f"{name} ends at {now[-1] * PAGE_BYTES >> 20} MiB"
                if name in (_TCP, _UDP)
                else f"{name} is {now[-1]}"
            )
    return found


def settings(names: Iterable[str], total_bytes: int) -> list[str]:
    """What that kernel would take of these, as sysctl takes it."""
    wanted = _wanted(total_bytes)
    texts = [(name, " ".join(map(str, wanted[name]))) for name in names]
    return [f'{name}="{text}"' if " " in text else f"{name}={text}" for name, text in texts]


def _wanted(total_bytes: int) -> dict[str, tuple[int, ...]]:
    pages = total_bytes // PAGE_BYTES // 16
    places = 1 << ((total_bytes >> 17) - 1).bit_length()  # of TCP's table, a power of two
    return {
        _THREADS: (total_bytes // (8 * _STACK_BYTES),),
        _TCP: (pages * 3 // 4, pages, pages * 3 // 2),
        _UDP: (pages * 3 // 2, pages * 2, pages * 3),
        **dict.fromkeys(_LEFT, (min(places, _MOST_PLACES) // 2,)),
        _CONNECTIONS: (_connections(total_bytes),),
        _WATCHES: (min(max(total_bytes // 100 // _WATCH_BYTES, 1 << 13), 1 << 20),),
    }


def _connections(total_bytes: int) -> int:
    if total_bytes > _GIB:
        return 262144 if total_bytes > 4 * _GIB else 65536
    return max(1024, total_bytes >> 17)


def _release(root: str) -> tuple[int, ...]:
    told = read_file(os.path.join(root, "proc/sys/kernel/osrelease")).decode("ascii", "replace").strip()
    words = told.replace("-", ".").split(".")  # 6.1.0-18-amd64, 6.2-rc3
    return tuple(int(one) if one.isdecimal() else 0 for one in words[:2])


def _numbers(root: str, setting: str) -> list[int]:
    path = os.path.join(root, "proc/sys", setting.replace(".", "/"))
    words = read_file(path).decode("ascii", "replace").split()
    return [int(one) for one in words if one.isdecimal()]
