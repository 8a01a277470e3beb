"""One real guest: defined, started, asked, reset and removed."""

import contextlib
import re
import shutil
import signal
import subprocess
import time
from copy import copy
from pathlib import Path
from typing import Self

import libvirt

from host_controller.verify.accelerator import Accelerator
from host_controller.verify.processes import GUESTS_NICE, prefer, processes_of, send, wait_gone
from host_controller.verify.qmp import Qmp
from host_controller.verify.workload import Workload
from lab.account import Account
from lab.domain import GuestSpec, domain_xml
from lab.errors import GuestError
from lab.image import Image
from lab.session import Session

_NAME = re.compile(r"[a-z][a-z0-9-]{0,23}")
BOOT_LIMIT = 120.0  # seconds; a guest boots in a tenth of it when it has a core to itself


class Guest:
    """A guest of one session. `workload` commands it from the inside, `qmp()` is the test's own monitor."""

    def __init__(
        self,
        spec: GuestSpec,
        session: Session,
        account: Account,
        accelerator: Accelerator,
        image: Image,
        code_disk: Path,
        directory: Path,
    ) -> None:
        """Made by `Lab.guest`. `directory` exists and is the guest's own.

        `place`, in it, holds what belongs to the host it runs on: a guest that is moved gets another one.
        """
        if not _NAME.fullmatch(spec.name):
            raise GuestError(f"{spec.name!r} is no name for a guest: letters, digits and -, at most 24.")
        self.spec = spec
        self.session = session
        self.directory = directory
        self.place = directory / "h0"
        self.started_at = 0.0
        self.boot_seconds: float | None = None
        self._account = account
        disk = directory / "disk.qcow2"
        self.xml = domain_xml(spec, accelerator, image, code_disk, disk, self.place)
        self._make_place()
        self._make_disk(image.root_disk, disk)

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.spec.name

    def on(self, session: Session) -> Self:
        """The same guest as it will be on another host: `migration.py` takes it there."""
        other = copy(self)
        other.session = session
        number = sum(one.name.startswith("h") for one in self.directory.iterdir())
        other.place = self.directory / f"h{number}"
        other.xml = self.xml.replace(f"{self.place}/", f"{other.place}/")
        other._make_place()
        return other

    def _make_place(self) -> None:
        self.place.mkdir()
        self._account.own(self.place)
        self.workload = Workload(self.name, self.place / "lab.sock", self.console_tail)

    def _make_disk(self, base: Path, disk: Path) -> None:
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(disk)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise GuestError(f"The disk of guest {self.name} could not be made: {result.stderr.strip()}")
        self._account.own(disk)

    def define(self) -> None:
        """Define the domain (persistent), or bring an existing definition back to the plain one."""
        self.session.connection().defineXML(self.xml)

    def redefine(self, xml: str) -> None:
        """Be another domain than the plain one, before the first start."""
        self.domain().undefine()
        self.xml = xml
        self.define()

    def domain(self) -> libvirt.virDomain:
        """The domain, on the lab's own connection."""
        return self.session.connection().lookupByName(self.name)

    def start(self) -> None:
        """Start it; define it first if need be. Returns when QEMU runs: `wait_booted` waits for more."""
        try:
            domain = self.domain()
        except libvirt.libvirtError:
            self.define()
            domain = self.domain()
        self.boot_seconds = None
        self.started_at = time.monotonic()
        domain.create()
        prefer(self.qemu_pid(), GUESTS_NICE)

    def wait_booted(self, limit: float = BOOT_LIMIT) -> float:
        """Until the workload server answers; returns seconds since start or reset. Raises WorkloadError."""
        self.workload.wait_answering(limit)
        self.boot_seconds = time.monotonic() - self.started_at
        return self.boot_seconds

    def reset(self) -> None:
        """Pull the reset line: QEMU goes on, the guest boots anew."""
        self.workload.close()
        self.started_at = time.monotonic()
        self.domain().reset()

    def stop(self) -> None:
        """Pull the plug; the definition stays."""
        self.workload.close()
        domain = self.domain()
        if domain.isActive():
            domain.destroy()

    def remove(self) -> None:
        """Whatever state it is in, leave no QEMU, no definition and no file of it; waits for no guest."""
        self.workload.close()
        send(self._pids(), signal.SIGKILL)
        wait_gone(self._pids(), limit=10.0)
        with contextlib.suppress(libvirt.libvirtError):
            self.stop()
        with contextlib.suppress(libvirt.libvirtError):
            self.domain().undefine()
        shutil.rmtree(self.directory, ignore_errors=True)

    def running(self) -> bool:
        """Whether its QEMU runs."""
        return bool(self._pids())

    def qemu_pid(self) -> int:
        """The pid of its QEMU. Raises GuestError when there is none."""
        pids = self._pids()
        if len(pids) != 1:
            raise GuestError(
                f"Guest {self.name} has {len(pids)} QEMU processes, not one.\n{self.console_tail()}"
            )
        return pids[0]

    def _pids(self) -> list[int]:
        return processes_of(self.place)

    def qmp(self) -> Qmp:
        """A new connection to the test's own monitor socket: one at a time, close it."""
        return Qmp(self.place / "test.qmp")

    @property
    def observer_socket(self) -> Path:
        """The observer's monitor socket."""
        return self.place / "observer.qmp"

    def console_tail(self, lines: int = 12) -> str:
        """The end of its serial console, for error messages."""
        try:
            text = (self.place / "console.log").read_text(errors="replace")
        except OSError:
            return f"({self.name} has no console yet)"
        return f"Console of {self.name} ends:\n  " + "\n  ".join(text.splitlines()[-lines:])
