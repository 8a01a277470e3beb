"""Every way that a standstill can take, as a table: what happens → where it stands, and what was commanded.

The VM was reset, and there is no room for it. Each word happens, and then it looks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from host_controller.core.interface import Command, CommandDone, Resume, Suspend
from host_controller.core.model import RunState
from host_controller.core.operations.standstill import RETRY_SECONDS, Stage, Standstill, left_behind
from host_controller.units import MIB
from tests.support import build

WAIT = 20.0


@dataclass
class Still:
    """One standstill, and a hypervisor that does as it is told."""

    standstill: Standstill = field(default_factory=lambda: Standstill(0.0, WAIT))
    missing_bytes: int = 100 * MIB
    now: float = 0.0
    sent: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vm = build.vm(300)
        self.tickets = count(1).__next__

    def look(self) -> None:
        self.sent += self.standstill.advance(self.vm, self.missing_bytes, self.tickets, self.now)

    def state(self, state: RunState) -> None:
        self.vm.pauses.run_state(state, self.now)
        self.standstill.state_changed(state, "web")

    def found_running(self) -> None:
        """By a new controller, of which nothing has been carried out yet."""
        self.vm = build.vm(300, ours=False)
        self.sent.append(Suspend("web", -1))

    def carries_out(self, ticket: int) -> None:
        """Its QEMU does as the new controller told it."""
        self.vm.balloon.send(ticket, 300 * MIB, 300 * MIB, self.now)
        self.vm.balloon.answered(ticket, None, self.now)

    def answer(self, error: str | None = None, timed_out: bool = False, ticket: int = -1) -> None:
        last = getattr(self.sent[-1], "ticket", 0) if ticket < 0 else ticket
        self.standstill.done(CommandDone("web", last, error, timed_out, vcpu_seconds=7.0))


def room(still: Still) -> None:
    still.missing_bytes = 0


WORDS: dict[str, Callable[[Still], None]] = {
    "look": lambda still: None,
    "room": room,
    "stands": lambda still: still.state(RunState.PAUSED),
    "runs": lambda still: still.state(RunState.RUNNING),
    "done": lambda still: still.answer(),
    "refused": lambda still: still.answer("no"),
    "late": lambda still: still.answer("no answer in time", timed_out=True),
    "obeyed": lambda still: still.carries_out(7),
    "another's": lambda still: still.answer("no", ticket=99),
    "paused": lambda still: still.vm.pauses.by_operator(True),
    "fault": lambda still: still.vm.pauses.fail("a mistake"),
    "job": lambda still: still.vm.pauses.job_is("migration"),
}

WAYS = """
room                                     -> over      nothing
job                                      -> over      nothing
paused                                   -> over      nothing
fault                                    -> over      nothing
runs                                     -> stopping  Suspend
stands                                   -> over      nothing
20s                                      -> over      nothing
look                                     -> stopping  Suspend
look refused                             -> over      Suspend
look another's                           -> stopping  Suspend
look late                                -> stopping  Suspend
look late 20s                            -> starting  Suspend Resume
look stands                              -> standing  Suspend
look stands refused                      -> over      Suspend
look stands room                         -> standing  Suspend
look stands done                         -> standing  Suspend
look stands done 19s                     -> standing  Suspend
look stands done job room                -> standing  Suspend
look stands done runs                    -> over      Suspend
look stands done runs room 2s            -> over      Suspend
look stands done room                    -> starting  Suspend Resume
look stands done paused                  -> starting  Suspend Resume
look stands done fault                   -> starting  Suspend Resume
look stands done 20s                     -> starting  Suspend Resume
look stands done room done               -> over      Suspend Resume
look stands done room runs               -> over      Suspend Resume
look stands done room 5s                 -> starting  Suspend Resume
look stands done room late               -> starting  Suspend Resume
look stands done room late 1s            -> starting  Suspend Resume Resume
look stands done room refused 1s refused -> starting  Suspend Resume Resume
look stands done room refused 1s done    -> over      Suspend Resume Resume
"""


def lived(what: str, still: Still | None = None) -> Still:
    still = still or Still()
    for word in what.split():
        if word[0].isdigit():
            still.now += float(word[:-1])
        else:
            WORDS[word](still)
        still.look()
    return still


@pytest.mark.parametrize("row", WAYS.strip().splitlines())
def test_each_way_ends_as_the_table_says(row: str) -> None:
    what, end = row.split("->")
    stage, *commands = end.split()
    still = lived(what)
    assert still.standstill.stage is Stage(stage)
    assert [type(one).__name__ for one in still.sent] == [one for one in commands if one != "nothing"]


def test_the_processor_time_at_which_it_was_stopped_is_known_and_no_later_one() -> None:
    assert lived("look stands done").standstill.vcpu_seconds == 7.0
    still = lived("look stands done room")
    still.standstill.done(CommandDone("web", 2, None, vcpu_seconds=9.0))
    assert still.standstill.vcpu_seconds == 7.0


def test_it_is_told_who_let_it_run_and_what_could_not_be_found() -> None:
    assert lived("look stands done runs").standstill.notices[-1] == "somebody else let web run"
    assert lived("look stands done room runs").standstill.notices[-1] == "web runs on, 0.0 s after its reset"
    told = lived("look stands done 20s").standstill.notices[-1]
    assert told == "web runs on, 20.0 s after its reset; 100 MiB could not be found"


@pytest.mark.parametrize(
    ("what", "stage"),
    [
        ("look", "inherited"),
        ("stands", "standing"),
        ("stands room", "starting"),
        ("runs", "inherited"),
        ("refused", "over"),
        ("room paused fault", "inherited"),
        ("600s", "inherited"),
        ("obeyed 59s", "inherited"),
        ("obeyed 60s", "over"),
        ("obeyed job 60s", "inherited"),
        ("59s stands", "starting"),
    ],
)
def test_one_that_may_yet_be_stopped_for_a_controller_before_us_is_told_nothing(
    what: str, stage: str
) -> None:
    still = Still(Standstill(0.0, WAIT, Stage.INHERITED))
    still.found_running()
    lived(what, still)
    assert still.standstill.stage is Stage(stage)
    assert [type(one) for one in still.sent[1:]] == [Resume] * (stage == "starting")


def test_one_whose_qemu_hangs_may_be_stopped_until_a_minute_after_it_did_what_it_was_told() -> None:
    still = Still(Standstill(0.0, WAIT, Stage.INHERITED))
    still.found_running()
    assert lived("600s late another's", still).standstill.stage is Stage.INHERITED
    assert lived("obeyed 59s", still).standstill.stage is Stage.INHERITED
    still.found_running()
    assert still.standstill.go_on(RunState.RUNNING, still.now), "the connection was lost and came back"
    assert lived("600s", still).standstill.stage is Stage.INHERITED
    assert lived("obeyed 60s", still).standstill.stage is Stage.OVER


def test_it_is_tried_again_not_sooner_than_after_a_second() -> None:
    assert RETRY_SECONDS == 1.0
    assert len(lived("look stands done room late 0.9s").sent) == 2


def test_a_controller_leaves_behind_what_it_stops_and_what_was_missing() -> None:
    left = left_behind(
        {"web": lived("look").standstill, "db": lived("room").standstill, "new": Standstill(0.0, WAIT)}
    )
    assert left == {"web": Standstill(0.0, WAIT, Stage.STANDING, 100 * MIB)}
    assert left["web"].describe(5.0) == (
        "it stands still after its reset until 100 MiB more are free, for 15 s at most"
    )
    assert left["web"].go_on(RunState.RUNNING, 5.0)
    assert left["web"].describe(5.0) == (
        "it was told to stand still after its reset, and whether it will is not known yet"
    )
