"""Whether this machine gives us namespaces of our own, as roots and nodes need them."""

import os
import subprocess
import tempfile
from typing import Final

from lab.cache import cache_directory

NODES: Final = """
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
ip link add br0 type bridge
ip link add eth0 type veth peer name eth1
"""
"""What a node does in its namespaces (lab/cluster)."""
ROOTS: Final = """
mount -t tmpfs tmpfs /mnt
mkdir "$1/upper" "$1/work"
mount -t overlay overlay -o "lowerdir=/mnt,upperdir=$1/upper,workdir=$1/work" /mnt
mount -t proc proc /mnt
"""
"""What entering a root of another release does (lab/matrix/roots.py)."""

SEPARATE: Final = ("--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts")
"""How `unshare` makes them: what runs inside ends with whoever asked for it. "--net" is the caller's."""


def why_not(trial: str) -> str:
    """Tries it, and leaves nothing. Returns what hinders it, as a part of a sentence, or nothing."""
    if os.geteuid() != 0:
        return "it needs root"
    directory = cache_directory()
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trial-", dir=directory) as place:
        command = ["unshare", *SEPARATE, "--net", "sh", "-ec", trial, "sh", place]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False,
        )  # fmt: skip
    if done.returncode == 0:
        return ""
    said = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
    return f"this machine does not let us make namespaces for it ({said[0]})"
