"""What happened, on disk: a sink of the journal that hands rows to a thread, which writes them to SQLite.

Nothing here can hold up or end control: rows are put into a bounded queue, and whatever is wrong with the
file or the disk is said once, counted, and tried again a moment later. As long as the queue's length reaches
nothing is lost by that; how much was, and why, is written down with the first row that can be written again.
Whoever kills the process costs the history the last two seconds.

At most 50 MB a day for 100 VMs, so 500 KB a VM, whatever its guest does: samples are thinned (thinning.py),
the two ends of a command are one row, and a VM that does nothing but move, or that makes itself talked of,
gets the rows that its budget allows. Minutes and hours come on top (tier_file.py).
"""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from host_controller.core.model import VmConfig
from host_controller.records.entries import Entry
from host_controller.records.history_file import HistoryFile, Row
from host_controller.records.history_schema import UNREADABLE, is_broken, put_aside
from host_controller.records.samples import Sample
from host_controller.records.thinning import Allowance, Thinner
from host_controller.records.tier_file import KEEP, Keep
from host_controller.records.tiers import Minutes

LARGEST_QUEUE: Final = 20_000
COMMIT_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 5.0
CLEAN_SECONDS: Final = 600.0
LARGEST_UNANSWERED: Final = 1_000
BURST: Final = 300
PER_HOUR: Final = 30
"""Rows about decisions and commands of one VM."""
NOTICES_AT_ONCE: Final = 60
NOTICES_PER_HOUR: Final = 10
"""Rows about what befell one VM: few, unless its guest wants to be talked of."""
KEPT_OF_ESTIMATE: Final = ("lower_bytes", "demand_bytes", "desired_bytes")
MOST_KNOWN: Final = 20_000
"""VMs whose allowances are remembered, running or not: whoever is started again begins with what is left."""

log = structlog.get_logger(__name__)


class History:
    """Writes one controller's journal.

    path: the file; its directory is made. keep_seconds (of the detail), tiers, largest_bytes: what is older,
    or too much, goes.
    wall: seconds since 1970 of a time of the controller's clock. config: of a VM that runs, by UUID. failed:
    called in the thread with what is wrong.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep_seconds: float,
        largest_bytes: int,
        wall: Callable[[float], float],
        tiers: Keep = KEEP,
        config: Callable[[str], VmConfig | None] = lambda uuid: None,
        failed: Callable[[str], None] = lambda problem: None,
    ) -> None:
        self.path = path
        self.problem: str | None = None
        """Why nothing is written now."""
        self.dropped = 0
        """Rows that were lost."""
        self.taken = self.written = 0
        """Rows that were put into the queue, and those that are on disk."""
        self._keep, self._largest_bytes = replace(tiers, samples=keep_seconds), largest_bytes
        self._wall, self._config, self._failed = wall, config, failed
        self._queue: queue.Queue[Row | None] = queue.Queue(LARGEST_QUEUE)
        self._thinners: dict[str, Thinner] = {}
        self._minutes: dict[str, tuple[str, Minutes]] = {}
        """Name and figures of each VM that runs."""
        self._allowances: dict[tuple[str, bool], Allowance] = {}
        self._sent: dict[int, Entry] = {}
        self._moved = self._caught_up = False
        self._told = 0
        """Of the rows that were lost."""
        self._thread = threading.Thread(target=self._write_forever, name="history", daemon=True)
        self._thread.start()

    # --- the sink: called by the controller, never blocks ---

    def entry(self, entry: Entry) -> None:
        """Keep an entry; a command is kept when it has ended."""
        if entry.kind == "command":
            whole = self._joined(entry)
            if whole is None:
                return
            entry = whole
        if entry.vm is not None:
            key = (entry.vm, entry.kind == "notice")
            limits = (NOTICES_AT_ONCE, NOTICES_PER_HOUR) if key[1] else (BURST, PER_HOUR)
            allowance = self._allowances.setdefault(key, Allowance(*limits))
            if len(self._allowances) > MOST_KNOWN:
                del self._allowances[next(iter(self._allowances))]
            if not allowance.take(entry.at):
                return
            if allowance.refused:
                entry = replace(entry, detail=entry.detail | {"left_out_before": allowance.refused})
                allowance.refused = 0
        row = (entry.wall, entry.kind, entry.topic, entry.vm, entry.name, entry.text, _slim(entry.detail))
        self._put("entry", row)
        if entry.topic == "gone" and entry.vm is not None:
            self._thinners.pop(entry.vm, None)
            self._end_minutes(entry.vm)

    def sample(self, uuid: str, name: str, sample: Sample) -> None:
        """Keep a VM's figures if they say something new; the minutes know all of them."""
        at = self._wall(sample.at)
        if self._thinners.setdefault(uuid, Thinner()).wanted(sample):
            self._put("sample", (at, uuid, name, sample))
        known = self._minutes.get(uuid)
        if known is None or known[0] != name:
            known = self._minutes[uuid] = (name, Minutes() if known is None else known[1])
        for span in known[1].add(at, sample):
            self._put("minute", (uuid, name, span, self._config(uuid)))

    def close(self) -> None:
        """Write what is there, for two seconds at most."""
        for uuid in list(self._minutes):
            self._end_minutes(uuid)
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return  # the disk hangs; the thread is a daemon's
        self._thread.join(2.0)

    def _end_minutes(self, uuid: str) -> None:
        name, minutes = self._minutes.pop(uuid, (uuid, Minutes()))
        for span in minutes.close():
            self._put("minute", (uuid, name, span, self._config(uuid)))

    def _put(self, kind: str, row: tuple[Any, ...]) -> None:
        try:
            self._queue.put_nowait((kind, row))
            self.taken += 1
        except queue.Full:
            self.dropped += 1

    def _joined(self, entry: Entry) -> Entry | None:
        ticket = entry.detail.get("ticket")
        if not isinstance(ticket, int):
            return entry
        if "seconds" not in entry.detail:
            if len(self._sent) >= LARGEST_UNANSWERED:
                self._sent.pop(next(iter(self._sent)))
            self._sent[ticket] = entry
            return None
        sent = self._sent.pop(ticket, None)
        return entry if sent is None else replace(entry, detail=sent.detail | entry.detail)

    # --- the thread ---

    def _write_forever(self) -> None:
        file: HistoryFile | None = None
        retry_at = cleaned_at = 0.0
        waiting: list[Row] = []
        """What could not be written yet."""
        going_on = True
        while going_on:
            rows, going_on = self._gather()
            waiting += rows
            now = time.monotonic()
            if file is None and now < retry_at and going_on:
                self._drop(waiting, LARGEST_QUEUE)
                continue
            try:
                file = file or self._open()
                file.write([*waiting, *self._losses()])
                self.written += len(waiting)
                self._told = self.dropped
                waiting.clear()
                if now - cleaned_at > CLEAN_SECONDS:
                    elapsed, cleaned_at = (now - cleaned_at if cleaned_at else 0.0), now
                    file.clean(time.time(), elapsed, self._keep, self._largest_bytes)
                self._say(None)
            except (OSError, *UNREADABLE) as error:
                retry_at = now + RETRY_SECONDS
                self._drop(waiting, LARGEST_QUEUE)
                _close(file)
                file = None
                self._say(f"{self.path}: {error}")
                if is_broken(error):
                    retry_at = 0.0  # another file is begun with the next rows
                    self._drop(waiting, 0)
                    _put_aside(self.path)
            except Exception as error:  # an error of ours about some rows ends no history
                log.error("history cannot deal with some rows", exc_info=error)
                retry_at = now + RETRY_SECONDS
                self._drop(waiting, 0)
                self._caught_up = True
                _close(file)
                file = None
                self._say(f"{self.path}: {type(error).__name__}: {error}")
        self._drop(waiting, 0)
        _close(file)

    def _drop(self, waiting: list[Row], most: int) -> None:
        """Give up the oldest of what waits beyond so many."""
        excess = len(waiting) - most
        if excess > 0:
            del waiting[:excess]
            self.dropped += excess

    def _losses(self) -> list[Row]:
        """What has been lost since that was last written down, as a row."""
        lost = self.dropped - self._told
        if not lost:
            return []
        why = f": {self.problem}" if self.problem else ", for there were too many at once"
        text = f"{lost} rows of the history could not be written{why}"
        return [("entry", (time.time(), "notice", "history", None, None, text, None))]

    def _open(self) -> HistoryFile:
        file = HistoryFile(self.path)
        if file.path != self.path and not self._moved:
            self._moved = True
            problem = f"{self.path} was written by a newer dynmem, or by somebody else: it is left as it is"
            log.error(problem, written=str(file.path))
            self._failed(problem)
        if not self._caught_up:
            # Only now: later the minutes that are being added up would be made twice.
            file.catch_up()
            self._caught_up = True
        return file

    def _gather(self) -> tuple[list[Row], bool]:
        """The rows of the next two seconds, and whether more may come."""
        rows: list[Row] = []
        end = time.monotonic() + COMMIT_SECONDS
        while (left := end - time.monotonic()) > 0:
            try:
                one = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if one is None:
                return rows, False
            rows.append(one)
        return rows, True

    def _say(self, problem: str | None) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        if problem is None:
            log.info("history is written again", file=str(self.path))
        else:
            log.error("history is not written; control goes on", problem=problem)
            self._failed(problem)


def _put_aside(path: Path) -> None:
    try:
        put_aside(path)
    except OSError as error:
        log.error("a broken history could not be put aside", error=str(error))


def _close(file: HistoryFile | None) -> None:
    try:
        if file is not None:
            file.close()
    except sqlite3.Error as error:
        log.warning("history could not be closed", error=str(error))


def _slim(detail: dict[str, object]) -> bytes | None:
    """What is worth its bytes for a week: no empty fields, of an estimate the figures that decide."""
    kept = {key: value for key, value in detail.items() if value not in (None, False) and key != "ticket"}
    estimate = kept.pop("estimate", None)
    if isinstance(estimate, dict):
        kept |= {key: estimate[key] for key in KEPT_OF_ESTIMATE if key in estimate}
    return msgspec.json.encode(kept) if kept else None
