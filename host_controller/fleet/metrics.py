"""The fleet's figures for Prometheus, as its arbiter sees them. No I/O.

A figure that is not known is left out: no zero is mistaken for one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from host_controller.exposition import Family, sample, text_of
from host_controller.fleet.core.model import Cell, HostFigures
from host_controller.units import MIB

OF_HOSTS: Final[tuple[tuple[Family, Callable[[HostFigures], float | None]], ...]] = tuple(
    (Family(f"dynmem_fleet_host_{name}", "gauge", text), read)
    for name, text, read in (
        ("capacity_bytes", "What its managed VMs may cost.", lambda one: one.capacity_bytes),
        ("need_bytes", "What its VMs cannot do without, and what is promised.", lambda one: one.floor_bytes),
        (
            "charged_bytes",
            "The most that its VMs can come to hold without further consent.",
            lambda one: sum(vm.charge_bytes for vm in one.vms),
        ),
        ("reserved_bytes", "Promised to VMs that are about to arrive.", lambda one: one.reserved_bytes),
        ("admits_bytes", "What a start could be given there.", lambda one: one.admits_bytes),
        ("vms", "VMs that it tells of.", lambda one: len(one.running)),
        ("overdraft", "1 while its VMs may take more than there is.", lambda one: int(one.overdraft)),
        (
            "emergency",
            "1 while it is itself short of memory.",
            lambda one: int(one.emergency is not None),
        ),
        (
            "certificate_end_seconds",
            "When its certificate expires, in seconds since 1970.",
            lambda one: one.certificate_until,
        ),
    )
)
ANSWERS: Final = Family("dynmem_fleet_host_up", "gauge", "1 while the host's figures are believed.")
TAKES: Final = Family("dynmem_fleet_host_takes", "gauge", "1 while the engine would start VMs there.")
BOOKED: Final = Family("dynmem_fleet_host_booked_bytes", "gauge", "Sum of what the engine holds for its VMs.")
PUBLISHED: Final = Family("dynmem_fleet_host_published_bytes", "gauge", "Its capacity in the engine.")
VM_BOOKED: Final = Family("dynmem_fleet_vm_booked_bytes", "gauge", "What the engine holds for the VM.")
VM_NEED: Final = Family("dynmem_fleet_vm_need_bytes", "gauge", "What the VM cannot do without.")
VM_BANS: Final = Family("dynmem_fleet_vm_bans", "gauge", "Hosts that the engine keeps from the VM.")
NOTES: Final = Family("dynmem_fleet_notes", "gauge", "Settings and figures that are not believed now.")
TURNS: Final = Family("dynmem_fleet_turns_total", "counter", "Turns of publishing by what came of them.")
SILENT: Final = Family("dynmem_fleet_silent_total", "counter", "Answers of a host that were not believed.")
MOVES: Final = Family(
    "dynmem_fleet_moves_total", "counter", "VMs that were to relieve a host, by the result."
)
LIFTED: Final = Family("dynmem_fleet_bans_lifted_total", "counter", "Hosts that a VM may be tried on again.")

COUNTERS: Final = (
    (TURNS, "result"),
    (SILENT, "host"),
    (MOVES, "result"),
    (LIFTED, None),
)
FAMILIES: Final = (
    *(family for family, _ in OF_HOSTS),
    *(ANSWERS, TAKES, BOOKED, PUBLISHED, VM_BOOKED, VM_NEED, VM_BANS, NOTES),
    *(family for family, _ in COUNTERS),
)


@dataclass(slots=True)
class Tally:
    """What has happened since the arbiter began."""

    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, family: Family, what: str = "") -> None:
        """Once more. `what`: the value of the counter's label."""
        self._counts[family.name, what] += 1

    def samples(self, family: Family, label: str | None) -> Iterator[str]:
        """Lines of one counter; `label`: what its values are told apart by."""
        for (name, what), count in self._counts.items():
            if name == family.name:
                yield sample(family, {label: what} if label else {}, count)


def render(cell: Cell, silent: Mapping[str, str], notes: int, tally: Tally) -> bytes:
    """Everything in the Prometheus text format. `notes`: how many settings and figures are not believed."""
    lines: dict[Family, list[str]] = {family: [] for family in FAMILIES}
    _hosts(lines, cell, silent)
    _vms(lines, cell)
    lines[NOTES].append(sample(NOTES, {}, notes))
    for family, label in COUNTERS:
        lines[family] += tally.samples(family, label)
    return b"".join(text_of(family, samples) for family, samples in lines.items())


def _hosts(lines: dict[Family, list[str]], cell: Cell, silent: Mapping[str, str]) -> None:
    for node in cell.nodes:
        figures, label = cell.figures.get(node.name), {"host": node.name}
        for family, read in OF_HOSTS:
            value = None if figures is None else read(figures)
            if value is not None:
                lines[family].append(sample(family, label, value))
        believed = figures is not None and node.name not in silent
        booked = sum(one.published_mib or 0 for one in cell.on(node.name)) * MIB
        for family, number in ((ANSWERS, int(believed)), (TAKES, int(node.takes)), (BOOKED, booked)):
            lines[family].append(sample(family, label, number))
        if node.published_mib is not None:
            lines[PUBLISHED].append(sample(PUBLISHED, label, node.published_mib * MIB))


def _vms(lines: dict[Family, list[str]], cell: Cell) -> None:
    for one in cell.resources:
        figures, label = cell.figures_of(one), {"vm": one.name, "host": one.node or ""}
        if one.published_mib is not None:
            lines[VM_BOOKED].append(sample(VM_BOOKED, label, one.published_mib * MIB))
        if figures is not None:
            lines[VM_NEED].append(sample(VM_NEED, label, figures.floor_bytes))
        if one.bans:
            lines[VM_BANS].append(sample(VM_BANS, {"vm": one.name}, len(one.bans)))
