"""OpenStack's Placement, the real service on loopback, with a database that is a file in memory.

One process serves: SQLite refuses what two of them write at the same time. Clouds have other databases.
"""

import http.client
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self

import psutil  # type: ignore[import-untyped]

from lab.cache import build_once, key_of
from lab.cluster import remains
from lab.code_disk import REPOSITORY
from lab.errors import LabError

PINS: Final = REPOSITORY / "lab/placement-pins.txt"
VERSION: Final = "placement 1.39"
TOKEN: Final = "admin"
"""Which its `noauth2` takes for anybody who may do anything."""
START_SECONDS: Final = 60.0
MEMORY, PROCESSORS = "MEMORY_MB", "VCPU"


class PlacementService:
    """Use as a context manager. Its exit ends it, and its database is gone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        remains.remove_crashed()
        place = build_once("placement", key_of(PINS.read_bytes(), sys.version), _install)
        self._directory = Path(
            tempfile.mkdtemp(prefix=f"{remains.name_of(os.getpid())}-", dir=remains.MEMORY)
        )
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(place),
            "OS_API__AUTH_STRATEGY": "noauth2",
            "OS_PLACEMENT_DATABASE__CONNECTION": f"sqlite:///{self._directory}/placement.db",
            "OS_PLACEMENT__RANDOMIZE_ALLOCATION_CANDIDATES": "false",
        }
        try:
            self._python("-c", "from placement.cmd.manage import main; main()", "db", "sync")
            self._python("-c", "import placement.wsgi.api")  # its first start fills tables that `stock` needs
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the service, and remove its database."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def start(self) -> None:
        """Serve. Raises LabError: it does not."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        log = self._directory / "log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [
                    "setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "gunicorn",
                    *("--workers", "1", "--bind", f"127.0.0.1:{self._port}"),
                    *("--log-level", "warning", "placement.wsgi.api:application"),
                ],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise LabError(f"Placement does not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)

    @property
    def endpoint(self) -> str:
        """Its address, as Keystone's catalogue would have it."""
        return f"http://127.0.0.1:{self._port}"

    def processor_seconds(self) -> float:
        """Seconds of a processor that its worker has used."""
        assert self._process is not None
        times = [one.cpu_times() for one in psutil.Process(self._process.pid).children()]
        return float(sum(one.user + one.system for one in times))

    def candidates(self, memory_mib: int) -> set[str]:
        """UUIDs of the providers that an instance of so much memory could go to."""
        found = self._get(f"/allocation_candidates?resources={MEMORY}:{memory_mib}")
        return {one for request in found["allocation_requests"] for one in request["allocations"]}

    def stock(self, hosts: dict[str, list[str]], total_mib: int, reserved_mib: int, vm_mib: int) -> None:
        """Providers by their names, with instances of one size by their UUIDs.

        Before it serves, and not by its API: that would take minutes for a thousand.
        """
        with closing(sqlite3.connect(self._directory / "placement.db")) as base, base:
            for table, name in (
                ("projects", "external_id"),
                ("users", "external_id"),
                ("consumer_types", "name"),
            ):
                _insert(base, table, {"id": 1, name: "lab"})
            classes = dict(base.execute("SELECT name, id FROM resource_classes"))
            inventories = (
                (classes[MEMORY], {"total": total_mib, "reserved": reserved_mib, "allocation_ratio": 1.0}),
                (classes[PROCESSORS], {"total": 64, "reserved": 0, "allocation_ratio": 16.0}),
            )
            for number, (name, vms) in enumerate(hosts.items(), 1):
                here = {"resource_provider_id": number}
                row: dict[str, object] = {"id": number, "uuid": uuid_of(name), "name": name, "generation": 1}
                _insert(base, "resource_providers", row | {"root_provider_id": number})
                for kind, sizes in inventories:
                    unit = {"min_unit": 1, "max_unit": sizes["total"], "step_size": 1}
                    _insert(base, "inventories", here | {"resource_class_id": kind} | sizes | unit)
                for vm in vms:
                    owner: dict[str, object] = {
                        "project_id": 1,
                        "user_id": 1,
                        "generation": 1,
                        "consumer_type_id": 1,
                    }
                    _insert(base, "consumers", {"uuid": vm} | owner)
                    for kind, used in ((classes[MEMORY], vm_mib), (classes[PROCESSORS], 2)):
                        _insert(
                            base,
                            "allocations",
                            here | {"consumer_id": vm, "resource_class_id": kind, "used": used},
                        )

    def _answers(self) -> bool:
        try:
            return "versions" in self._get("/")
        except OSError:
            return False

    def _get(self, path: str) -> dict[str, Any]:
        headers = {"X-Auth-Token": TOKEN, "OpenStack-API-Version": VERSION, "Accept": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=START_SECONDS)) as one:
            one.request("GET", path, headers=headers)
            answer = one.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise LabError(f"Placement refuses {path}: HTTP {answer.status}: {text[:500]!r}")
        found: dict[str, Any] = json.loads(text)
        return found

    def _python(self, *words: str) -> None:
        done = subprocess.run([sys.executable, *words], env=self._environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(f"Placement's database is not made: {done.stderr[-2000:]}")


def uuid_of(provider: str) -> str:
    """A provider's UUID."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, provider))


def _insert(base: sqlite3.Connection, table: str, row: dict[str, object]) -> None:
    """A row, with when it was made: the service cannot list what lacks that beside what has it."""
    names, values = ", ".join(row), ", ".join("?" * len(row))
    command = f"INSERT INTO {table} (created_at, {names}) VALUES (datetime(), {values})"
    base.execute(command, tuple(row.values()))


def _install(directory: Path) -> None:
    command = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    done = subprocess.run(
        [sys.executable, *command, "--target", str(directory), "-r", str(PINS)],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise LabError(f"Placement is not installed: {done.stderr[-2000:]}")
