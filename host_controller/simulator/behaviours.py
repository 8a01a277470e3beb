"""Ways in which guests and their QEMU depart from the ideal, by name.

A behaviour is a set of knobs that guest, agent and hypervisor look at whenever they act, so a guest's
behaviour can be exchanged while it runs.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from host_controller.units import MIB


class HotAdd(StrEnum):
    """What happens to a DIMM that is plugged."""

    WORKS = "works"
    REFUSED = "refused"
    """QEMU's command fails."""
    NEVER_ONLINE = "never online"
    """The command succeeds, and the guest never uses the memory."""
    IGNORED = "ignored"
    """Of virtio-mem: the command succeeds, and the guest's driver takes nothing. A DIMM is never online."""


class Unplug(StrEnum):
    """What becomes of a request to give a DIMM back."""

    WORKS = "works"
    REFUSED = "refused"
    IGNORED = "ignored"
    IN_PART = "in part"
    """Half of the blocks go, the rest is in use."""


class Speech(StrEnum):
    """What the agent says."""

    TRUTH = "truth"
    NOTHING = "nothing"
    STALE = "stale"
    """The same figures for ever, with fresh sequence numbers."""
    NEEDY = "needy"
    """Claims to have next to nothing left."""
    GENEROUS = "generous"
    """Claims that nearly all is free."""
    NOISE = "noise"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The knobs; each default is the ideal. Rates are shares of the guest's own."""

    name: str
    balloon_speed: float = 1.0
    """0 is stuck."""
    puff_seconds: float = 0.0
    """Time that the balloon rests after as long a time of work: out of puff."""
    floor_bytes: int = 0
    """Usable memory below which the driver gives up nothing."""
    takes_back_bytes_per_second: float = 0.0
    """The driver deflates without being asked, and says so."""
    claims_bytes: int = 0
    """How much more than it gave the driver claims to have given."""
    hot_add: HotAdd = HotAdd.WORKS
    unplug: Unplug = Unplug.WORKS
    sets_aside: bool = False
    """Of virtio-mem: a memory block that begins to leave is no longer available to the guest at once."""
    speech: Speech = Speech.TRUTH
    statistics: bool = True
    """False: the balloon's statistics are never renewed."""
    counts_balloon: bool = False
    """What its balloon holds it tells as memory in use (fact: windows-counts-its-balloon)."""
    hung: bool = False
    """vCPUs do nothing, while QEMU answers."""
    command_seconds: float = 0.001
    """How long QEMU takes over a command."""
    reboot_every: float = 0.0
    """Seconds between resets; 0 for never."""


IDEAL: Final = Behaviour("ideal")

BROKEN_DEVICE: Final = Behaviour("virtio-mem broken", hot_add=HotAdd.IGNORED, unplug=Unplug.IGNORED)
"""The guest's driver has given its device up, until its kernel starts anew (fact:
virtio-mem-that-gives-up). It is none of the soak's, whose histories are known by their seeds.
"""

SETS_ASIDE: Final = Behaviour("sets blocks aside", sets_aside=True)
"""As Linux does (fact: blocks-set-aside). It is none of the soak's either."""

WINDOWS: Final = Behaviour("Windows", speech=Speech.NOTHING, counts_balloon=True)
"""It is none of the soak's either."""

BEHAVIOURS: Final = {
    b.name: b
    for b in (
        IDEAL,
        Behaviour("slow balloon", balloon_speed=0.05, puff_seconds=3.0),
        Behaviour("floor", floor_bytes=384 * MIB),
        Behaviour("stuck", balloon_speed=0.0),
        Behaviour("uncooperative", takes_back_bytes_per_second=20 * MIB),
        Behaviour("reboots", reboot_every=45.0),
        Behaviour("hot add refused", hot_add=HotAdd.REFUSED),
        Behaviour("never online", hot_add=HotAdd.NEVER_ONLINE),
        Behaviour("DIMM stays", unplug=Unplug.REFUSED),
        Behaviour("DIMM ignored", unplug=Unplug.IGNORED),
        Behaviour("DIMM half", unplug=Unplug.IN_PART),
        Behaviour("agent silent", speech=Speech.NOTHING),
        Behaviour("all silent", speech=Speech.NOTHING, statistics=False),
        Behaviour("agent stale", speech=Speech.STALE),
        Behaviour("agent needy", speech=Speech.NEEDY),
        Behaviour("agent generous", speech=Speech.GENEROUS),
        Behaviour("agent noisy", speech=Speech.NOISE),
        Behaviour("balloon lies", claims_bytes=256 * MIB),
        Behaviour("hung", hung=True, statistics=False, speech=Speech.NOTHING),
        Behaviour("late QEMU", command_seconds=8.0),
        Behaviour("dead QEMU", command_seconds=120.0),
    )
}
"""By name. The names are those that a scenario file and the soak's table use."""
