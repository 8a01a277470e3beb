"""What a cluster has on this machine beside processes: namespaces and a directory, by its owner's id."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

DIRECTORIES: Final = Path("/tmp")
MEMORY: Final = Path("/dev/shm")
_OWNED: Final = re.compile(r"dynmem-cell-(\d+)(?:-.*)?")


def name_of(owner: int) -> str:
    """How names of the cluster begin that this process makes."""
    return f"dynmem-cell-{owner}"


def left_of(owner: int) -> list[str]:
    """What is there of this process's cluster: network namespaces and directories."""
    return [*_spaces_of(owner), *map(str, _directories_of(owner))]


def remove(owner: int) -> None:
    """Remove it. Processes end by themselves with whoever started them."""
    for name in _spaces_of(owner):
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
    for place in _directories_of(owner):
        shutil.rmtree(place, ignore_errors=True)


def remove_crashed() -> None:
    """Remove what is there of processes that are gone."""
    for owner in {_owner(name) for name in (*_spaces(), *(place.name for place in _directories()))}:
        if owner is not None and not Path(f"/proc/{owner}").exists():
            remove(owner)


def _owner(name: str) -> int | None:
    found = _OWNED.fullmatch(name)
    return int(found[1]) if found else None


def _spaces_of(owner: int) -> list[str]:
    return [name for name in _spaces() if _owner(name) == owner]


def _directories_of(owner: int) -> list[Path]:
    return [place for place in _directories() if _owner(place.name) == owner]


def _spaces() -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    return [line.split()[0] for line in listed.splitlines()]


def _directories() -> list[Path]:
    return [*DIRECTORIES.iterdir(), *MEMORY.iterdir()]
