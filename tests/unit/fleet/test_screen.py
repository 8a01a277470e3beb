"""`dynmem fleet top` fits every window, and asks while keys are obeyed."""

import io
import threading
from typing import Any

import pytest
from rich.console import Console

from host_controller.cli.fleet_screen import SORT_KEYS, SORTS, FleetView, Meanwhile
from host_controller.cli.fleet_text import status_plain
from host_controller.fleet.errors import FleetError
from host_controller.fleet.pacemaker.cib import read_cib
from host_controller.fleet.pacemaker.simulation import Simulation
from host_controller.fleet.view import View
from host_controller.units import GIB
from tests.unit.fleet.cells import cell, host, vm
from tests.unit.fleet.cluster import cib_text


def answer(hosts: int = 3, vms: int = 5, notes: int = 0) -> dict[str, Any]:
    figures = {f"n{i}": host(*(vm(f"vm{i}-{j}", (j + 1) * GIB) for j in range(vms))) for i in range(hosts)}
    here = cell({**figures, "gone": None})
    plain = status_plain(
        View(here, {"gone": "refused"}, read_cib(cib_text({}, {})), Simulation((), {}, ())), 0.0
    )
    return {**plain, "notes": [f"note {i}" for i in range(notes)]}


def drawn(said: dict[str, Any], view: FleetView, width: int = 120, height: int = 40) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=False)
    console.print(view.draw(said, width, height))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_hosts_that_are_not_in_order_come_first_and_all_vms_by_host() -> None:
    lines = drawn(answer(), FleetView())
    assert lines[1].startswith("gone")
    assert "silent: refused" in lines[1]
    assert [line.split()[0] for line in lines[7:12]] == [f"vm0-{i}" for i in range(5)]
    assert lines[-1].startswith("4 hosts, 15 VMs  ·  by host")


@pytest.mark.parametrize("size", [(20, 6), (40, 10), (80, 24), (200, 60)])
@pytest.mark.parametrize("many", [(0, 0, 0), (2, 1, 9), (32, 20, 3)])
def test_it_never_has_more_lines_than_the_window(size: tuple[int, int], many: tuple[int, int, int]) -> None:
    view = FleetView(offset=10**6)
    lines = drawn(answer(*many), view, *size)
    assert len(lines) <= size[1]
    assert all(len(line) <= size[0] for line in lines)
    assert view.offset <= many[0] * many[1]


@pytest.mark.parametrize("sort", SORTS)
def test_it_sorts_vms_of_which_nothing_is_known_too(sort: str) -> None:
    said = answer(1, 2)
    said["vms"].append(
        dict.fromkeys(("host", "need_bytes", "charge_bytes", "booked_mib"))
        | {"name": "off", "state": "stopped"}
    )
    assert len(drawn(said, FleetView(sort))) == len(drawn(said, FleetView(sort, reverse=True)))
    assert sort in SORT_KEYS.values()


def test_names_are_shown_and_not_obeyed() -> None:
    said = answer(1, 1)
    said["vms"][0]["name"] = "[red]a\x1b[2J"
    text = "\n".join(drawn(said, FleetView()))
    assert "[red]a" in text
    assert "\x1b" not in text


def test_it_asks_in_a_thread_and_goes_on_after_a_failure() -> None:
    asked, more = threading.Semaphore(0), iter([FleetError("no cluster"), {"hosts": []}])

    def ask() -> dict[str, Any]:
        found = next(more, {"hosts": [1]})
        asked.release()
        if isinstance(found, FleetError):
            raise found
        return found  # type: ignore[return-value]

    one = Meanwhile(ask, 0.0)
    for _ in range(4):
        assert asked.acquire(timeout=60)
    assert one() == {"hosts": [1]}
    one.stop()
    one._thread.join(60)
    assert not one._thread.is_alive()


def test_a_fleet_that_cannot_be_asked_is_told_of() -> None:
    def ask() -> dict[str, Any]:
        asked.release()
        raise FleetError("no cluster")

    asked = threading.Semaphore(0)
    one = Meanwhile(ask, 0.0)
    for _ in range(2):
        assert asked.acquire(timeout=60)
    with pytest.raises(FleetError, match="no cluster"):
        one()
    one.stop()


@pytest.mark.parametrize("width", [1, 3, 20, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 6, 24])
def test_it_takes_no_more_lines_than_there_are_however_wide_letters_are(width: int, height: int) -> None:
    said = answer(9, 30)
    said["notes"] = ["\u5bbd" * 70] * 5
    console = Console(file=io.StringIO(), width=width, height=height)
    picture = FleetView().draw(said, width, height)
    assert len(console.render_lines(picture, console.options.update(height=None), pad=False)) <= height
