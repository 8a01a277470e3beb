"""Guests that do not take what is plugged into them."""

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt
import pytest

from host_controller.units import MIB
from tests.guests.faults.conftest import LIMITS, FaultFactory
from tests.guests.faults.ward import Ward

SLOTH = (
    'python3 -c \'import sys; sys.path.insert(0, "/lab"); from agent import cli, hotplug; '
    "hotplug.Hotplugger._write_policy = lambda *_: None; "
    "hotplug.Hotplugger._write_online = lambda *_: None; "
    'sys.argv = ["sloth", "run"]; cli.main()\''
)
"""The agent, but for bringing anything online: it confirms the zone, and lets new memory lie."""


@contextmanager
def another(ward: Ward, name: str, parameter: str = "", **spec: str) -> Iterator[Ward]:
    """The ward with another victim, made for this fault; the ordinary one is off meanwhile.

    parameter: of its kernel, added after `enable`, which would refuse it: a guest's own boot loader adds one
    unseen.
    """
    ward.victim.stop()
    victim = ward.rig.add(name, LIMITS, **spec)
    try:
        if parameter:
            victim.stop()
            xml = victim.domain().XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            victim.redefine(xml.replace("</cmdline>", f" {parameter}</cmdline>"))
            ward.rig.start(victim)
            ward.controller.wait_managed(victim)
        yield Ward(ward.rig, victim, ward.neighbour)
    finally:
        victim.remove()
        ward.rig.start(ward.victim)
        ward.controller.wait_managed(ward.victim)


@pytest.mark.parametrize(
    ("name", "fault_name", "spec"),
    [
        ("refuser", "hot add refused by the guest's kernel", {"parameter": "acpi_no_memhotplug"}),
        ("sloth", "hot-added memory never brought online", {"agent": SLOTH}),
    ],
)
def test_a_guest_that_does_not_take_a_dimm(
    ward: Ward, survive: FaultFactory, name: str, fault_name: str, spec: dict[str, str]
) -> None:
    asserted = (
        "no more DIMMs are tried at once, none is taken for memory given; by its balloon it is served on"
    )
    with another(ward, name, **spec) as other:
        workload = other.victim.workload
        with survive(other, fault_name, asserted) as fault, fault.on():
            # More than its boot RAM with its buffer, and less than its boot RAM: it has to do without.
            workload.allocate(300, rate=40)
            workload.wait_event("done", "memory", 60)
            vm = other.controller.wait_vm(other.victim, lambda vm: vm["dimms"] > 0, 60, "a DIMM tried")
            other.rig.observer.lasts(12)
            sample = other.rig.observer.latest().guests[name]
            vm = other.vm()
            fault.saw(
                f"RAM {sample.ram / MIB:.0f} MiB, {vm['offline_bytes'] / MIB:.0f} of it offline, "
                f"{vm['assigned_bytes'] / MIB:.0f} assigned"
            )
            assert vm["assigned_bytes"] <= LIMITS.startup * MIB
            assert vm["dimms"] <= 1
            workload.free()
