"""Answers about what is longer ago than memory reaches, from the history file. Blocking."""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from host_controller.api.schema import EntryView, HistoryView
from host_controller.api.views import sample_view
from host_controller.records.history_file import Reading, StoredEntry


def read_stored(path: Path, wanted: str, since: float) -> bytes | None:
    """A HistoryView in JSON of a VM by name or UUID, from `since` (seconds since 1970) on.

    None when nothing is known of it, or the file cannot be read: history is never worth more than that.
    """
    try:
        reading = Reading(path)
    except sqlite3.Error:
        return None
    try:
        found = reading.find(wanted)
        if found is None:
            return None
        uuid, name = found
        samples = [sample_view(sample, sample.at) for sample in reading.samples(uuid, since)]
        entries = [_entry(one, reading) for one in reading.entries(uuid, since)]
        view = HistoryView(uuid=uuid, name=name, samples=samples, entries=entries, damaged=reading.damaged)
    except sqlite3.Error:
        return None
    finally:
        reading.close()
    return msgspec.json.encode(view) + b"\n"


def _entry(one: StoredEntry, reading: Reading) -> EntryView:
    try:
        detail = msgspec.json.decode(one.detail, type=dict[str, Any]) if one.detail else {}
    except (ValueError, msgspec.DecodeError, RecursionError):
        reading.damaged += 1
        detail = {}
    return EntryView(
        number=one.number,
        at=one.at,
        kind=one.kind,  # type: ignore[arg-type] # looked at by the reading
        topic=one.topic,
        vm=one.vm,
        name=one.name,
        text=one.text,
        detail=detail,
    )
