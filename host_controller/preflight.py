"""What must hold on this machine before a controller can run: `run` and `check-config` ask the same.

Nothing is left behind: a directory is tried out by making one in it, and a free lock is let go of at once.
"""

import errno
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from host_controller.api.listeners import bind, resolve
from host_controller.config import DEFAULT_PATH, Config, ConfigError, Problem
from host_controller.control.state_dir import StateDir
from host_controller.core.model import HostFacts
from host_controller.credentials import Credentials, CredentialsError
from host_controller.host import exclusive, libvirt_run
from host_controller.host.watch import HostWatch

LONGEST_SOCKET_BYTES: Final = 107
"""sockaddr_un holds 108 with its end."""
DRIVERS: Final = ("qemu", "test")
"""libvirt's drivers with a balloon, DIMMs and a channel; the second is its own for tests."""
TRANSPORTS: Final = ("", "unix", "ssh", "libssh", "libssh2", "tls", "tcp", "ext")
DATABASE_FILES: Final = ("", "-wal", "-shm", "-journal")
"""What lies beside a database of SQLite, by its name."""
EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 # asked about
"""Each for its own kind of address: an IPv6 socket takes no IPv4 connections."""
QEMU_PATHS: Final = ("/system", "/session", "/embed")


def check(config: Config) -> None:
    """Refuse a configuration that cannot work here. Of others in charge the locks tell, once they are taken.

    Raises:
        ConfigError: with everything that is wrong.
    """
    problems = [problem for one in CHECKS for problem in one(config)]
    if problems:
        raise ConfigError("configuration", problems)


def problems_of(config: Config, *, running_from: str = "") -> list[Problem]:
    """All that keeps a controller with this configuration from running here.

    running_from: a configuration's source; what a controller that runs with it holds is not in the way, since
    it is asked what a reload would take over.
    """
    holder = state_holder(config)
    reloads = bool(running_from) and running_from in (holder or "").splitlines()[1:]
    checks = WHILE_RUNNING if reloads else (*CHECKS, *LOCKS)
    checks = (*checks, _own_addresses)
    return [problem for one in checks for problem in one(config)]


def host_facts(config: Config) -> HostFacts | None:
    """The host as the controller would see it; None where VMs are elsewhere, or it cannot be read."""
    if not libvirt_run.is_local(config.libvirt.uri):
        return None
    try:
        facts = HostWatch(config.libvirt.uri, meminfo=Path(config.paths.meminfo)).read(time.monotonic(), {})
    except (OSError, KeyError, ValueError):
        return None
    return replace(facts, foreign_bytes=0)  # which QEMUs are whose libvirt will say


def memory_problems(config: Config, facts: HostFacts | None) -> list[Problem]:
    """What of the memory that is configured cannot be had."""
    if facts is not None:
        return config.problems_on(facts)
    if not libvirt_run.is_local(config.libvirt.uri):
        if config.host.capacity is not None:
            return []
        allowed = f"a size: {config.libvirt.uri} is another machine, whose memory cannot be seen from here"
        return [Problem("host.capacity", "nothing", allowed)]
    allowed = "a readable file like /proc/meminfo, with MemTotal"
    return [Problem("paths.meminfo", config.paths.meminfo, allowed)]


def state_holder(config: Config) -> str | None:
    """What the controller that holds the state directory has written into its lock; None when it is free."""
    try:
        return exclusive.holder(StateDir(config.state_dir).lock_file)
    except OSError:
        return None  # whether it can be used is another question


def source(file: Path | None) -> str:
    """Where a configuration comes from, as one line."""
    return os.path.realpath(file or DEFAULT_PATH)


def _libvirt(config: Config) -> Iterator[Problem]:
    uri = config.libvirt.uri
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    wrong = driver not in DRIVERS or transport not in TRANSPORTS
    if wrong or (driver == "qemu" and parts.path not in QEMU_PATHS):
        yield Problem(
            "libvirt.uri", uri, 'a URI of libvirt\'s QEMU driver, such as "qemu:///system", written out'
        )


def _memory(config: Config) -> Iterator[Problem]:
    yield from memory_problems(config, host_facts(config))


def _state_dir(config: Config) -> Iterator[Problem]:
    wrong = _unwritable(config.state_dir)
    if wrong:
        yield Problem(
            "paths.state_dir", f"{config.state_dir} ({wrong})", "a directory that can be made and written"
        )
    lock = StateDir(config.state_dir).lock_file
    if not wrong and lock.exists() and not os.access(lock, os.R_OK | os.W_OK):
        yield Problem(
            "paths.state_dir", f"{lock} (another user's)", "a directory of the controller's own user"
        )


def _sockets(config: Config) -> Iterator[Problem]:
    """Whatever else lies in the place of a socket would be deleted for it."""
    for key, path in (("paths.socket", config.socket_path), ("paths.view_socket", config.view_path)):
        if len(os.fsencode(path)) > LONGEST_SOCKET_BYTES:
            yield Problem(key, str(path), f"at most {LONGEST_SOCKET_BYTES} bytes: it is a unix socket's name")
        elif os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
            yield Problem(key, f"{path}, which is no socket", "a name that is free")
        elif path.parent != config.state_dir and (wrong := _unwritable(path.parent)):
            yield Problem(key, f"{path} ({wrong})", "a file in a directory that can be made and written")


def _own_names(config: Config) -> Iterator[Problem]:
    """Two things do not lie in one place."""
    state = StateDir(config.state_dir)
    taken = dict.fromkeys((state.lock_file, state.file), "the controller's own state")
    named = (
        ("paths.socket", config.socket_path),
        ("paths.view_socket", config.view_path),
        *(("paths.history", Path(config.paths.history + suffix)) for suffix in DATABASE_FILES),
    )
    for key, path in named:
        place = Path(os.path.normpath(path))
        if place in taken:
            yield Problem(key, f"{path}, which is {taken[place]}", "a name of its own")
        taken[place] = key


def _unlocked(config: Config) -> Iterator[Problem]:
    holder = state_holder(config)
    if holder is not None:
        who = holder.partition("\n")[0].strip() or "another controller"
        yield Problem(
            "paths.state_dir", f"{config.state_dir}, held by {who}", "one that no controller works with"
        )


def _unclaimed(config: Config) -> Iterator[Problem]:
    name = exclusive.lock_name(config.libvirt.uri)
    if name is None or state_holder(config) is not None:
        return  # said already, most likely about the same controller
    try:
        found = exclusive.holder(exclusive.own_directory() / name)
    except OSError:
        found = None
    other = exclusive.held_by_others(name, config.libvirt.uri) or (found and found.partition("\n")[0].strip())
    if other is not None:
        yield Problem(
            "libvirt.uri", f"{config.libvirt.uri}, managed by {other}", "a libvirt without a controller"
        )


def _two_listeners(config: Config) -> Iterator[Problem]:
    """Each of two addresses can be free where both together are not."""
    http, fleet = config.listen, config.fleet_listen
    if http is None or fleet is None or not http[1] == fleet[1] != 0:
        return
    try:
        addresses = [{str(place.address[0]) for place in resolve(*one)} for one in (http, fleet)]
    except (OSError, UnicodeError):
        return  # that is said of the one
    if any(_meet(one, other) for one in addresses[0] for other in addresses[1]):
        yield Problem(
            "fleet.listen", f"{config.fleet.listen}, where http.listen is", "an address or a port of its own"
        )


def _meet(one: str, other: str) -> bool:
    """Whoever listens at one of these addresses is in the other's way, at the same port."""
    return one == other or ((":" in one) == (":" in other) and not {one, other}.isdisjoint(EVERYWHERE))


def _history(config: Config) -> Iterator[Problem]:
    """There can be a file. Whether there is room, and the right to write it, may change while it runs. He who
    asks may have no right to look.
    """
    path = Path(config.paths.history)
    if not config.history.enabled:
        return
    above = next((one for one in path.parents if os.path.lexists(one)), path)
    try:
        kind, placed = _kind(path), above.is_dir()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            yield Problem("paths.history", f"{path} ({error.strerror})", "a shorter name")
        return
    if stat.S_ISLNK(kind):  # others could have put it there, so it is not written through
        yield Problem("paths.history", f"{path}, which is a link", f"the file itself: {path.resolve()}")
    elif not stat.S_ISREG(kind) or path == config.state_dir:
        what = "a directory" if stat.S_ISDIR(kind) or path == config.state_dir else "no file"
        yield Problem("paths.history", f"{path}, which is {what}", "the name of a file")
    elif not placed:
        yield Problem("paths.history", f"{path} ({above} is not a directory)", "a file in a directory")


def _kind(path: Path) -> int:
    """The mode of what lies there; of a file where nothing does. Raises OSError."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return stat.S_IFREG


def _free_addresses(config: Config) -> Iterator[Problem]:
    """Nobody else listens there. An address that this machine does not have yet may come, as at boot."""
    yield from _two_listeners(config)
    for key, text, error in _unbound(config):
        if getattr(error, "errno", None) != errno.EADDRNOTAVAIL:
            why = getattr(error, "strerror", None) or str(error)
            yield Problem(key, f"{text} ({why})", "an address of this machine that is free")


def _own_addresses(config: Config) -> Iterator[Problem]:
    """This machine has the address. `run` does not ask, but whoever looks at the file wants to know."""
    for key, text, error in _unbound(config):
        if getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
            yield Problem(key, f"{text}, which this machine does not have now", "an address of this machine")


def _unbound(config: Config) -> Iterator[tuple[str, str, Exception]]:
    """What of the configuration cannot be listened at: its key, what stands there, and why."""
    for key, text, where in _listens(config):
        try:
            for place in resolve(*where):
                bind(place).close()
        except (OSError, UnicodeError) as error:  # the second: no name of a host
            yield key, text, error


def _listens(config: Config) -> Iterator[tuple[str, str, tuple[str, int]]]:
    """The key, what stands there, and the address and port in it."""
    if config.http.listen is not None and config.listen is not None:
        yield "http.listen", config.http.listen, config.listen
    if config.fleet.listen is not None and config.fleet_listen is not None:
        yield "fleet.listen", config.fleet.listen, config.fleet_listen


def _credentials(config: Config) -> Iterator[Problem]:
    if config.fleet_listen is None:
        return
    try:
        Credentials.within(Path(config.fleet.credentials)).server()
    except CredentialsError as error:
        yield Problem("fleet.credentials", error.message, "host.pem, host.key and ca.pem of this host")


def _unwritable(directory: Path) -> str | None:
    """Why a directory cannot be made or written, or None."""
    for one in (directory, *directory.parents):
        try:
            there = one.exists()
        except OSError as error:  # a name that is too long, or whoever asks may not look
            return f"{one}: {error.strerror}"
        if not there:
            if one.is_symlink():
                return f"{one} leads nowhere"
            continue
        if not one.is_dir():
            return f"{one} is not a directory"
        try:
            os.rmdir(tempfile.mkdtemp(prefix=".dynmem-", dir=one))
        except OSError as error:
            return f"{one}: {error.strerror}"
        return None
    return "it has no parent"


Check = Callable[[Config], Iterator[Problem]]
WHILE_RUNNING: Final[tuple[Check, ...]] = (
    _libvirt,
    _memory,
    _state_dir,
    _sockets,
    _history,
    _own_names,
    _credentials,
)
CHECKS: Final[tuple[Check, ...]] = (*WHILE_RUNNING, _free_addresses)
LOCKS: Final[tuple[Check, ...]] = (_unlocked, _unclaimed)
"""`run` takes these, and is refused by whoever has them."""
