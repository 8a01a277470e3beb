"""How far a peer is ahead of a law on one host, in each kind of figure: of ours, unless told otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.duel.hosts import Host
from host_controller.simulator.laws import LAWS
from host_controller.simulator.trial import OURS, Result, play

PEERS: Final = ("hyperv", "ghaf", "qmemman", "squeezed", "proxmox", "mom")
"""As published. Not static, which shares nothing, nor who knows the future."""
BOUND: Final = "clairvoyant"
KINDS: Final = ("unmet", "kept", "bound", "footprint", "commands")
NOTHING_MIB_S: Final = 1000.0
"""Added to both sides: below it a difference is nothing."""
FEW_COMMANDS: Final = 20.0
"""For an hour of a VM, added to both sides."""
AS_WELL: Final = 1.05
"""A peer saves memory or commands only if its guests lack no more than by this."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one host, in one kind: our figure, and who is ahead by how much."""

    kind: str
    ratio: float
    peer: str
    ours: float
    theirs: float

    def __str__(self) -> str:
        return f"{self.kind}: {self.ratio:.2f} × {self.peer} ({self.ours:.4g} against {self.theirs:.4g})"


def judged(host: Host, law: str = OURS) -> dict[str, Verdict]:
    """By kind, of that law. All are played on it."""
    trial = host.trial()
    runs = {name: play(trial, LAWS[name]) for name in (*PEERS, BOUND)}
    runs[OURS] = play(trial)
    return compare(runs, law)


def compare(runs: Mapping[str, Result], law: str = OURS) -> dict[str, Verdict]:
    """That law against whoever is best.

    unmet: MiB·s missing beyond what VMs want in sum and the host does not have. kept: the same, against peers
    that never gave out more than the host has. bound: against a clairvoyant, where more than 1,000 MiB·s are
    missing under it. footprint and commands: against peers whose guests lack no more.
    """
    mine, bound = runs[law], runs[BOUND].missing_mib_seconds
    peers = [name for name in runs if name not in (law, BOUND)]
    excess = {
        name: max(0.0, run.missing_mib_seconds - run.unavoidable_mib_seconds) for name, run in runs.items()
    }
    keeping = [name for name in peers if runs[name].promised_mib_seconds <= NOTHING_MIB_S]
    found = []
    for kind, among in (("unmet", peers), ("kept", keeping)):
        if among:
            best = min(among, key=lambda name: excess[name])
            found.append(_verdict(kind, best, excess[law], excess[best], NOTHING_MIB_S))
    if bound > NOTHING_MIB_S:
        found.append(_verdict("bound", BOUND, mine.missing_mib_seconds, bound, 0.0))
    as_good = [name for name in peers if excess[name] <= AS_WELL * excess[law] + NOTHING_MIB_S]
    if as_good:
        peer = min(as_good, key=lambda name: runs[name].footprint)
        found.append(_verdict("footprint", peer, mine.footprint, runs[peer].footprint, 0.0))
    lean = [name for name in as_good if runs[name].footprint <= AS_WELL * mine.footprint]
    if lean:
        peer = min(lean, key=lambda name: runs[name].commands_per_vm_hour)
        commands = mine.commands_per_vm_hour, runs[peer].commands_per_vm_hour
        found.append(_verdict("commands", peer, *commands, FEW_COMMANDS))
    return {one.kind: one for one in found}


def _verdict(kind: str, peer: str, ours: float, theirs: float, nothing: float) -> Verdict:
    return Verdict(kind, (ours + nothing) / max(theirs + nothing, 1e-9), peer, ours, theirs)
