"""A VM's history for other programs: CSV, JSON lines, OpenMetrics."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from host_controller.api.answer import known
from host_controller.exposition import escape
from host_controller.neutral import neutral

JSON_LINES_VERSION: Final = 1
Lines = Iterator[str]


def csv_lines(answer: dict[str, Any]) -> Lines:
    """A header, and a line for each moment, minute or hour. Sizes are bytes, times seconds since 1970."""
    rows = _rows(answer)
    if not rows:
        return
    names = [name for name in rows[0] if name != "demand_percentiles"]
    yield _csv_line(["name", *names])
    for row in rows:
        yield _csv_line([neutral(answer["name"]), *(row[name] for name in names)])


def json_lines(answer: dict[str, Any]) -> Lines:
    """The VM, then a line for each moment, minute or hour, then its events."""
    head = {key: known(answer[key], None) for key in ("uuid", "name", "step", "limits", "damaged")}
    yield json.dumps({"dynmem-history": JSON_LINES_VERSION} | head)
    kind = "sample" if _in_detail(answer) else "span"
    yield from (json.dumps({kind: row}) for row in _rows(answer))
    yield from (json.dumps({"event": entry}) for entry in answer["entries"])


def openmetrics_lines(answer: dict[str, Any]) -> Lines:
    """Gauges with their times, one family after the other, as OpenMetrics 1.0 wants them."""
    rows = [row for row in _rows(answer) if known(row["at"], None) is not None]
    uuid, vm = (escape(neutral(answer[key])) for key in ("uuid", "name"))
    labels = f'{{uuid="{uuid}",vm="{vm}"}}'
    names = [name for name in rows[0] if name.endswith(("_bytes", "_seconds"))] if rows else []
    for name in names:
        unit = "bytes" if name.endswith("_bytes") else "seconds"
        family = f"dynmem_history_{name}"
        yield f"# TYPE {family} gauge"
        yield f"# UNIT {family} {unit}"
        for row in rows:
            if (value := known(row[name], None)) is not None:
                yield f"{family}{labels} {value} {row['at']:.3f}"
    yield "# EOF"


FORMATS: Final[dict[str, Callable[[dict[str, Any]], Lines]]] = {
    "csv": csv_lines,
    "jsonl": json_lines,
    "openmetrics": openmetrics_lines,
}


def _rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return list(answer["samples"] if _in_detail(answer) else answer["spans"])


def _in_detail(answer: dict[str, Any]) -> bool:
    """An older controller knows nothing else."""
    return bool(known(answer["step"], "detail") == "detail")


def _csv_line(values: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(["" if one is None else one for one in values])
    return out.getvalue()
