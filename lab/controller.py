"""The product under test: a real `dynmem run` on a lab's libvirt, and the other commands beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from host_controller.api.client import Client, ControllerUnreachable
from host_controller.units import MIB
from host_controller.verify.processes import GUESTS_NICE, prefer
from lab.code_disk import REPOSITORY
from lab.errors import LabError
from lab.guest import Guest
from lab.status_text import describe

DYNMEM = Path(sys.executable).parent / "dynmem"
POLL = 0.05


class ControllerError(LabError):
    """The controller did not do what a test waited for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a test gives a guest, MiB; the defaults fit a lab guest of 512 MiB."""

    startup: int = 512
    minimum: int = 160
    maximum: int = 1024
    buffer: int = 20
    weight: int = 100
    growth: str = "hotadd"
    trust: str = "guest"


@dataclass(frozen=True, slots=True)
class SentCommand:
    """A command that the controller sent, from its own recording: `at` is CLOCK_MONOTONIC, seconds."""

    at: float
    kind: str
    vm: str
    data: dict[str, Any]


def dynmem(*arguments: str, limit: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run the CLI as a user would; never raises for an exit code."""
    command = [str(DYNMEM), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=limit, check=False)


def enable(guest: Guest, limits: Limits | None = None) -> str:
    """`dynmem enable` on a guest that is off; returns what it said."""
    limits = limits or Limits()
    sizes = [f"--{name}={getattr(limits, name)}M" for name in ("startup", "minimum", "maximum")]
    others = [f"--{name}={getattr(limits, name)}" for name in ("buffer", "weight", "growth", "trust")]
    done = dynmem("enable", guest.name, *sizes, *others, "--connect", guest.session.uri)
    if done.returncode != 0:
        raise ControllerError(f"dynmem enable {guest.name} exited {done.returncode}: {done.stderr}")
    return done.stdout


class Controller:
    """A controller process. Use as a context manager; `capacity` and everything else in MiB and seconds."""

    def __init__(
        self,
        directory: Path,
        uri: str,
        capacity: int,
        *,
        shrink_after: float = 4.0,
        settle: float = 1.0,
        unplug_after: float = 3600.0,
        reset_wait: float = 20.0,
        overhead_floor: int = 128,
        keep_ready: int | None = None,
        history: Path | None = None,
        meminfo: Path = Path("/proc/meminfo"),
        more: str = "",
        program: tuple[str, ...] = (str(DYNMEM), "run"),
    ) -> None:
        """Quicker to shrink than by default, since tests wait for it; `more` is TOML for the file's end.

        `program` is what takes `--config` and `--record`; another one may follow it at the next start.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.capacity_bytes = capacity * MIB
        self.config = directory / "dynmem.toml"
        self.config.write_text(
            f"""
[libvirt]
uri = "{uri}"
[host]
capacity = "{capacity}MiB"
overhead_floor = "{overhead_floor}MiB"
{"" if keep_ready is None else f'keep_ready = "{keep_ready}MiB"'}
[timing]
shrink_after = {shrink_after}
settle = {settle}
unplug_after = {unplug_after}
reset_wait = {reset_wait}
[paths]
state_dir = "{directory}/run"
history = "{history or directory / "history.sqlite"}"
meminfo = "{meminfo}"
{more}
"""
        )
        self.client = Client(str(directory / "run" / "control.sock"))
        self.starts = 0
        self.program = program
        self.environment: dict[str, str] = {}
        """Beside the test's own, for the next start."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id. Raises ControllerError: it does not run."""
        if self._process is None:
            raise ControllerError("The controller is not running.")
        return self._process.pid

    @property
    def recording(self) -> Path:
        """What it has written down since its last start."""
        return self.directory / f"recording-{self.starts}.jsonl"

    def start(self, *, wait: bool = True) -> None:
        """Start it; with `wait`, until it answers and has connected."""
        self.starts += 1
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*self.program, "--config", str(self.config)),
                    *("--record", str(self.recording)),
                ],
                cwd=REPOSITORY,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the test
            )
        prefer(self._process.pid, GUESTS_NICE)
        if wait:
            self.wait_for(lambda status: bool(status["host"]["connected"]), 60, "a connection to libvirt")

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, as systemd would."""
        self._end(signal.SIGTERM)

    def hang_up(self) -> None:
        """SIGHUP: read the configuration again."""
        os.kill(self.pid, signal.SIGHUP)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    # Questions.

    def status(self) -> dict[str, Any]:
        """`GET /v1/status`."""
        answer: dict[str, Any] = self.client.get("status")
        return answer

    def vm(self, guest: Guest) -> dict[str, Any]:
        """One VM of the status."""
        answer: dict[str, Any] = self.client.get("vms", guest.name)
        return answer

    def wait_for(
        self, predicate: Callable[[dict[str, Any]], bool], limit: float, what: str
    ) -> dict[str, Any]:
        """The first status for which the predicate holds. Raises ControllerError with the last one seen."""
        deadline = time.monotonic() + limit
        seen: dict[str, Any] | None = None
        while True:
            try:
                seen = self.status()
                if predicate(seen):
                    return seen
            except ControllerUnreachable as error:
                if self._process is None or self._process.poll() is not None:
                    raise ControllerError(f"The controller has ended.\n{self.log_tail()}") from error
            if time.monotonic() > deadline:
                raise ControllerError(f"Not within {limit:g} s: {what}.\n{describe(seen)}\n{self.log_tail()}")
            time.sleep(POLL)

    def wait_vm(
        self, guest: Guest, predicate: Callable[[dict[str, Any]], bool], limit: float, what: str
    ) -> dict[str, Any]:
        """As `wait_for`, for one VM; a VM that is not there yet does not count."""

        def holds(status: dict[str, Any]) -> bool:
            return any(vm["name"] == guest.name and predicate(vm) for vm in status["vms"])

        status = self.wait_for(holds, limit, f"{guest.name}: {what}")
        found: dict[str, Any] = next(vm for vm in status["vms"] if vm["name"] == guest.name)
        return found

    def wait_managed(self, *guests: Guest, limit: float = 120.0) -> None:
        """Until each guest is live and its agent reports."""
        for guest in guests:
            self.wait_vm(
                guest,
                lambda vm: vm["phase"] == "live" and vm["agent"] is not None,
                limit,
                "live with an agent",
            )

    def wait_at_rest(self, *guests: Guest, limit: float = 60.0, quiet: float = 3.0) -> dict[str, Any]:
        """Until no balloon target or DIMM has been sent to anybody for `quiet` seconds."""
        names = {guest.name for guest in guests}
        calm_since = time.monotonic()
        figures: object = None

        def settled(status: dict[str, Any]) -> bool:
            nonlocal calm_since, figures
            now = [
                (
                    *(vm["name"], vm["target_bytes"], vm["actual_bytes"], vm["dimms"], vm["operation"]),
                    *(vm["virtio_mem_bytes"], vm["virtio_mem_requested_bytes"]),
                )
                for vm in status["vms"]
                if vm["name"] in names
            ]
            if now != figures:
                figures, calm_since = now, time.monotonic()
            return time.monotonic() - calm_since >= quiet

        return self.wait_for(settled, limit, "nothing moves")

    def _recorded(self) -> Iterator[dict[str, Any]]:
        """What it has written down since its last start."""
        for line in self.recording.read_text().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return  # the line that is just being written

    def sent(self, *kinds: str, vm: str | None = None, since: float = 0.0) -> Iterator[SentCommand]:
        """What it has sent since its last start; `vm` is a UUID. The newest second may not be written yet."""
        for record in self._recorded():
            for command in record.get("decide", ()):
                data = command["data"]
                wanted = (not kinds or command["command"] in kinds) and (vm is None or data["vm"] == vm)
                if wanted and record["at"] >= since:
                    yield SentCommand(record["at"], command["command"], data["vm"], data)

    def heard(self, kind: str, vm: str | None = None) -> list[float]:
        """When it took in events of that kind since its last start, of one VM by its UUID or of all."""
        return [
            float(record["at"])
            for record in self._recorded()
            if record.get("event") == kind and vm in (None, record["data"].get("vm"))
        ]

    def wait_sent(self, *kinds: str, vm: str, since: float = 0.0, limit: float = 60.0) -> list[SentCommand]:
        """As `sent`, once there is at least one; the recording is written out every second."""
        found: list[SentCommand] = []

        def written(_: dict[str, Any]) -> bool:
            found.extend(self.sent(*kinds, vm=vm, since=since))
            return bool(found)

        self.wait_for(written, limit, f"one of {kinds} sent")
        return found

    def log_tail(self, lines: int = 20) -> str:
        """The end of its log, for error messages."""
        text = (self.directory / "log").read_text(errors="replace")
        return "The controller's log ends:\n  " + "\n  ".join(text.splitlines()[-lines:])
