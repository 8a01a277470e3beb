"""`dynmem explain --plot`: who asked for what, by tier, what each was given, and where the level stood."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from host_controller.api.answer import known
from host_controller.cli.plot import pyplot, save
from host_controller.cli.text import table
from host_controller.errors import InputError
from host_controller.neutral import neutral
from host_controller.units import GIB, format_size

MOST_ROWS: Final = 40
TIERS: Final = (
    ("irreducible", "irreducible", "tab:red"),
    ("need", "need", "tab:orange"),
    ("eased", "for its stalls", "tab:purple"),
    ("desired", "with its buffer", "tab:green"),
)
SAME_SHARE: Final = 1e-3
"""Levels so close to each other are one: history keeps whole KiB."""


@dataclass(frozen=True, slots=True)
class Row:
    """One VM in the balance; bytes."""

    name: str
    weight: int
    irreducible: int
    need: int
    eased: int
    desired: int
    goal: int
    assigned: int


def rows_of(answer: dict[str, Any]) -> list[Row]:
    """Every VM that takes part in the balance, of a StatusView or a MomentView."""
    found = []
    for one in answer["vms"]:
        need, goal = known(one["need_bytes"], None), known(one["goal_bytes"], None)
        if need is None or goal is None:
            continue
        desired = int(max(need, known(one["desired_bytes"], need)))
        eased = known(one["eased_bytes"], None) or need
        found.append(
            Row(
                one["name"],
                int(known(one["weight"] if "weight" in one else one["limits"]["weight"], 100)),
                int(min(known(one["lower_bytes"], need), need)),
                int(need),
                int(min(max(need, eased), desired)),
                desired,
                int(goal),
                int(known(one["assigned_bytes"], 0)),
            )
        )
    return found


def table_of(rows: list[Row], about: str) -> list[str]:
    """The balance in lines, by what each asks for; the VM that it is about is marked."""
    head = ("", "VM", "WEIGHT", "IRREDUCIBLE", "NEED", "DESIRED", "GETS", "HAS")
    ordered = sorted(rows, key=lambda one: -one.desired)
    lines = [
        ("*" if one.name == about else "", one.name, str(one.weight), *map(format_size, _sizes(one)))
        for one in ordered
    ]
    return [*table(head, lines, left=(0, 1)), _told(rows, level_of(rows), "got", "stood")]


def _told(rows: list[Row], level: float | None, gets: str, stands: str) -> str:
    if level is not None:
        return f"the level {stands} at {format_size(int(level * 100))} for a weight of 100"
    if any(one.goal < one.desired for one in rows):
        return f"each {gets} all of one tier, and nobody anything of the next"
    return f"everybody {gets} what it asked for"


def _sizes(row: Row) -> tuple[int, ...]:
    return row.irreducible, row.need, row.desired, row.goal, row.assigned


def level_of(rows: list[Row]) -> float | None:
    """Bytes for a unit of weight where memory is shared out; None where everybody has what he asks for.

    Whoever lies between two of his claims has exactly the level times his weight. Of the past not all claims
    are known, so who seems to lie between two may have one: the level is what most of them agree on.
    """
    shared = [
        one.goal / one.weight
        for one in rows
        if one.goal < one.desired and one.goal not in (one.irreducible, one.need, one.eased)
    ]

    def agree(level: float) -> tuple[int, float]:
        return sum(abs(one - level) <= level * SAME_SHARE for one in shared), -level

    return max(shared, key=agree, default=None)


def draw_balance(rows: list[Row], about: str, laid_out: str, path: Path) -> None:
    """Draw the balance; `about` is the VM that is explained, `laid_out` what there was to be had.

    Raises:
        DynmemError: matplotlib is missing, or the file cannot be written.
        InputError: no VM takes part in the balance.
    """
    rows = sorted(rows, key=lambda one: one.desired)
    if not rows:
        raise InputError("no VM takes part in the balance", vm=about, hint="their agents have to report")
    wanted = [one for one in rows if one.name == about]
    rows = [*[one for one in rows if one.name != about][-MOST_ROWS:], *wanted]
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(10, 1.6 + 0.32 * len(rows)), layout="constrained")
    places = list(range(len(rows)))
    begin = [0.0] * len(rows)
    for key, label, colour in TIERS:
        ends = [getattr(one, key) / GIB for one in rows]
        widths = [end - left for end, left in zip(ends, begin, strict=True)]
        axes.barh(places, widths, left=begin, color=colour, alpha=0.45, label=label)
        begin = ends
    axes.scatter([one.goal / GIB for one in rows], places, marker="|", s=160, color="black", label="gets")
    axes.scatter([one.assigned / GIB for one in rows], places, marker="o", s=14, color="black", label="has")
    level = level_of(rows)
    if level is not None:
        axes.scatter(
            [level * one.weight / GIB for one in rows],
            places,
            marker="_",
            s=60,
            color="tab:blue",
            label="level",
        )
    names = [f"{neutral(one.name, 30)} ({one.weight})" for one in rows]
    axes.set_yticks(places, names)
    axes.set_xlabel("GiB")
    axes.set_xlim(left=0)
    axes.set_title(f"{laid_out}: {_told(rows, level, 'gets', 'stands')}")
    axes.legend(loc="lower right", fontsize="small")
    save(figure, path)
