"""The cache directory: what was built once stays, whole or not at all."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from lab.errors import LabError

_KEY_LENGTH = 16
_KEEP_UNUSED = 86400.0  # seconds; another checkout may be using another version


def cache_directory() -> Path:
    """`$DYNMEM_CACHE`; else for root /var/cache/dynmem; else `$XDG_CACHE_HOME` or ~/.cache, dynmem in it."""
    if configured := os.environ.get("DYNMEM_CACHE"):
        return Path(configured)
    if os.geteuid() == 0:
        return Path("/var/cache/dynmem")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynmem"


def key_of(*inputs: str | bytes) -> str:
    """A short name for everything that a result depends on."""
    digest = hashlib.sha256()
    for item in inputs:
        data = item.encode() if isinstance(item, str) else item
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:_KEY_LENGTH]


def build_once(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The directory `kind-key` in the cache, built by `build(directory)` if it is not there yet.

    Built beside its place and renamed into it, under a lock: an interrupted build leaves nothing half made,
    a second builder waits, and what has not been used for a day is removed.

    Raises:
        LabError: a killed build left a mount that cannot be taken away.
    """
    root = cache_directory()
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    place = root / f"{kind}-{key}"
    if place.is_dir():
        with contextlib.suppress(PermissionError):  # somebody else's cache, which we may read
            os.utime(place)
        return place
    with _locked(root / f"{kind}.lock"):
        if place.is_dir():
            return place
        built = f"{kind}-{'?' * _KEY_LENGTH}"  # not `kind-*`: another kind's name may begin as this one's
        for leftover in root.glob(f"{built}.partial.*"):
            remove(leftover)
        scratch = Path(tempfile.mkdtemp(prefix=f"{kind}-{key}.partial.", dir=root))
        try:
            build(scratch)
            scratch.chmod(0o755)
            for old in root.glob(built):
                if time.time() - old.stat().st_mtime > _KEEP_UNUSED:
                    remove(old)
            scratch.rename(place)
        finally:
            remove(scratch)
    return place


def remove(place: Path) -> None:
    """Delete a directory, but nothing of what is mounted in it: those mounts are taken away first.

    A killed mmdebstrap leaves this machine's own /dev and /sys in its root; deleting goes on into them.

    Raises:
        LabError: a mount stays; nothing was deleted.
    """
    for mount in reversed(_mounts_in(place)):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    if left := _mounts_in(place):
        raise LabError(f"{place} is left as it is: {left[0]} is still mounted. Unmount it, and try again.")
    shutil.rmtree(place, ignore_errors=True)


def _mounts_in(place: Path) -> list[Path]:
    """In the order in which they were mounted: the later may stand in the earlier, or cover it."""
    resolved = place.resolve()
    mounts = (Path(one.mountpoint) for one in psutil.disk_partitions(all=True))
    return [mount for mount in mounts if mount.is_relative_to(resolved)]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
