"""The controller as a process, as systemd runs it: ready, watched, reloaded, stopped.

There are no VMs: libvirt is its test driver.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from host_controller.api.client import Client
from host_controller.units import GIB
from tests.support.ports import free_port
from tests.support.serving import ask

RUN = "from host_controller.cli import main; main()"


class Process:
    """`dynmem run`, and what it tells systemd."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.config = directory / "dynmem.toml"
        self.write()
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(directory / "notify"))
        self._notified.settimeout(0.1)
        self.told: list[str] = []
        environment = os.environ | {
            "NOTIFY_SOCKET": str(directory / "notify"),
            "WATCHDOG_USEC": "30000000",
        }
        environment.pop("WATCHDOG_PID", None)
        self.log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, "run", "--config", str(self.config)],
            env=environment,
            stdout=self.log,
            stderr=self.log,
        )
        self.client = Client(str(directory / "run" / "control.sock"))

    def write(self, more: str = "") -> None:
        self.config.write_text(
            f'[libvirt]\nuri = "test:///default"\n'
            f'[paths]\nstate_dir = "{self.directory}/run"\nhistory = "{self.directory}/history.sqlite"\n'
            f'[http]\nlisten = "127.0.0.1:{self.port}"\n{more}'
        )

    def until(self, condition: Callable[[], Any], what: str, limit: float = 60.0) -> Any:
        end = time.monotonic() + limit
        while not (found := condition()):
            self._listen()
            log = (self.directory / "log").read_text()[-2000:]
            assert time.monotonic() < end, f"not within {limit:g} s: {what}; {self.told}; {log}"
            assert self.process.poll() is None, f"it has ended: {log}"
        return found

    def until_told(self, what: str) -> None:
        self.until(lambda: any(what in one for one in self.told), f"systemd is told {what}")

    def error(self) -> str | None:
        found: str | None = self.client.get("status")["host"]["configuration_error"]
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        self._notified.close()
        self.log.close()

    def _listen(self) -> None:
        try:
            self.told.append(self._notified.recv(4096).decode())
        except TimeoutError:
            return


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    yield process
    process.close()


def test_systemd_is_told_of_start_life_reload_and_end(controller: Process) -> None:
    controller.until_told("READY=1")
    controller.until_told("WATCHDOG=1")
    controller.told.clear()
    controller.process.send_signal(signal.SIGHUP)
    controller.until_told("RELOADING=1")
    controller.until_told("READY=1")
    controller.process.send_signal(signal.SIGTERM)
    assert controller.process.wait(60) == 0
    assert not (controller.directory / "run" / "control.sock").exists()


def test_a_broken_configuration_on_sighup_leaves_the_old_one_in_force_and_says_so(
    controller: Process,
) -> None:
    controller.until_told("READY=1")
    for text, said in (
        ('[host]\ncapacity = "1GiB"\n[timing]\nsettle = "soon"\n', "timing.settle"),
        ('[host]\ncapacity = "1GiB"\n[history]\nenabled = false\n', "history.enabled"),
    ):
        controller.write(text)
        controller.process.send_signal(signal.SIGHUP)
        controller.until(lambda said=said: said in (controller.error() or ""), f"status names {said}")
        assert controller.client.get("status")["host"]["capacity_bytes"] != GIB, "all or nothing"
    controller.write('[host]\ncapacity = "1GiB"\n')
    controller.process.send_signal(signal.SIGHUP)
    controller.until(lambda: controller.error() is None, "the error is gone")
    controller.until(
        lambda: controller.client.get("status")["host"]["capacity_bytes"] == 1 << 30, "it is in force"
    )


def test_metrics_the_page_and_history_are_there_where_configured(controller: Process) -> None:
    controller.until_told("READY=1")
    status, text = ask(controller.port, "/metrics")
    assert status == 200
    assert "dynmem_host_connected 1" in text
    assert ask(controller.port, "/")[0] == 200
    controller.until(lambda: (controller.directory / "history.sqlite").exists(), "history is written")


def test_killed_and_started_again_it_takes_charge_again(controller: Process, tmp_path: Path) -> None:
    controller.until_told("READY=1")
    controller.client.post("pause")
    controller.until(lambda: (tmp_path / "run" / "state.json").exists(), "it is written down")
    controller.process.kill()
    controller.process.wait(60)
    (tmp_path / "notify").unlink()
    again = Process(tmp_path)
    try:
        again.until_told("READY=1")
        assert again.client.get("status")["host"]["paused"]
    finally:
        again.close()
