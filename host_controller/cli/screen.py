"""What `dynmem top` shows: a pure picture of an answer, for a given width and height."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from host_controller.api.answer import known
from host_controller.cli.status import decision_of, host_lines, state_of
from host_controller.cli.text import number, size
from host_controller.neutral import by_name, neutral

SPARKS: Final = "▁▂▃▄▅▆▇█"
HISTORY: Final = 60
STYLES: Final = {"warning": "red", "low": "yellow", "unknown": "dim"}
SORT_KEYS: Final = {
    "n": "name", "a": "assigned", "d": "demand", "p": "pressure", "c": "charge", "w": "weight"
}  # fmt: skip
KEYS: Final = {
    "name": lambda vm: by_name(str(vm["name"])),
    "assigned": lambda vm: -known(vm["assigned_bytes"], 0),
    "demand": lambda vm: -known(vm["demand_bytes"], 0),
    "pressure": lambda vm: -known(vm["pressure_percent"], 0.0),
    "charge": lambda vm: -known(vm["charge_bytes"], 0),
    "weight": lambda vm: -known(vm["limits"]["weight"], 0),
}


class Column(NamedTuple):
    """One column: its width never depends on what is in it now, so that nothing jumps."""

    title: str
    width: int
    right: bool = False
    rank: int = 0
    """Columns are given room in this order."""


NAME_WIDTHS: Final = (8, 24)
"""The column of names takes what the longest needs, within this."""
GAP: Final = 2
DECISION: Final = 12
"""The index of the last column, which takes all the room that is left."""
DECISION_WIDTHS: Final = (24, 48)
"""It is worth showing from the first on; columns of a later rank are, where they leave it the second."""
COLUMNS: Final = (
    Column("VM", 0),
    Column("STATE", 11, rank=5),
    Column("MEMORY", 7, rank=1),
    Column("ASSIGNED", 8, right=True, rank=2),
    Column("DEMAND", 8, right=True, rank=3),
    Column("PRESS", 5, right=True, rank=4),
    Column("TREND", 12, rank=6),
    Column("GOAL", 8, right=True, rank=9),
    Column("MIN", 8, right=True, rank=11),
    Column("MAX", 8, right=True, rank=10),
    Column("WEIGHT", 6, right=True, rank=12),
    Column("CHARGE", 8, right=True, rank=7),
    Column("LAST DECISION", 0, rank=8),
)


@dataclass
class View:
    """What the user has chosen, and what each VM had in the last minutes."""

    sort: str = "name"
    reverse: bool = False
    offset: int = 0
    """The first VM shown."""
    trends: dict[str, deque[int]] = field(default_factory=dict)
    sort_keys: Mapping[str, str] = field(default_factory=lambda: SORT_KEYS)

    def note(self, answer: dict[str, Any]) -> None:
        """Remember what an answer says that the VMs have."""
        for vm in answer["vms"]:
            trend = self.trends.setdefault(vm["uuid"], deque(maxlen=HISTORY))
            trend.append(known(vm["assigned_bytes"], 0))
        for gone in set(self.trends) - {vm["uuid"] for vm in answer["vms"]}:
            del self.trends[gone]

    def draw(self, answer: dict[str, Any], width: int, height: int) -> Group:
        """The whole screen."""
        return picture(answer, self, width, height)

    def rows(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """The VMs in order."""
        return sorted(answer["vms"], key=KEYS[self.sort], reverse=self.reverse)


def picture(answer: dict[str, Any], view: View, width: int, height: int) -> Group:
    """The whole screen; never more lines than it has."""
    # The only commands to a terminal in them are our colours (`paint`).
    head = [Text.from_ansi(line) for line in host_lines(answer["host"])]
    for line in head:
        line.truncate(width, overflow="ellipsis")
    bar = _bar(answer["host"], width)
    room = max(1, height - len(head) - 4)
    rows = view.rows(answer)
    view.offset = max(0, min(view.offset, len(rows) - room))
    shown = rows[view.offset : view.offset + room]
    foot = f"{len(rows)} {'VM' if len(rows) == 1 else 'VMs'}"
    if len(shown) < len(rows):
        foot += f", {view.offset + 1} to {view.offset + len(shown)}"
    # By all names, also those that are scrolled away: nothing jumps.
    columns = layout([neutral(vm["name"]) for vm in rows], width)
    order = f"{view.sort}{', reversed' if view.reverse else ''}"
    foot += f"  ·  by {order}  ·  q quits, n a d p c w r sort"
    return Group(
        *head[: max(1, height - 5)], bar, _table(shown, view, columns), Text(foot[:width], style="dim")
    )


def sparkline(values: Sequence[float], width: int) -> str:
    """A row of values as blocks of eight heights, the largest of them full; the newest is at the right.

    Longer rows are drawn together: of neighbours the largest counts.
    """
    step = -(-len(values) // width) or 1
    groups = [max(values[max(0, at - step) : at]) for at in range(len(values), 0, -step)]
    top = max(groups, default=0) or 1
    return "".join(SPARKS[min(7, max(0, int(value * 8 / top)))] for value in reversed(groups))


def layout(names: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Which columns fit into the width, and how wide each is: pairs of index and width, in their order."""
    longest = max(map(len, names), default=0)
    name = min(max(longest, NAME_WIDTHS[0]), NAME_WIDTHS[1], width)
    chosen, left = {0: name}, width - name
    for index in sorted(range(1, len(COLUMNS)), key=lambda one: COLUMNS[one].rank):
        if index == DECISION:
            if left >= GAP + DECISION_WIDTHS[0]:
                chosen[index] = 0
            continue
        needed = GAP + COLUMNS[index].width
        if left < needed + (GAP + DECISION_WIDTHS[1] if DECISION in chosen else 0):
            break
        chosen[index] = COLUMNS[index].width
        left -= needed
    if DECISION in chosen:
        chosen[DECISION] = left - GAP
    return sorted(chosen.items())


def _table(vms: list[dict[str, Any]], view: View, columns: list[tuple[int, int]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", expand=False)
    for index, room in columns:
        column = COLUMNS[index]
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=room,
        )
    for vm in vms:
        cells = _cells(vm, view)
        table.add_row(*(cells[index] for index, _ in columns), style=STYLES.get(str(vm["status"])))
    return table


def _cells(vm: dict[str, Any], view: View) -> tuple[Text, ...]:
    limits = vm["limits"]
    # A Text is shown as it is, and a string would be read as rich's markup.
    return tuple(
        Text(neutral(cell))
        for cell in (
            vm["name"],
            state_of(vm),
            vm["status"],
            size(vm["assigned_bytes"]),
            size(vm["demand_bytes"]),
            number(vm["pressure_percent"]),
            sparkline(list(view.trends.get(vm["uuid"], ())), COLUMNS[6].width),
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
    capacity = max(1, known(host["capacity_bytes"], 1))
    charged_bytes = known(host["charged_bytes"], 0)
    room = max(10, width - 8)
    charged = min(room, charged_bytes * room // capacity)
    reserved = min(room - charged, known(host["reserved_bytes"], 0) * room // capacity)
    text = Text()
    text.append("█" * charged, style="red" if known(host["headroom_bytes"], 0) < 0 else "blue")
    text.append("▒" * reserved, style="yellow")
    text.append("░" * (room - charged - reserved), style="dim")
    return text.append(f" {100 * charged_bytes // capacity:3d} %")
