"""The lab: image, private libvirt and guests under one roof, of which nothing is left afterwards."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Self

import libvirt

from host_controller.verify.accelerator import find_accelerator
from host_controller.verify.processes import processes_of, send, start_time, wait_gone
from lab.account import ordinary_account
from lab.code_disk import make_code_disk
from lab.domain import GuestSpec
from lab.errors import LabError
from lab.guest import Guest
from lab.image import Image, ensure_image
from lab.session import Session

_ROOT = Path("/tmp")  # not $TMPDIR: the name of a unix socket holds 107 bytes
_PREFIX = "dynmem-lab-"


class Lab:
    """Use as a context manager: whatever happens inside, no guest, daemon or file is left but the cache."""

    def __init__(self, *, with_image: bool = True) -> None:
        """with_image: what boots can be made; without, only what stands still."""
        self._with_image = with_image
        self.accelerator = find_accelerator()
        self.account = ordinary_account()
        self.guests: list[Guest] = []
        self.sessions: list[Session] = []
        self._old_sigterm: Any = None

    def __enter__(self) -> Self:
        libvirt.registerErrorHandler(lambda *_: None, None)  # libvirt prints every error to stderr otherwise
        remove_crashed_labs()
        if self._with_image:
            self.image = ensure_image()
        if threading.current_thread() is threading.main_thread():
            self._old_sigterm = signal.signal(signal.SIGTERM, _exit_on_signal)
        self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_ROOT))
        try:
            (self.directory / "owner").write_text(f"{os.getpid()} {start_time(os.getpid())}")
            self.directory.chmod(0o755)
            if self._with_image:
                self.code_disk = self.directory / "code.ext4"
                make_code_disk(self.code_disk, self.image.initrd)
            self.session = self.new_session()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def new_session(self, *, writes_down: bool = False, huge_pages: bool = False) -> Session:
        """Another private libvirt, as if on another host (its own directories and host UUID), started.

        writes_down: keep what it says to QEMU (`Session.said_to_qemu`). huge_pages: see Session.
        """
        directory = self.directory / f"s{len(self.sessions)}"
        directory.mkdir()
        session = Session(directory, self.account, writes_down=writes_down, huge_pages=huge_pages)
        self.sessions.append(session)
        session.start()
        return session

    def guest(
        self,
        spec: GuestSpec,
        session: Session | None = None,
        code_disk: Path | None = None,
        image: Image | None = None,
    ) -> Guest:
        """A guest, defined and not started. The name of a guest that was destroyed may be used again.

        code_disk: another than the lab's own, with another release's agent. image: of another release.
        """
        directory = self.directory / "g" / spec.name
        if any(guest.name == spec.name and guest.running() for guest in self.guests):
            raise LabError(f"There is a running guest {spec.name!r} in this lab already.")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.account.own(directory)
        guest = Guest(
            spec,
            session or self.session,
            self.account,
            self.accelerator,
            image or self.image,
            code_disk or self.code_disk,
            directory,
        )
        guest.define()
        self.guests.append(guest)
        return guest

    def close(self) -> None:
        """End every process of this lab and remove its directory. libvirt is not asked: it may hang."""
        with _undisturbed():
            for guest in self.guests:
                guest.workload.close()
            _end_processes(self.directory)
            for session in self.sessions:
                session.stop()
            shutil.rmtree(self.directory, ignore_errors=True)
        if self._old_sigterm is not None:
            signal.signal(signal.SIGTERM, self._old_sigterm)
            self._old_sigterm = None


def remove_crashed_labs() -> None:
    """End the guests and daemons, and remove the files, of labs whose owner no longer lives."""
    for directory in _ROOT.glob(f"{_PREFIX}*"):
        try:
            if directory.stat().st_uid != os.geteuid():
                continue
            pid, _, started = (directory / "owner").read_text().partition(" ")
        except OSError:
            continue  # another lab that is just being made
        if str(start_time(int(pid))) != started:
            _end_processes(directory)
            shutil.rmtree(directory, ignore_errors=True)


def _end_processes(directory: Path) -> None:
    """Guests first and by SIGKILL (their disks are thrown away), then daemons; again until none is left."""
    for _ in range(5):
        pids = processes_of(directory)
        if not pids:
            return
        send(pids, signal.SIGKILL)
        wait_gone(pids, limit=10.0)
    raise LabError(f"Processes {processes_of(directory)} of {directory} do not end.")


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the cleaning up is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.signal(number, lambda got, _: waiting.append(got)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        for number in waiting:
            signal.raise_signal(number)
