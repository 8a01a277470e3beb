"""The words of every operation: its stages, what it can hear, how it ends, and the form of its table."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Stage(StrEnum):
    """What an operation is at. The text is for people."""

    NEW = "new"
    NAMING = "naming the zone"
    """The agent was told where new memory goes, and has not answered."""
    NAMING_AGAIN = "naming the zone again"
    NAMED = "zone named"
    """The next command lets the guest have more."""
    DEFLATING = "deflating"
    """The balloon gives the guest what it is about to lose elsewhere."""

    ATTACHING = "attaching"
    OFFLINING = "offlining"
    """The agent was asked to move everything away from a DIMM."""
    OFFLINED = "offlined"
    DETACHING = "detaching"
    DETACHING_AGAIN = "asking for the DIMM again"
    OVERDUE = "the hypervisor is late"
    """A command timed out. It may still be carried out."""
    ABANDONED = "the guest started anew; the hypervisor is to answer yet"
    """It ends as soon as the hypervisor has answered."""
    ABANDONED_LATE = "the guest started anew, and the hypervisor is late"
    """It ends as soon as the hypervisor has told what became of the command."""
    LEAVING = "leaving"
    """The hypervisor has asked for the DIMM. The guest may not have heard it."""
    LAST_WAIT = "leaving, and nothing more can be asked"
    TURNING_BACK = "turning back"

    ASKING = "asking"
    FOLLOWING = "following"
    """The guest gives or takes blocks."""
    SETTLING = "settling"
    """What the guest has is being made what it is asked for."""

    COMING_ONLINE = "coming online"


class Heard(StrEnum):
    """What can happen to an operation."""

    READY = "the next step can be taken"
    UNNAMED = "the agent has not confirmed the zone"
    CONFIRMED = "the agent did what it was asked"
    DECLINED = "the agent could not do what it was asked"

    CARRIED_OUT = "the hypervisor carried the command out"
    REFUSED = "the hypervisor refused the command"
    OUTRUN = "the hypervisor refused the command because of a job that had just begun"
    TIMED_OUT = "the hypervisor has not answered in time"
    DIMM_CAME = "a DIMM was plugged"
    DIMMS_TOLD = "the DIMMs were told, and none was plugged"
    DIMM_STAYS = "the guest's kernel did not give the DIMM back"
    RESTARTED = "the guest started anew"

    GONE = "the DIMM is not there"
    CROWDED = "the guest has no room for page structures"
    CRAMPED = "the balloon has to deflate first"
    UNAIDED = "nobody in the guest can offline the DIMM: its kernel does, once it is asked to eject it"
    UNCONFIRMED = "the balloon's target was not confirmed"
    FURTHER = "all of it has left by the guest's own count, and less is asked for"
    NEEDED = "the guest needs the memory after all"
    OVERTAKEN = "somebody else asked for another size"
    UNHEARD = "nothing came of the first request"
    WHOLE = "the device has the size that was asked for"
    MOVED = "the device has another size than before"
    ARRIVED = "the guest has what was asked for"
    IDLE = "a part of the new memory is not used in time"
    LATE = "the stage's time is over"


class Outcome(StrEnum):
    """How far an operation is."""

    UNDER_WAY = "under way"
    DONE = "done"
    FAILED = "failed"
    DROPPED = "dropped"
    """Given up before anything was changed; nobody is to blame, and it may be tried again at once."""


class Move(NamedTuple):
    """Where a row of a table leads: to a stage, or to an end."""

    to: Stage | Outcome
    note: str = ""
    """Why, for people. A colon is followed by what the other side said. Empty: the last one stands."""


Table = Mapping[tuple[Stage, Heard], Move]
"""What an operation hears in each stage, and where it leads. What has no row does not concern it."""


def go(stage: Stage, note: str = "") -> Move:
    """On to another stage."""
    return Move(stage, note)


def done(note: str = "") -> Move:
    """The end that was wanted."""
    return Move(Outcome.DONE, note)


def failed(note: str = "") -> Move:
    """The end that is somebody's fault: the guest rests before the next try."""
    return Move(Outcome.FAILED, note)


def dropped(note: str) -> Move:
    """The end that is nobody's fault."""
    return Move(Outcome.DROPPED, note)


STARTED_ANEW: Final = dropped("the guest started anew")
"""Its new kernel knows nothing of what the old one was asked."""

ABANDONED_ROWS: Final[Table] = {
    (Stage.ABANDONED, Heard.CARRIED_OUT): STARTED_ANEW,
    (Stage.ABANDONED, Heard.REFUSED): STARTED_ANEW,
    (Stage.ABANDONED, Heard.OUTRUN): STARTED_ANEW,
    (Stage.ABANDONED, Heard.TIMED_OUT): go(Stage.ABANDONED_LATE),
    (Stage.ABANDONED, Heard.RESTARTED): go(Stage.ABANDONED),
    (Stage.ABANDONED_LATE, Heard.DIMM_CAME): STARTED_ANEW,
    (Stage.ABANDONED_LATE, Heard.DIMMS_TOLD): STARTED_ANEW,
    (Stage.ABANDONED_LATE, Heard.RESTARTED): go(Stage.ABANDONED_LATE),
}
"""How what may change the VM's DIMMs at any moment ends, once it is of no use any more."""

HARMLESS: Final = (Stage.NEW, Stage.NAMING, Stage.NAMING_AGAIN, Stage.NAMED, Stage.DEFLATING)
"""Neither guest nor hypervisor has been changed, but for a zone or a raised target."""

UNANSWERED: Final = (
    Stage.ATTACHING, Stage.DETACHING, Stage.DETACHING_AGAIN, Stage.OVERDUE, Stage.ABANDONED,
    Stage.ABANDONED_LATE,
)  # fmt: skip
"""A DIMM may come or leave at any moment: a balloon target would clash with that."""
