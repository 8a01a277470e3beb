"""Other people's laws, and the bound: baselines that act on the same hosts through the same balloons.

Each is written from its published rule, named in its module. What is kind to them is said where it is done:
they see every guest exactly, without delay, as often as they like, and pay nothing for looking.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from host_controller.simulator.laws.clairvoyant import Clairvoyant
from host_controller.simulator.laws.fixed import Peak, Static
from host_controller.simulator.laws.ghaf import Ghaf
from host_controller.simulator.laws.hyperv import HyperV
from host_controller.simulator.laws.mom import PRODUCTION_SECONDS, Mom
from host_controller.simulator.laws.proxmox import Proxmox
from host_controller.simulator.laws.qmemman import Qmemman
from host_controller.simulator.laws.squeezed import Squeezed
from host_controller.simulator.laws.views import Foresight, GuestSight, HostSight, Law

__all__ = ["LAWS", "Foresight", "GuestSight", "HostSight", "Knowledge", "Law"]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What only an oracle has."""

    peaks: Mapping[str, float]
    foresight: Foresight


LAWS: Final[dict[str, Callable[[Knowledge], Law]]] = {
    "static": lambda _: Static(),
    "peak": lambda known: Peak(known.peaks),
    "hyperv": lambda _: HyperV(),
    "mom": lambda _: Mom(),
    "mom-production": lambda _: Mom(PRODUCTION_SECONDS),
    "proxmox": lambda _: Proxmox(),
    "qmemman": lambda _: Qmemman(),
    "squeezed": lambda _: Squeezed(),
    "ghaf": lambda _: Ghaf(),
    "clairvoyant": lambda known: Clairvoyant(known.foresight),
    "clairvoyant-buffered": lambda known: Clairvoyant(known.foresight, buffer_percent=20.0),
}
"""By the names that `dynmem simulate --law` and the benchmarks use, as published."""
