"""What stands on the pictures: events on the curve, and the level of the balance."""

from typing import Any

from host_controller.api.answer import read
from host_controller.cli.plot_balance import Row, level_of, rows_of
from host_controller.cli.plot_events import MOST_OF_A_KIND, Mark, marks, told
from host_controller.core.policy.balance import Claims, balance
from host_controller.units import GIB


def entry(at: float, kind: str, topic: str, text: str) -> dict[str, Any]:
    return {"at": at, "kind": kind, "topic": topic, "text": text}


def test_events_are_marked_by_what_they_mean_to_people() -> None:
    found = marks(
        [
            entry(1, "decision", "grow", "the guest has a use for it"),
            entry(2, "decision", "wait", "it should grow; held back: db gives 1 GiB first"),
            entry(3, "notice", "reset", "web was reset"),
            entry(4, "notice", "operator", "alice (virsh) paused web"),
            entry(5, "command", "SetTarget", "SetTarget done"),
            entry(6, "decision", "hold", "it has what it should have"),
        ]
    )
    assert [(one.kind, one.text) for one in found] == [
        ("grown", "the guest has a use for it"),
        ("held back", "db gives 1 GiB first"),
        ("reset", "web was reset"),
        ("by somebody", "alice (virsh) paused web"),
    ]


def test_what_is_frequent_is_thinned_and_what_people_did_is_told_first() -> None:
    found = marks(
        [entry(at, "decision", "wait", f"x; held back: {at}") for at in range(500)]
        + [entry(900, "notice", "operator", "alice paused web\n\x1b[31m")]
    )
    assert len(found) == MOST_OF_A_KIND + 1
    words = told(found)
    assert len(words) == 10
    assert words[-1] == Mark(900, "by somebody", "alice paused web??[31m")


def test_the_level_of_the_picture_is_that_of_the_balance() -> None:
    claims = [
        Claims(100, GIB, GIB, 4 * GIB, 4 * GIB),
        Claims(200, GIB, GIB, 8 * GIB, 8 * GIB),
        Claims(100, GIB, GIB, 2 * GIB, 8 * GIB),
    ]
    goals = balance(claims, 11 * GIB)
    rows = [
        Row(f"vm{n}", one.weight, one.irreducible, one.need, one.desired, goal, goal)
        for n, (one, goal) in enumerate(zip(claims, goals, strict=True))
    ]
    level = level_of(rows)
    assert level is not None
    assert abs(level * 100 - 3 * GIB) < 200
    assert level_of([rows[2]]) is None, "it has what it asks for"


def test_a_vm_that_takes_no_part_is_not_in_the_balance_and_an_older_controller_knows_no_lower() -> None:
    status = read(
        b'{"vms": [{"name": "a", "need_bytes": null, "goal_bytes": null},'
        b' {"name": "b", "need_bytes": 5, "goal_bytes": 7, "desired_bytes": 9, "limits": {}}]}'
    )
    assert rows_of(status) == [Row("b", 100, 5, 5, 9, 7, 0)]
