"""A private libvirt: a session daemon with directories and an identity of its own."""

import contextlib
import os
import re
import signal
import subprocess
import time
import uuid
from datetime import datetime
from pathlib import Path

import libvirt

from host_controller.verify.processes import GUESTS_NICE, prefer, send, wait_gone
from lab.account import Account
from lab.errors import SessionError

_SENT = re.compile(
    r'^(\S+ [\d:.]+\+0000): .*QEMU_MONITOR_SEND_MSG: .*msg=\{"execute":"([^"]+)"', re.MULTILINE
)
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_MOUNT_AND_RUN = 'mount -t hugetlbfs -o "$1" hugetlbfs "$2" && shift 2 && exec "$@"'


class Session:
    """One libvirt session daemon. Several live side by side on one machine: each has its own host UUID."""

    def __init__(
        self, directory: Path, account: Account, *, writes_down: bool = False, huge_pages: bool = False
    ) -> None:
        """`directory`: short (unix socket names hold 107 bytes) and empty; it is given to `account`.

        writes_down: keep what is said to QEMU, for `said_to_qemu`. huge_pages: its guests may lie in the
        host's huge pages, by a mount that nobody else sees; needs root.
        """
        self.directory = directory
        self.host_uuid = str(uuid.uuid4())
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: libvirt.virConnect | None = None
        self._huge_pages = self.directory / "h" if huge_pages else None
        self._write_configuration(writes_down)

    def _write_configuration(self, writes_down: bool) -> None:
        configuration = self.directory / "c" / "libvirt"
        configuration.mkdir(parents=True)
        lines = [f'host_uuid = "{self.host_uuid}"']
        if writes_down:
            lines += ['log_filters = "2:qemu.qemu_monitor"', f'log_outputs = "2:file:{self._monitor_log}"']
        (configuration / "libvirtd.conf").write_text("\n".join(lines) + "\n")
        # Consoles go straight to their files: no virtlogd.
        settings = ['stdio_handler = "file"']
        if self._huge_pages is not None:
            settings.append(f'hugetlbfs_mount = "{self._huge_pages}"')
        (configuration / "qemu.conf").write_text("\n".join(settings) + "\n")
        for name in ("r", "d", "k", "h"):
            (self.directory / name).mkdir(mode=0o700)
        for path in (self.directory, *self.directory.rglob("*")):
            self._account.own(path)

    @property
    def _monitor_log(self) -> Path:
        return self.directory / "monitor.log"

    def said_to_qemu(self) -> list[tuple[float, str]]:
        """Every QMP command that this libvirt has sent to any QEMU: seconds since the epoch, its name."""
        text = self._monitor_log.read_text(errors="replace")
        return [
            (datetime.fromisoformat(stamp).timestamp(), command) for stamp, command in _SENT.findall(text)
        ]

    @property
    def socket(self) -> Path:
        """The daemon's socket."""
        return self.directory / "r" / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        """For anybody who may open the socket: the account itself, and root."""
        return f"qemu+unix:///session?socket={self.socket}"

    @property
    def pid(self) -> int:
        """The daemon's pid. Raises SessionError when it is not running."""
        if self._process is None:
            raise SessionError(f"The libvirt of {self.directory} is not running.")
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which `qemu:///session` means this daemon (for the same account)."""
        inherited = {name: value for name, value in os.environ.items() if name in ("LANG", "TZ", "TERM")}
        return {
            **inherited,
            "PATH": _PATH,
            "HOME": str(self.directory),
            "XDG_CONFIG_HOME": str(self.directory / "c"),
            "XDG_RUNTIME_DIR": str(self.directory / "r"),
            "XDG_DATA_HOME": str(self.directory / "d"),
            "XDG_CACHE_HOME": str(self.directory / "k"),
        }

    def start(self, limit: float = 30.0) -> None:
        """Start the daemon and wait until it answers. Raises SessionError with the end of its log."""
        configuration = self.directory / "c" / "libvirt" / "libvirtd.conf"
        with (self.directory / "libvirtd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._mounting, *self._account.prefix, "libvirtd", "--config", str(configuration)],
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we end the daemon in our own order
            )
        prefer(self._process.pid, GUESTS_NICE)
        deadline = time.monotonic() + limit
        while True:
            try:
                self.connection()
                return
            except libvirt.libvirtError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise SessionError(
                        f"libvirtd did not answer on {self.socket} within {limit:g} s ({error}). "
                        f"It said:\n{self._log_tail()}"
                    ) from error
            time.sleep(0.05)

    @property
    def _mounting(self) -> tuple[str, ...]:
        """What to put before a command that is to see huge pages: they go with the last of its processes."""
        if self._huge_pages is None:
            return ()
        options = f"uid={self._account.uid},gid={self._account.gid},mode=0700"
        return ("unshare", "--mount", "sh", "-c", _MOUNT_AND_RUN, "sh", options, str(self._huge_pages))

    def _log_tail(self) -> str:
        return (self.directory / "libvirtd.log").read_text(errors="replace")[-2000:]

    def connection(self) -> libvirt.virConnect:
        """The lab's own connection, opened again when it has been lost."""
        if self._connection is not None:
            try:
                self._connection.getLibVersion()  # isAlive() does not notice that the daemon hung up
            except libvirt.libvirtError:
                self._connection = None
        if self._connection is None:
            self._connection = libvirt.open(self.uri)
        return self._connection

    def stop(self, number: signal.Signals = signal.SIGTERM, limit: float = 10.0) -> None:
        """End the daemon; its guests go on (that is libvirt's way). `start` brings it back, with them."""
        if self._connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._connection.close()
            self._connection = None
        if self._process is None:
            return
        pid = self._process.pid
        send([pid], signal.SIGCONT)
        send([pid], number)
        if wait_gone([pid], limit):
            send([pid], signal.SIGKILL)
        self._process.wait()
        self._process = None
