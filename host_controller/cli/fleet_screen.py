"""What `dynmem fleet top` shows: all hosts above, VMs by host below. Pure, but for who asks meanwhile."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from host_controller.cli.fleet_text import HOSTS, VMS, host_cells, vm_cells
from host_controller.errors import DynmemError
from host_controller.neutral import by_name, neutral

SORTS: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "name": lambda vm: by_name(str(vm["name"])),
    "host": lambda vm: (vm["host"] is None, by_name(str(vm["host"])), by_name(str(vm["name"]))),
    "need": lambda vm: -(vm["need_bytes"] or 0),
    "charge": lambda vm: -(vm["charge_bytes"] or 0),
    "booked": lambda vm: -(vm["booked_mib"] or 0),
}
SORT_KEYS: Final = {"n": "name", "h": "host", "d": "need", "c": "charge", "b": "booked"}
LEFT: Final = {"HOST", "VM", "STATE"}
GAP: Final = 2
LEAST_HEIGHT: Final = 6
"""On less there are hosts only."""


@dataclass
class FleetView:
    """What the user has chosen."""

    sort: str = "host"
    reverse: bool = False
    offset: int = 0
    sort_keys: Mapping[str, str] = field(default_factory=lambda: SORT_KEYS)

    def note(self, answer: dict[str, Any]) -> None:
        """Nothing of one answer is needed with the next."""

    def draw(self, answer: dict[str, Any], width: int, height: int) -> Group:
        """The whole screen; hosts that find no place are those that are in order."""
        hosts = sorted(answer["hosts"], key=lambda one: (one["state"] == "ok", by_name(str(one["name"]))))
        vms = sorted(answer["vms"], key=SORTS[self.sort], reverse=self.reverse)
        if height < LEAST_HEIGHT:
            shown = hosts[: height - 1]
            return Group(_table(HOSTS, [host_cells(one) for one in shown], [""] * len(shown)))
        notes = [_line(neutral(one), "yellow") for one in answer["notes"][: height // 8]]
        room = max(2, height - len(notes) - 4)  # two heads, a gap and the foot
        above = min(len(hosts), max(1, room // 2), max(1, room - min(len(vms), room // 2)))
        below = max(1, room - above)
        self.offset = max(0, min(self.offset, len(vms) - below))
        shown = vms[self.offset : self.offset + below]
        styles = ["" if one["state"] == "ok" else "yellow" for one in hosts]
        foot = f"{len(hosts)} hosts, {len(vms)} VMs"
        if len(shown) < len(vms):
            foot += f", {self.offset + 1} to {self.offset + len(shown)}"
        order = f"{self.sort}{', reversed' if self.reverse else ''}"
        foot += f"  ·  by {order}  ·  q quits, n h d c b r sort"
        return Group(
            _table(HOSTS, [host_cells(one) for one in hosts[:above]], styles),
            Text(""),
            _table(VMS, [vm_cells(one) for one in shown], [""] * len(shown)),
            *notes,
            _line(foot, "dim"),
        )


class Meanwhile:
    """Asks in a thread of its own: a host that does not answer takes seconds, and keys are to be obeyed."""

    def __init__(self, ask: Callable[[], dict[str, Any]], interval: float) -> None:
        self._ask, self._interval = ask, interval
        self._answer: dict[str, Any] | DynmemError | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self._thread.start()

    def __call__(self) -> dict[str, Any] | None:
        """The newest answer.

        Raises:
            DynmemError: the fleet could not be asked.
        """
        if isinstance(self._answer, DynmemError):
            raise self._answer
        return self._answer

    def stop(self) -> None:
        """Ask no more."""
        self._end.set()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self._answer = self._ask()
            except DynmemError as error:
                self._answer = error
            self._end.wait(self._interval)


def _line(text: str, style: str) -> Text:
    """One line, however wide its letters are."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]], styles: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", expand=False)
    for title in titles:
        table.add_column(
            title, justify="left" if title in LEFT else "right", no_wrap=True, overflow="ellipsis"
        )
    for row, style in zip(rows, styles, strict=False):
        # A Text is shown as it is, and a string would be read as rich's markup.
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table
