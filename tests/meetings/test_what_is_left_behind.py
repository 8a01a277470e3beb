"""Upgrades and downgrades: each release goes on with state, history and recordings of the other."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from host_controller.api.client import Client
from tests.meetings.release import PRESENT, Release, Serving

SINCE_0_1_0 = ("VmsAwaited",)
"""Events that 0.1.0 does not know: it stops at them, as docs/compatibility.md says."""


@pytest.fixture(params=["upgrade", "downgrade"])
def pair(request: pytest.FixtureRequest, old: Release, new: Release) -> tuple[Release, Release]:
    return (old, new) if request.param == "upgrade" else (new, old)


def test_what_was_paused_stays_paused_and_what_happened_is_still_told(
    pair: tuple[Release, Release], tmp_path: Path
) -> None:
    before, after = pair
    with Serving(before, tmp_path) as serving:
        assert before.dynmem("pause", "web", "--socket", str(serving.socket)).returncode == 0
        serving.lasts(10.0)
    entries = numbers_of(tmp_path / "history.sqlite")
    assert entries
    with Serving(after, tmp_path) as serving:
        client = Client(str(serving.socket))
        paused = {vm["name"]: vm["paused"] for vm in client.get("status")["vms"]}
        assert paused == {"web": True, "db": False}
        history = client.get("vms", "db", "history", since="1h")
        assert history["samples"]
    assert entries < numbers_of(tmp_path / "history.sqlite")
    assert list(tmp_path.glob("*.broken")) == []
    assert "is left out" not in (tmp_path / "log").read_text()
    assert "nothing is known" not in (tmp_path / "log").read_text()


def numbers_of(history: Path) -> set[int]:
    with closing(sqlite3.connect(history)) as db:
        return {number for (number,) in db.execute("SELECT number FROM entries")}


def test_a_recording_of_one_release_is_read_by_the_other(
    pair: tuple[Release, Release], tmp_path: Path
) -> None:
    before, after = pair
    with Serving(before, tmp_path):
        pass
    recording = tmp_path / "recording.jsonl"
    lines = recording.read_text().splitlines(keepends=True)
    if after.tree != PRESENT:
        lines = [line for line in lines if not any(f'"event":"{event}"' in line for event in SINCE_0_1_0)]
        recording.write_text("".join(lines))
    assert after.ask("replay", str(recording)) == {"lines": len(lines) - 1, "damaged": 0}


def test_a_state_of_the_next_release_is_used_as_far_as_it_is_understood(new: Release, tmp_path: Path) -> None:
    with Serving(new, tmp_path) as serving:
        assert new.dynmem("pause", "web", "--socket", str(serving.socket)).returncode == 0
        serving.lasts(2.0)
    state = tmp_path / "run/state.json"
    told = json.loads(state.read_text())
    told["moods"] = {"web": "blue"}
    told["reservations"] = [{"name": "x", "size_bytes": "as much as it takes", "until": 1.0}]
    state.write_text(json.dumps(told))
    with Serving(new, tmp_path) as serving:
        assert Client(str(serving.socket)).get("vms", "web")["paused"] is True


def test_a_history_of_the_next_release_is_left_as_it_is_and_ours_is_beside_it(
    new: Release, tmp_path: Path
) -> None:
    theirs = tmp_path / "history.sqlite"
    with closing(sqlite3.connect(theirs)) as db:
        db.executescript(
            "PRAGMA user_version = 2; CREATE TABLE moods (vm TEXT); INSERT INTO moods VALUES ('web');"
        )
    kept = theirs.read_bytes()
    with Serving(new, tmp_path) as serving:
        assert Client(str(serving.socket)).get("vms", "web", "history", since="1h")["samples"]
    assert theirs.read_bytes() == kept
    assert (tmp_path / "history-v1.sqlite").exists()
    assert list(tmp_path.glob("*.broken")) == []


def test_a_recording_of_the_next_release_is_read_as_far_as_it_is_understood(
    new: Release, tmp_path: Path
) -> None:
    with Serving(new, tmp_path):
        pass
    recording = tmp_path / "recording.jsonl"
    newer = tmp_path / "newer.jsonl"
    shutil.copy(recording, newer)
    first, *rest = newer.read_text().splitlines(keepends=True)
    header = json.loads(first)
    header["settings"]["gravity"] = 9.81
    strange = json.dumps({"at": 1.0, "event": "MoonRose", "data": {}}) + "\n"
    newer.write_text("".join((json.dumps(header) + "\n", strange, *rest)))
    assert new.ask("replay", str(newer)) == {"lines": len(rest), "damaged": 1}
