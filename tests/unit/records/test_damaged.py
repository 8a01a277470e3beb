"""What lies on disk may be newer, damaged or somebody else's: it is left out and counted, never harmed."""

import io
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from host_controller.api.schema.history import HistoryView
from host_controller.api.stored_history import read_stored
from host_controller.control.remembered import Remembered
from host_controller.control.state_dir import StateDir
from host_controller.core.interface import Tick, VmConfigChanged
from host_controller.core.model import Limits, Settings, VmConfig
from host_controller.core.operator_events import Reserve
from host_controller.errors import InputError
from host_controller.records.history import History
from host_controller.records.history_file import HistoryFile
from host_controller.records.history_reading import Reading
from host_controller.records.history_schema import SPAN_COLUMNS, put_aside
from host_controller.records.recording import Decided, Recorder, Recording
from host_controller.units import GIB
from tests.support.waiting import until
from tests.unit.records.test_history import entry, sample

NOW = time.time()


def written(path: Path) -> Path:
    file = HistoryFile(path)
    file.write([("sample", (NOW + second, "uuid-1", "web", sample(second, GIB))) for second in range(10)])
    file.write(
        [("entry", (NOW, "notice", "gone", "uuid-1", "web", f"text {n}", b'{"a":1}')) for n in range(10)]
    )
    file.close()
    return path


def spoil(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as db:
        for one in statements:
            db.execute(one)
    db.close()


def contents(directory: Path, prefix: str) -> dict[str, bytes]:
    """Of all files of a name, its log included."""
    return {one.name: one.read_bytes() for one in directory.iterdir() if one.name.startswith(prefix)}


@pytest.mark.parametrize(
    "how",
    [
        "PRAGMA user_version = 2",
        "PRAGMA user_version = 2147483647",
        "PRAGMA user_version = -1",
        "PRAGMA user_version = 0",
    ],
)
def test_a_newer_history_or_somebody_elses_is_never_touched_and_ours_lies_beside_it(
    tmp_path: Path, how: str
) -> None:
    path = written(tmp_path / "history.sqlite")
    newer = sqlite3.connect(path)  # stays open, so that what was written last lies in the log
    newer.execute(how)
    newer.execute("CREATE TABLE future (x)")
    newer.execute("INSERT INTO future VALUES ('precious')")
    newer.commit()
    before = contents(tmp_path, "history.sqlite")
    assert len(before) > 1
    problems: list[str] = []
    kept = History(
        path, keep_seconds=7 * 86400, largest_bytes=GIB, wall=lambda at: NOW + at, failed=problems.append
    )
    kept.entry(entry(1, 1.0))
    until(lambda: kept.written, "it is written beside")
    kept.close()
    assert problems == [f"{path} was written by a newer dynmem, or by somebody else: it is left as it is"]
    after = contents(tmp_path, "history.sqlite")
    after.pop("history.sqlite-shm", None)  # an index of readers, of no content
    assert after == {name: one for name, one in before.items() if not name.endswith("-shm")}
    assert newer.execute("SELECT x FROM future").fetchone() == ("precious",)
    newer.close()
    reading = Reading(path)
    assert [one.text for one in reading.entries(None, 0)] == ["the guest has a use for it"]
    reading.close()
    assert not list(tmp_path.glob("*.broken*"))


def test_a_broken_file_is_put_aside_with_its_log(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"this is not a database, and never was one" * 100)
    Path(f"{path}-wal").write_bytes(b"its log")
    put_aside(path)
    assert (tmp_path / "history.sqlite.broken-wal").read_bytes() == b"its log"
    assert not list(tmp_path.glob("history.sqlite")) + list(tmp_path.glob("history.sqlite-*"))


ROWS: dict[str, tuple[str, int, int]] = {
    "a time that is a text": ("UPDATE entries SET at = 'now' WHERE number = 3", 10, 9),
    "a time that is endless": ("UPDATE entries SET at = 9e999 WHERE number = 3", 10, 9),
    "a time that is no date": ("UPDATE entries SET at = 1e12 WHERE number = 3", 10, 9),
    "a sample's time that is none": ("UPDATE samples SET at = 900000000000000 WHERE rowid_ = 0", 9, 10),
    "a kind of its own": ("UPDATE entries SET kind = 'rumour' WHERE number < 3", 10, 8),
    "a text that is a number": ("UPDATE entries SET text = 7.5, topic = x'ff' WHERE number = 1", 10, 9),
    "a phase that there is not": ("UPDATE samples SET phase = 99 WHERE rowid_ = 0", 9, 10),
    "a phase that is a text": ("UPDATE samples SET phase = 'live' WHERE rowid_ = 0", 9, 10),
    "a negative phase": ("UPDATE samples SET phase = -1 WHERE rowid_ = 0", 9, 10),
    "a negative size": ("UPDATE samples SET goal = -5 WHERE rowid_ = 0", 9, 10),
    "a size past any host": ("UPDATE samples SET goal = 9223372036854775807 WHERE rowid_ = 0", 9, 10),
    "a size that is a text": ("UPDATE samples SET goal = 'much' WHERE rowid_ = 0", 9, 10),
    "a pressure that is a blob": ("UPDATE samples SET pressure = x'00' WHERE rowid_ = 0", 9, 10),
}


@pytest.mark.parametrize(("statement", "samples", "entries"), ROWS.values(), ids=ROWS)
def test_a_damaged_row_is_left_out_and_counted(
    tmp_path: Path, statement: str, samples: int, entries: int
) -> None:
    path = written(tmp_path / "history.sqlite")
    spoil(path, statement.replace("rowid_ = 0", "at = (SELECT min(at) FROM samples)"))
    told = read_stored(path, "web", 0.0)
    assert told is not None
    view = msgspec.json.decode(told, type=HistoryView)
    # What is no number is not found by its time, so it is not even damaged to whoever asks by time.
    assert (len(view.samples), len(view.entries)) == (samples, entries)
    assert view.damaged == 20 - samples - entries


@pytest.mark.parametrize("minute", ["4200000000000000", "10000000000", "'x'"])
def test_a_minute_that_is_no_date_is_damaged(tmp_path: Path, minute: str) -> None:
    path = written(tmp_path / "history.sqlite")
    times = ", ".join(SPAN_COLUMNS[:3])
    spoil(path, f"INSERT INTO minutes (vm, minute, {times}) VALUES (1, {minute}, 60000, 60000, 0)")
    reading = Reading(path)
    assert (reading.minutes("uuid-1", 0.0), reading.damaged) == ([], 1)
    reading.close()


def test_rows_that_lie_in_another_order_than_that_of_time_are_told_in_that_of_time(tmp_path: Path) -> None:
    path, first = written(tmp_path / "history.sqlite"), 29_000_000
    times = ", ".join(SPAN_COLUMNS[:3])
    for minute in range(first, first + 3):
        spoil(path, f"INSERT INTO minutes (vm, minute, {times}) VALUES (1, {minute}, 60000, 60000, 0)")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        oldest = int(db.execute("SELECT min(at) FROM samples").fetchone()[0])
    db.close()
    for was, size in ((first, 4), (oldest, 6)):
        data = path.read_bytes()
        assert was.to_bytes(size, "big") in data
        path.write_bytes(data.replace(was.to_bytes(size, "big"), (was + 1_000_000).to_bytes(size, "big")))
    reading = Reading(path)
    spans, samples = reading.minutes("uuid-1", 0.0), reading.samples("uuid-1", 0.0)
    reading.close()
    assert [one.at / 60 for one in spans] == [first + 1, first + 2, first + 1_000_000]
    assert [one.at for one in samples] == sorted(one.at for one in samples)
    assert len(samples) == 10


@pytest.mark.parametrize(
    "statement",
    [*(one for one, _, _ in ROWS.values() if "samples" in one)]
    + [f"UPDATE samples SET {name} = {value}" for name in ("goal", "assigned", "demand")
       for value in (9223372036854775807, -1, "9e999", "'much'")]
    + [f"UPDATE minutes SET {SPAN_COLUMNS[-1]} = 9223372036854775807", "UPDATE vms SET name = x'ff'"],
)  # fmt: skip
def test_damaged_rows_of_before_keep_nobody_from_writing_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr("host_controller.records.history.COMMIT_SECONDS", 0.05)
    path = written(tmp_path / "history.sqlite")
    spoil(path, statement.replace("rowid_ = 0", "at = (SELECT min(at) FROM samples)"))
    problems: list[str] = []
    kept = History(
        path, keep_seconds=7 * 86400, largest_bytes=GIB, wall=lambda at: NOW + at, failed=problems.append
    )
    kept.entry(entry(1, 1.0))
    until(lambda: kept.written or problems, "it is written")
    kept.close()
    assert problems == []
    assert kept.written == 1


@pytest.mark.parametrize("spot", [b"CREATE TABLE entries", b"CREATE TABLE samples", b"CREATE INDEX"])
def test_a_schema_that_is_damaged_is_a_broken_file_to_readers_and_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spot: bytes
) -> None:
    """SQLite says what it found there, in bytes that are no UTF-8."""
    monkeypatch.setattr("host_controller.records.history.COMMIT_SECONDS", 0.05)
    path = written(tmp_path / "history.sqlite")
    data = path.read_bytes()
    path.write_bytes(data.replace(spot, b"\xa5\xff\xfe" + spot[3:], 1))
    assert read_stored(path, "web", 0.0) is None
    problems: list[str] = []
    kept = History(
        path, keep_seconds=7 * 86400, largest_bytes=GIB, wall=lambda at: NOW + at, failed=problems.append
    )
    kept.entry(entry(1, 1.0))
    until(lambda: kept.written or problems, "it is written, or said")
    kept.close()
    assert (tmp_path / "history.sqlite.broken").exists()


def test_an_error_of_ours_about_some_rows_ends_no_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host_controller.records.history.COMMIT_SECONDS", 0.05)
    monkeypatch.setattr("host_controller.records.history.RETRY_SECONDS", 0.0)
    monkeypatch.setattr(HistoryFile, "catch_up", lambda _: {}["nobody thought of that"])
    path, problems = written(tmp_path / "history.sqlite"), list[str]()
    kept = History(
        path, keep_seconds=7 * 86400, largest_bytes=GIB, wall=lambda at: NOW + at, failed=problems.append
    )
    kept.entry(entry(1, 1.0))
    until(lambda: problems, "it is said")
    kept.entry(entry(2, 2.0))
    until(lambda: kept.written, "what comes later is written")
    kept.close()
    assert "KeyError" in problems[0]
    assert kept.dropped == 1


@pytest.mark.parametrize("detail", ["{", "[1]", "7", "", '{"a":' * 5000])
def test_a_damaged_detail_costs_only_itself(tmp_path: Path, detail: str) -> None:
    path = written(tmp_path / "history.sqlite")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE entries SET detail = ? WHERE number = 1", (detail,))
    db.close()
    told = read_stored(path, "web", 0.0)
    assert told is not None
    view = msgspec.json.decode(told, type=HistoryView)
    assert len(view.entries) == 10
    assert (view.entries[0].detail, view.damaged) == ({}, int(bool(detail)))


def test_text_that_is_no_utf_8_and_a_page_of_garbage_are_no_error(tmp_path: Path) -> None:
    path = written(tmp_path / "history.sqlite")
    spoil(path, "UPDATE entries SET text = CAST(x'ff41' AS TEXT) WHERE number = 2")
    told = read_stored(path, "web", 0.0)
    assert told is not None
    assert msgspec.json.decode(told, type=HistoryView).entries[1].text == "\ufffdA"
    size = path.stat().st_size
    for page in range(1, size // 4096):
        data = bytearray(path.read_bytes())
        data[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
        (tmp_path / "spoilt.sqlite").write_bytes(data)
        told = read_stored(tmp_path / "spoilt.sqlite", "web", 0.0)
        assert told is None or msgspec.json.decode(told, type=HistoryView).damaged >= 0


def recorded(tmp_path: Path) -> bytes:
    recorder = Recorder(tmp_path / "recording", Settings(GIB), 0.0)
    for second in range(10):
        recorder.handled(Tick(), float(second))
        recorder.decided([], float(second))
    recorder.close()
    return (tmp_path / "recording").read_bytes()


LINES = (
    b"",
    b"{",
    b"[]",
    b"7",
    b"null",
    b'{"at":1}',
    b'{"at":"x","decide":[]}',
    b'{"at":1,"event":"Nothing"}',
    b'{"at":1,"event":"GuestSpoke","data":7}',
    b'{"at":1,"decide":7}',
    b'{"at":1,"decide":[{"command":"X"}]}',
    b'{"at":1,"event":"VmGone","data":{"vm":7}}',
    b"\xff\x00",
    b"[" * 9000,
    b'{"at":1e999,"event":"Tick"}',
    b'{"at":1,"event":"GuestSpoke","data":{"vm":"u","line":"\\ud800"}}',
)
ANOTHERS = VmConfigChanged("u", VmConfig("v", "web", Limits(GIB, GIB, GIB)))
HEADS = (
    b"",
    b"{}",
    b"[]",
    b"\xff",
    b'{"dynmem-recording":2}',
    b'{"dynmem-recording":1}',
    b'{"dynmem-recording":1,"at":{},"wall":0,"settings":{}}',
)


@pytest.mark.parametrize(
    "line", [*LINES, msgspec.json.encode({"at": 1, "event": "VmConfigChanged", "data": ANOTHERS})]
)
def test_a_damaged_line_of_a_recording_is_left_out_and_counted(tmp_path: Path, line: bytes) -> None:
    whole = recorded(tmp_path).splitlines(keepends=True)
    recording = Recording(io.BytesIO(b"".join([*whole[:5], line + b"\n", *whole[5:]])))
    assert sum(isinstance(one, Decided) for one in recording) == 10
    assert recording.damaged == 1


@pytest.mark.parametrize("head", HEADS)
def test_what_is_no_recording_is_refused_with_a_sentence(head: bytes) -> None:
    with pytest.raises(InputError):
        Recording(io.BytesIO(head + b"\n"))


GOOD = Remembered(reservations=(Reserve("new", GIB, 5.0),), paused=("u1", "u2"), paused_all=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["reservations"].append({"name": 7}),
        lambda state: state["reservations"].append(None),
        lambda state: state["paused"].append({}),
        lambda state: state.update(paused_all="yes"),
        lambda state: state.update(standing=[{"uuid": "u", "since": "long ago", "until": 1}]),
        lambda state: state.update(standing=7),
        lambda state: state.update(plugs=[]),
        lambda state: state.update(plugs={"u": {"size_bytes": "much"}}),
        lambda state: state.update(sizes=[]),
        lambda state: state.update(sizes={"u": "much"}),
        lambda state: state.update(sizes={"u": -1}),
        lambda state: state.update(plugs={"u": [1, -1]}),
        lambda state: state["reservations"].append(
            {"name": "x", "size_bytes": 1, "expires": 1, "made_bytes": -5}
        ),
    ],
)
def test_a_damaged_entry_of_the_state_costs_only_itself(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    state = json.loads(msgspec.json.encode(GOOD))
    change(state)
    (tmp_path / "state.json").write_text(json.dumps(state))
    directory = StateDir(tmp_path)
    found = directory.open()
    directory.close()
    assert (found.reservations, found.paused) == (GOOD.reservations, GOOD.paused)
    assert directory.problem == f"{tmp_path / 'state.json'}: 1 damaged entries are left out"


@pytest.mark.parametrize("size", [-1, -GIB, 1 << 62])
def test_a_reservation_that_no_vm_has_is_not_kept(tmp_path: Path, size: int) -> None:
    state = json.loads(msgspec.json.encode(GOOD))
    state["reservations"][0]["size_bytes"] = size
    (tmp_path / "state.json").write_text(json.dumps(state))
    directory = StateDir(tmp_path)
    assert directory.open().reservations == ()
    directory.close()
    assert directory.problem == f"{tmp_path / 'state.json'}: 1 damaged entries are left out"


def test_what_was_left_in_another_boot_is_nothing(tmp_path: Path) -> None:
    boot_id = tmp_path / "boot_id"

    def left() -> Remembered:
        directory = StateDir(tmp_path, boot_id)
        found = directory.open()
        directory.close()
        assert directory.problem is None
        return found

    boot_id.write_text("5a0d\n")
    directory = StateDir(tmp_path, boot_id)
    directory.open()
    directory.save(GOOD)
    directory.close()
    assert left() == GOOD
    boot_id.write_text("77c1\n")
    assert left() == Remembered(), "its times are of another clock: a promise would last for days"
    boot_id.unlink()
    state = json.loads((tmp_path / "state.json").read_text())
    del state["boot"]  # as a controller of before writes it
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert left() == GOOD


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"7", b"{", b"\xff", b'{"a\x8d": 1}', b"[" * 9000, b'{"future": {"x": 1}}']
)
def test_a_state_of_any_form_lets_a_controller_begin(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "state.json").write_bytes(text)
    directory = StateDir(tmp_path)
    assert directory.open() == Remembered()
    directory.close()
