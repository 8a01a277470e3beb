"""The arbiter's log has a bound, and a disk that is full stops no arbiter."""

import os
from pathlib import Path

import pytest

from host_controller.fleet.bounded_log import BoundedLog


def test_it_goes_on_with_what_is_there_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    BoundedLog(tmp_path / "log").write("first\n")
    BoundedLog(tmp_path / "log").write("second\n")
    assert (tmp_path / "log").read_text() == "first\nsecond\n"
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


def test_it_never_grows_beyond_its_bound_and_keeps_one_older_file(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 100)
    for number in range(1000):
        print(f"line {number}", file=log, flush=True)  # type: ignore[call-overload]
        assert (tmp_path / "log").stat().st_size <= 100
    assert sorted(one.name for one in tmp_path.iterdir()) == ["log", "log.1"]
    assert (tmp_path / "log").read_text().endswith("line 999\n")
    assert (tmp_path / "log.1").stat().st_size <= 100


def test_what_cannot_be_written_is_lost_and_ends_nothing() -> None:
    log = BoundedLog.__new__(BoundedLog)
    log._path, log._largest = Path("/dev/full"), 1 << 20
    log._descriptor = os.open("/dev/full", os.O_WRONLY)
    assert log.write("x" * 100) == 0
    os.close(log._descriptor)


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="log"):
        BoundedLog(tmp_path / "log")


def test_a_log_that_somebody_took_away_is_begun_anew_when_it_is_full(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 100)
    (tmp_path / "log").unlink()
    for number in range(30):
        print(f"line {number}", file=log, flush=True)  # type: ignore[call-overload]
    assert (tmp_path / "log").read_text().endswith("line 29\n")
