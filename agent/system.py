"""The daemon's dealings with the system around it: log lines, systemd, signals, PSI, the OOM killer."""

from __future__ import annotations

import _socket as socket  # of the module around it nothing is used, and it costs 0.3 MiB
import os
import signal
import time
from types import FrameType

# A stall of 50 ms within 500 ms, the shortest window the kernel allows: it looks ten times a window, so
# the event comes 50..100 ms after the stall began, at most twice a second. [Documentation/accounting/psi.rst]
PSI_TRIGGERS = (
    b"some 50000 500000\0",
    b"some 200000 2000000\0",  # without CAP_SYS_RESOURCE only windows of 2 s and its multiples are allowed
)
_SAME_EVENT_SECONDS = 10.0
_FOR_ALL = 0o755
_MOST_CHILDREN_BYTES = 1 << 16
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Log:
    """One line an event to stderr, with journald's `<priority>` prefix; per event one line in 10 s.

    Never raises, and does not block on a journal that is stuck.
    """

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self._last: dict[str, tuple[float, int]] = {}
        if "JOURNAL_STREAM" in os.environ:
            os.set_blocking(fd, False)

    def __call__(self, priority: int, event: str, text: str) -> None:
        """Log at a syslog priority (3 error … 6 info). `event` is a short fixed word."""
        now = time.monotonic()
        last, held_back = self._last.get(event, (-_SAME_EVENT_SECONDS, 0))
        if now - last < _SAME_EVENT_SECONDS:
            self._last[event] = (last, held_back + 1)
            return
        self._last[event] = (now, 0)
        more = f" ({held_back} more held back)" if held_back else ""
        try:
            os.write(self._fd, f"<{priority}>{event}: {text}{more}\n".encode("utf-8", "replace"))
        except OSError:
            return  # nobody reads; there is nowhere to say so


class Notifier:
    """sd_notify(3) and the watchdog, without libsystemd. Does nothing outside of systemd."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_UNIX, kind)
        try:
            self.watchdog_seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
        except ValueError:
            self.watchdog_seconds = 0.0
        self._fed_at = 0.0

    def send(self, state: str) -> None:
        """READY=1, STOPPING=1 and the like."""
        if self._socket is None:
            return
        try:
            self._socket.sendto(state.encode(), self._address)
        except OSError:
            return  # systemd will notice by itself

    def feed_watchdog(self, now: float) -> None:
        """Say that the loop turns, at twice the rate that systemd asks for."""
        if self.watchdog_seconds and now - self._fed_at >= self.watchdog_seconds:
            self._fed_at = now
            self.send("WATCHDOG=1")


class Stop(Exception):  # noqa: N818 # not an error: SIGTERM
    """The service manager wants us to end, or the terminal that we were started from is gone."""


def stop_at_signals() -> None:
    """Have the first signal of STOPS raise Stop, wherever the program is then.

    Whoever started us may have ignored or blocked any, and a program inherits that (signal(7)).
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel keeps no exit status of the helper
    for one in STOPS:
        if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN:  # nohup(1)
            signal.signal(one, _raise_stop)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _raise_stop(_signal: int, _frame: FrameType | None) -> None:
    for one in STOPS:  # a second one must not keep the guest's settings from being put back
        signal.signal(one, signal.SIG_IGN)
    raise Stop


def open_psi_trigger(root: str = "/") -> int:
    """A descriptor that poll() reports POLLPRI on when memory stalls. Raises OSError where there is none."""
    path = os.path.join(root, "proc/pressure/memory")
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    refusal: OSError | None = None
    for trigger in PSI_TRIGGERS:
        try:
            os.write(fd, trigger)
        except OSError as error:
            refusal = error
        else:
            return fd
    os.close(fd)
    assert refusal is not None
    raise refusal


def read_file(path: str, most: int = 4096) -> bytes:
    """A file's beginning; nothing of one that is not there, that went, or that may not be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(fd, most)
    except OSError:  # ENODEV and ESRCH: what it told of went while we looked
        return b""
    finally:
        os.close(fd)


def groups_beneath(path: str) -> list[str]:
    """The control groups in one; none of one that went."""
    try:
        with os.scandir(path) as entries:
            return [one.path for one in entries if one.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def group_bytes(path: str, names: tuple[bytes, ...]) -> int:
    """The sum of these lines of a control group's memory.stat, as far as they are there."""
    total = 0
    for line in read_file(os.path.join(path, "memory.stat"), 65536).splitlines():
        name, _, value = line.partition(b" ")
        if name in names and value.isdigit():
            total += int(value)
    return total


def kernel_threads(proc: str) -> set[str]:
    """Numbers of processes that the kernel has started, or of some: the children of kthreadd, process 2, if
    that is the kernel's [Documentation/filesystems/proc.rst, 3.7]. They are most processes of a small guest,
    and hold no memory but for a helper program now and then. To read a file of one costs half of a look.
    """
    if not read_file(f"{proc}/2/statm").startswith(b"0 0 0 "):  # in a container it is a program
        return set()
    return set(
        read_file(f"{proc}/2/task/2/children", _MOST_CHILDREN_BYTES).decode("ascii", "replace").split()
    )


def write_whole(path: str, text: str) -> None:
    """Put a small file that everybody may read in a file's place. Raises OSError: the old one is whole."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.makedirs(directory)
        os.chmod(directory, _FOR_ALL)  # whatever our umask: services run with 077
    scratch = f"{path}.new"
    with open(scratch, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
    os.rename(scratch, path)


def protect_from_oom_killer(root: str = "/") -> bool:
    """Ask to be killed last. Returns whether that was allowed; systemd's OOMScoreAdjust= does it, too."""
    try:
        fd = os.open(os.path.join(root, "proc/self/oom_score_adj"), os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, b"-900")
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)
