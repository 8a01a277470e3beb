"""Recorded kernel files as a tree, and how to change them.

recorded/debian12 is a 512 MiB Debian 12 guest, written by hand after facts measured there; recorded/here
was copied from a 24 GiB machine with Linux 6.18.
"""

import re
import shutil
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"
BLOCK_BYTES = 128 << 20


def copy_of(name: str, target: Path) -> Path:
    shutil.copytree(RECORDED / name, target, dirs_exist_ok=True)
    return target


def set_kib(root: Path, **values: int) -> None:
    """Change lines of /proc/meminfo, as in set_kib(root, MemAvailable=1024)."""
    path = root / "proc/meminfo"
    text = path.read_text()
    for key, kib in values.items():
        text = re.sub(rf"(?m)^{re.escape(key)}:.*$", f"{key}: {kib} kB", text)
    path.write_text(text)


def add_block(root: Path, number: int, state: str, zones: str = "Normal") -> Path:
    block = root / f"sys/devices/system/memory/memory{number}"
    block.mkdir(parents=True, exist_ok=True)
    (block / "state").write_text(state)
    (block / "valid_zones").write_text(zones)
    return block


def add_memory(root: Path, boot_blocks: int = 4, policy: str = "offline") -> Path:
    """A memory directory in sysfs with some blocks of boot memory online."""
    directory = root / "sys/devices/system/memory"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "block_size_bytes").write_text(f"{BLOCK_BYTES:x}\n")
    (directory / "auto_online_blocks").write_text(policy + "\n")
    for number in range(boot_blocks):
        add_block(root, number, "online\n")
    return directory


def add_process(root: Path, pid: int, name: str, *, pages: int, shared: int = 0) -> None:
    """A process that holds so many pages, and maps so many of files beside them."""
    directory = root / f"proc/{pid}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "comm").write_text(f"{name}\n")
    (directory / "statm").write_text(f"{pages + shared + 1000} {pages + shared} {shared} 10 0 50 0\n")


def add_group(root: Path, path: str, current_bytes: int, *, file_bytes: int = 0) -> None:
    """A control group that counts memory, and the groups above it."""
    directory = root / "sys/fs/cgroup" / path
    directory.mkdir(parents=True, exist_ok=True)
    for above in (directory, *directory.parents[: path.count("/")]):
        if not (above / "memory.current").exists():
            (above / "memory.current").write_text("0\n")
    (directory / "memory.current").write_text(f"{current_bytes}\n")
    stat = f"anon 1\nfile {file_bytes}\ninactive_file {file_bytes}\nactive_file 0\n"
    (directory / "memory.stat").write_text(stat)
    (root / "proc/1").mkdir(parents=True, exist_ok=True)
    (root / "proc/1/cgroup").write_text("0::/init.scope\n")
