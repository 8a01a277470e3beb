"""Faults of the controller's own process and of what it stands on: files, clock, descriptors."""

import os
import random
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from host_controller.units import MIB
from lab.controller import Controller
from lab.lab import Lab
from tests.guests.conftest import RigFactory
from tests.guests.faults.conftest import CAPACITY, FaultFactory, make_ward
from tests.guests.faults.ward import Ward
from tests.guests.heirs import kill_and_inherit

INSTANTS = 20
DISK_MIB = 4
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@pytest.fixture(scope="module")
def small_disk(lab: Lab) -> Iterator[Path | None]:
    """A directory on a file system of its own that is soon full; None where that cannot be had."""
    if os.geteuid() != 0:
        yield None
        return
    directory = lab.directory / "small-disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "small", directory], check=True)
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


@pytest.fixture(scope="module")
def ward(make_shared_rig: RigFactory, small_disk: Path | None) -> Ward:
    """Both have swap: while no controller runs nobody can give them memory."""
    history = None if small_disk is None else small_disk / "history.sqlite"
    rig = make_shared_rig(CAPACITY, shrink_after=2, keep_ready=32, history=history)
    return make_ward(rig, neighbour_swap=512, swap_mib=512)


def test_a_controller_killed_at_any_instant_of_a_move_has_an_heir(ward: Ward, survive: FaultFactory) -> None:
    asserted = "nothing shrinks on without a controller; the next one begins with target := actual"
    rng = random.Random(7)
    name = f"controller kill -9 at {INSTANTS} random instants of a move"
    workload = ward.victim.workload
    with survive(ward, name, asserted, service_down=True) as fault, fault.on():
        took = []
        for number in range(INSTANTS):
            workload.allocate(150, rate=50)
            if number % 2:
                workload.wait_event("done", "memory", 60)
                workload.free()
            until = time.monotonic() + rng.uniform(0.05, 4.0)
            ward.controller.wait_for(lambda _, until=until: time.monotonic() >= until, 60, "a random instant")  # type: ignore[misc]
            took.append(kill_and_inherit(ward.rig, ward.victim, ward.neighbour))
            workload.free()
        fault.saw(f"managed again after {min(took):.1f} to {max(took):.1f} s")


def test_a_full_disk_costs_history_and_nothing_else(
    ward: Ward, survive: FaultFactory, small_disk: Path | None
) -> None:
    if small_disk is None:
        pytest.skip("only root can mount a small disk")
    filler, history = small_disk / "filler", small_disk / "history.sqlite"

    def errors() -> int:
        return int(ward.controller.status()["host"]["errors"].get("history", 0))

    def rows() -> int:
        with sqlite3.connect(f"file:{history}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT count(*) FROM entries").fetchone()[0])

    with survive(
        ward, "history disk full", "counted and said once; control and API go on; written again after"
    ) as fault:
        before = errors()
        with fault.on():
            _fill(filler)
            ward.grow(150)
            ward.victim.workload.free()
            ward.controller.wait_for(lambda _: errors() > before, 60, "counted")
            ward.rig.observer.lasts(5)
            written = rows()
            filler.unlink()
        begun = time.monotonic()
        ward.grow(150)
        ward.controller.wait_for(lambda _: rows() > written, 60, "written again")
        fault.saw(f"{errors() - before} error counted; written again after {time.monotonic() - begun:.0f} s")
        ward.victim.workload.free()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_deleted_configuration_changes_nothing(ward: Ward, survive: FaultFactory) -> None:
    controller = ward.controller
    asserted = (
        "a reload is refused and said, the configuration before stays in force; taken over when it is back"
    )
    with survive(ward, "configuration file deleted", asserted) as fault:
        text = controller.config.read_text()
        with fault.on():
            controller.config.unlink()
            controller.hang_up()
            told = controller.wait_for(
                lambda status: bool(status["host"]["configuration_error"]), 60, "the reload refused"
            )
            assert told["host"]["capacity_bytes"] == CAPACITY * MIB
            ward.rig.observer.lasts(5)
            controller.config.write_text(text)
        controller.hang_up()
        controller.wait_for(lambda status: status["host"]["configuration_error"] is None, 60, "taken over")
        fault.saw("refused, then taken over")


@pytest.mark.parametrize("hours", [1, -1])
def test_a_stepped_clock_changes_no_decision(
    ward: Ward, survive: FaultFactory, hours: int, tmp_path: Path
) -> None:
    if not FAKETIME.exists():
        pytest.skip(f"{FAKETIME} is not there: run `make setup`")
    controller = ward.controller
    step = tmp_path / "step"
    step.write_text("+0\n")
    controller.stop()
    controller.environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(step),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    controller.start()
    asserted = "decisions go by CLOCK_MONOTONIC: no report is stale, nothing ends or begins early"
    try:
        with survive(ward, f"the controller's clock stepped by {hours:+d} h", asserted) as fault:
            ignored = ward.vm()["ignored"]
            with fault.on():
                step.write_text(f"{hours * 3600:+d}\n")
                ward.rig.observer.lasts(6)
                vm = ward.controller.wait_vm(
                    ward.victim, lambda vm: vm["report_age_seconds"] < 6, 60, "heard"
                )
                assert vm["ignored"] == ignored
                assert vm["phase"] == "live"
            fault.saw(f"its clock is {_clock_of(controller) / 3600:+.2f} h off")
    finally:
        controller.stop()
        controller.environment = {}
        controller.start()
        controller.wait_managed(ward.victim, ward.neighbour)


def _clock_of(controller: Controller) -> float:
    """How far the wall clock of programs in the controller's environment is from the true one, seconds."""
    assert "libfaketime" in Path(f"/proc/{controller.pid}/maps").read_text()
    command = [sys.executable, "-c", "import time; print(time.time())"]
    environment = {**os.environ, **controller.environment}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return float(told) - time.time()


def test_exhausted_descriptors_cost_answers_and_nothing_else(ward: Ward, survive: FaultFactory) -> None:
    process = psutil.Process(ward.controller.pid)
    asserted = "memory is moved all the same; the API answers again when there are some"
    with survive(ward, "file descriptors exhausted", asserted) as fault:
        soft, hard = process.rlimit(resource.RLIMIT_NOFILE)
        with fault.on():
            used = process.num_fds()
            process.rlimit(resource.RLIMIT_NOFILE, (used, hard))
            try:
                ward.rig.observer.lasts(15)
            finally:
                process.rlimit(resource.RLIMIT_NOFILE, (soft, hard))
        fault.saw(f"limit {used} for 15 s")
