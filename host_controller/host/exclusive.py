"""One controller for one libvirt: two would grant the same memory twice, whatever directories they use.

    LibvirtTaken    another controller is in charge of that libvirt

The lock is a file under /run (an ordinary user's: in their runtime directory), named after the libvirt and
not after its address: several addresses lead to one. Only its owner can open the file, so nobody else can
keep a controller from starting. That a lock of another user is held is read from /proc/locks.
"""

import fcntl
import grp
import hashlib
import ipaddress
import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from host_controller.errors import DynmemError
from host_controller.host import libvirt_run
from host_controller.private import FILE_MODE, own

RUN: Final = Path("/run/dynmem")
USERS: Final = Path("/run/user")
_HERE: Final = ("localhost", "localhost.localdomain", "127.0.0.1", "::1")
_SOCKETS: Final = ("libvirt-sock", "virtqemud-sock")
_HOLDER_CHARACTERS: Final = 400


class Held(Exception):  # noqa: N818 # read as what happened
    """Somebody else has the lock; the text is what they have written into it."""


class LibvirtTaken(DynmemError):  # noqa: N818 # read as what happened
    """Another controller is in charge of that libvirt."""


def lock(file: Path, text: str) -> IO[str]:
    """Take an exclusive lock by a file, and write there who has it. It is let go of when that is closed.

    Raises:
        Held: by whom.
        OSError: the file cannot be made or written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(file, flags, FILE_MODE)
    try:
        # One that somebody has made by hand may be readable, and so lockable, by all.
        own(descriptor, file)
    except OSError:
        os.close(descriptor)
        raise
    one = os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")
    try:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = one.read(_HOLDER_CHARACTERS).partition("\n")[0].strip() or "somebody else"
        one.close()
        raise Held(holder) from None
    except OSError:
        one.close()
        raise
    one.seek(0)
    one.truncate()
    one.write(text)
    one.flush()
    return one


def holder(file: Path) -> str | None:
    """What the holder of a lock has written there; None when nobody holds it.

    Raises:
        OSError: the file may not be opened.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as one:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return one.read(_HOLDER_CHARACTERS)
    return None


def identity(uri: str) -> str | None:
    """A name for the libvirt behind a URI, the same for all its addresses; None for libvirt's test driver."""
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] == "test":
        return None
    host = (parts.hostname or "").lower().rstrip(".")
    if host and _is_here(host):
        host, uri = "", f"qemu://{parts.path}"
    if host:
        user = parts.username or "" if parts.path == "/session" else ""
        return f"{parts.scheme.partition('+')[0]}|{user}|{host}|{parts.path.rstrip('/')}"
    directories = libvirt_run.run_directories(uri)
    there = [one for one in directories if one.is_dir()] or list(directories[:1])
    return f"local|{os.path.realpath(there[0])}" if there else f"local|{uri}"


def _is_here(host: str) -> bool:
    """Whether a host is this machine, by any of its names and addresses."""
    if host in _HERE or host in (socket.gethostname().lower(), socket.getfqdn().lower()):
        return True
    try:
        found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
        return any(_is_own(family, address) for family, _, _, _, address in found)
    except (OSError, ValueError):  # no such name, or none that can be
        return False


def _is_own(family: int, address: tuple[Any, ...]) -> bool:
    """To one of its own addresses a machine speaks from that very address. Nothing is sent for that."""
    known = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if known.is_loopback or known.is_unspecified:
        return True
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        try:
            one.connect(address)
        except OSError:
            return False
        return bool(one.getsockname()[0] == address[0])


class Claim:
    """The right to manage one libvirt, from `take` to `release`."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock: IO[str] | None = None

    def take(self, about: str = "") -> None:
        """Be in charge.

        about: for whoever comes second.

        Raises:
            LibvirtTaken: by whom.
            DynmemError: there is no place for the lock.
        """
        name = lock_name(self._uri)
        if name is None:
            return
        other = held_by_others(name, self._uri)
        if other is not None:
            raise _taken(self._uri, other)
        directory = own_directory()
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._lock = lock(directory / name, f"pid {os.getpid()} {about}\n{self._uri}\n")
        except Held as held:
            raise _taken(self._uri, f"{held} ({directory / name})") from None
        except OSError as error:
            raise DynmemError(
                f"{directory / name}: {error.strerror}; without it a second controller would not be noticed",
                hint="run as root, or set XDG_RUNTIME_DIR",
            ) from None

    def release(self) -> None:
        """Let another be in charge."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def lock_name(uri: str) -> str | None:
    """The name of the lock's file; None where none is needed."""
    name = identity(uri)
    return None if name is None else f"libvirt-{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock"


def own_directory() -> Path:
    """Where this user's locks lie."""
    if os.geteuid() == 0:
        return RUN
    return Path(os.environ.get("XDG_RUNTIME_DIR") or USERS / str(os.geteuid())) / "dynmem"


def held_by_others(name: str, uri: str) -> str | None:
    """Another user's controller that is in charge of that libvirt; None when there is none.

    Only a user who may use that libvirt is believed: anybody can lock a file in a directory of their own.
    """
    for file in (RUN / name, *(user / "dynmem" / name for user in _users())):
        if file.parent == own_directory():
            continue
        try:
            about = file.lstat()
        except OSError:
            continue
        if (about.st_uid == 0 or about.st_uid in _users_of(uri)) and _is_locked(about):
            return f"one of {_name(about.st_uid)} ({file})"
    return None


def _users() -> Iterator[Path]:
    try:
        yield from USERS.iterdir()
    except OSError:
        return


def _users_of(uri: str) -> set[int]:
    """Who may use a local libvirt beside root, by the owner and the group of its sockets."""
    found: set[int] = set()
    for file in (base / name for base in libvirt_run.run_directories(uri) for name in _SOCKETS):
        try:
            about = file.stat()
            members = grp.getgrgid(about.st_gid).gr_mem
        except (OSError, KeyError):
            continue
        found.add(about.st_uid)
        found.update(
            one.pw_uid for one in pwd.getpwall() if one.pw_name in members or one.pw_gid == about.st_gid
        )
    return found


def _is_locked(about: os.stat_result) -> bool:
    mark = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    try:
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    return any(line.split()[1:2] == ["FLOCK"] and mark in line.split() for line in locks.splitlines())


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _taken(uri: str, who: str) -> LibvirtTaken:
    return LibvirtTaken(
        f"another controller is in charge of the libvirt at {uri}: {who}",
        hint="stop it first: systemctl stop dynmem, or end that process",
    )
