"""What `dynmem top` shows: a pure picture of an answer, for a given width and height."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from host_controller.cli.status import decision_of, host_lines, state_of
from host_controller.cli.text import number, size, without_control

SPARKS: Final = "▁▂▃▄▅▆▇█"
HISTORY: Final = 60
STYLES: Final = {"warning": "red", "low": "yellow", "unknown": "dim"}
KEYS: Final = {
    "name": lambda vm: vm["name"],
    "assigned": lambda vm: -vm["assigned_bytes"],
    "demand": lambda vm: -(vm["demand_bytes"] or 0),
    "pressure": lambda vm: -(vm["pressure_percent"] or 0.0),
    "charge": lambda vm: -vm["charge_bytes"],
    "weight": lambda vm: -vm["limits"]["weight"],
}
# The least width at which a column is worth its room.
COLUMNS: Final = (
    ("VM", "left", 0),
    ("STATE", "left", 60),
    ("MEMORY", "left", 0),
    ("ASSIGNED", "right", 0),
    ("DEMAND", "right", 40),
    ("PRESS", "right", 50),
    ("TREND", "left", 70),
    ("GOAL", "right", 90),
    ("MIN", "right", 110),
    ("MAX", "right", 110),
    ("WEIGHT", "right", 120),
    ("CHARGE", "right", 80),
    ("LAST DECISION", "left", 140),
)


@dataclass
class View:
    """What the user has chosen, and the pressure of the last minutes."""

    sort: str = "name"
    reverse: bool = False
    offset: int = 0
    """The first VM shown."""
    trends: dict[str, deque[float]] = field(default_factory=dict)

    def note(self, answer: dict[str, Any]) -> None:
        """Remember the pressures of an answer."""
        for vm in answer["vms"]:
            trend = self.trends.setdefault(vm["uuid"], deque(maxlen=HISTORY))
            trend.append(vm["pressure_percent"] or 0.0)
        for gone in set(self.trends) - {vm["uuid"] for vm in answer["vms"]}:
            del self.trends[gone]

    def rows(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """The VMs in order."""
        return sorted(answer["vms"], key=KEYS[self.sort], reverse=self.reverse)


def picture(answer: dict[str, Any], view: View, width: int, height: int) -> Group:
    """The whole screen; never more lines than it has."""
    head = [Text.from_ansi(line) for line in host_lines(answer["host"])]
    for line in head:
        line.truncate(width, overflow="ellipsis")
    bar = _bar(answer["host"], width)
    room = max(1, height - len(head) - 4)
    rows = view.rows(answer)
    view.offset = max(0, min(view.offset, len(rows) - room))
    shown = rows[view.offset : view.offset + room]
    foot = f"{len(rows)} VMs"
    if len(shown) < len(rows):
        foot += f", {view.offset + 1} to {view.offset + len(shown)}"
    order = f"{view.sort}{', reversed' if view.reverse else ''}"
    foot += f"  ·  by {order}  ·  q quits, n a d p c w r sort"
    return Group(
        *head[: max(1, height - 5)], bar, _table(shown, view, width), Text(foot[:width], style="dim")
    )


def sparkline(values: Any, width: int, top: float = 100.0) -> str:
    """The last values as blocks of eight heights; above `top` is as high as it."""
    last = list(values)[-width:]
    return "".join(SPARKS[min(7, max(0, int(value * 8 / top)))] for value in last)


def _table(vms: list[dict[str, Any]], view: View, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    chosen = [number for number, (_, _, least) in enumerate(COLUMNS) if width >= least]
    for index in chosen:
        name, justify, _ = COLUMNS[index]
        table.add_column(
            name,
            justify="right" if justify == "right" else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=None,
            min_width=4,
        )
    for vm in vms:
        cells = _cells(vm, view)
        table.add_row(*(cells[index] for index in chosen), style=STYLES.get(vm["status"]))
    return table


def _cells(vm: dict[str, Any], view: View) -> tuple[str, ...]:
    limits = vm["limits"]
    # Text objects of rich would be markup: names from elsewhere are escaped by it only here.
    return tuple(
        cell.replace("[", "\\[")
        for cell in (
            without_control(vm["name"]),
            state_of(vm),
            vm["status"],
            size(vm["assigned_bytes"]),
            size(vm["demand_bytes"]),
            number(vm["pressure_percent"]),
            sparkline(view.trends.get(vm["uuid"], ()), 12),
            size(vm["goal_bytes"]),
            size(limits["minimum_bytes"]),
            size(limits["maximum_bytes"]),
            str(limits["weight"]),
            size(vm["charge_bytes"]),
            decision_of(vm),
        )
    )


def _bar(host: dict[str, Any], width: int) -> Text:
    """Charged and reserved against the capacity."""
    capacity = max(1, host["capacity_bytes"])
    room = max(10, width - 8)
    charged = min(room, host["charged_bytes"] * room // capacity)
    reserved = min(room - charged, host["reserved_bytes"] * room // capacity)
    text = Text()
    text.append("█" * charged, style="red" if host["headroom_bytes"] < 0 else "blue")
    text.append("▒" * reserved, style="yellow")
    text.append("░" * (room - charged - reserved), style="dim")
    return text.append(f" {100 * host['charged_bytes'] // capacity:3d} %")
