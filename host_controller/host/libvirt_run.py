"""Where a libvirt on this machine keeps its run-time files, and which process it says a VM is.

libvirt writes each QEMU's pid into a file of its own directory, which nobody but it can write. That is the
only word on which a process is taken for a VM's (fact: libvirts-pid-files): a command line with the VM's UUID
anybody can have.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

SYSTEM: Final = (Path("/run/libvirt"), Path("/var/run/libvirt"), Path("/usr/local/var/run/libvirt"))
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_PID_TEXT_BYTES: Final = 32


class PidFile(NamedTuple):
    """One pid that libvirt has written down."""

    pid: int
    owner: int
    """User id of that libvirt: 0, or the session's."""
    name: str
    """Of the VM."""


def is_local(uri: str) -> bool:
    """Whether a libvirt URI means this machine: without a host, its VMs' processes are in our /proc."""
    return not urlsplit(uri).hostname


def is_session(uri: str) -> bool:
    """Whether a local libvirt URI means a user's own. Root's session libvirt takes for the system's."""
    return urlsplit(uri).path == "/session" and os.geteuid() != 0


def run_directories(uri: str, environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Where the libvirt of a local URI may keep its run-time files, the likeliest first; empty for others."""
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] != "qemu" or not is_local(uri):
        return ()
    query = parse_qs(parts.query)
    if "socket" in query:
        return (Path(query["socket"][0]).parent,)
    if parts.path == "/embed":
        return tuple(Path(root) / "run" for root in query.get("root", ()))
    if not is_session(uri):
        return SYSTEM
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    cache = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME", "/"), ".cache")
    return (Path(runtime) / "libvirt", Path(cache) / "libvirt")


def pid_directory(uri: str) -> Path | None:
    """Where that libvirt keeps its QEMUs' pid files; None when there is no such directory."""
    session = urlsplit(uri).path == "/session"
    for base in run_directories(uri):
        for name in ("qemu/run", "qemu") if session else ("qemu",):
            if (base / name).is_dir():
                return base / name
    return None


def pid_files(directory: Path) -> Iterator[PidFile]:
    """The pids that libvirt has written into its directory. What anybody else could have written is left out.

    Raises:
        OSError: the directory cannot be listed.
    """
    about = directory.stat()
    if about.st_mode & _OTHERS_MAY_WRITE:
        return
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.endswith(".pid"):
                continue
            try:
                text = _read(entry.path, about.st_uid)
            except OSError:
                continue  # its VM has just stopped
            if text.isdigit():
                yield PidFile(int(text), about.st_uid, entry.name.removesuffix(".pid"))


def _read(path: str, owner: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != owner or found.st_mode & _OTHERS_MAY_WRITE:
            return b""
        return os.read(descriptor, _PID_TEXT_BYTES).strip()
    finally:
        os.close(descriptor)
