"""OpenStack's Placement, the real service: what it would place before and after it is told of true demand."""

import random
import time
import uuid

import pytest

from host_controller.fleet.core.model import HostFigures
from host_controller.fleet.placement.publisher import Placement
from host_controller.units import GIB, MIB
from lab.placement import TOKEN, PlacementService, uuid_of
from tests.unit.fleet.cells import vm

pytestmark = [pytest.mark.fleet, pytest.mark.figures]
HOSTS, AGAIN, VMS = 1000, 100, 8
TOTAL, RESERVED, FLAVOR, WANTED = 256 * GIB, 4 * GIB, 24 * GIB, 64 * GIB
"""By their flavors a host's VMs leave 60 GiB."""
SHARE = 0.1
"""Of one core, over a minute."""


def fleet() -> dict[str, HostFigures | None]:
    """Hosts whose VMs need a part of what they may have. Every fiftieth host is silent."""
    chance = random.Random(18)
    found: dict[str, HostFigures | None] = {}
    for number in range(HOSTS):
        least = chance.randint(8, FLAVOR // GIB)
        vms = tuple(
            vm(str(uuid.UUID(int=number * VMS + one)), chance.randint(least, FLAVOR // GIB) * GIB)
            for one in range(VMS)
        )
        capacity = TOTAL - RESERVED
        free = capacity - sum(one.floor_bytes for one in vms)
        found[f"host{number}"] = HostFigures(capacity, 0, free, vms) if number % 50 else None
    return found


def test_a_thousand_hosts_are_published_and_candidates_are_those_that_truly_have_room() -> None:
    figures = fleet()
    uuids = [str(uuid.UUID(int=one)) for one in range(HOSTS * VMS)]
    coming = str(uuid.UUID(int=HOSTS * VMS))
    placed = {name: uuids[number * VMS :][:VMS] for number, name in enumerate(figures)}
    placed["host1"].append(coming)
    room = {name: one.admits_bytes for name, one in figures.items() if one is not None}
    room["host1"] -= FLAVOR
    with PlacementService() as service:
        service.stock(placed, TOTAL // MIB, RESERVED // MIB, FLAVOR // MIB)
        service.start()
        assert service.candidates(WANTED // MIB) == set()
        publisher = Placement(service.endpoint, TOKEN)
        for hosts, what in ((HOSTS, "all ratios new"), (AGAIN, "nothing new")):
            wall, own, theirs = time.monotonic(), time.process_time(), service.processor_seconds()
            done = publisher.publish(dict(list(figures.items())[:hosts]))
            wall, own = time.monotonic() - wall, time.process_time() - own
            written = sum(one.ratio is not None for one in done)
            theirs = service.processor_seconds() - theirs
            print(f"{hosts} hosts, {what}: {wall:.1f} s, {written} ratios written. Of a processor it took")
            print(f"    {own:.2f} s of ours and {theirs:.1f} s of the service's")
            assert [one for one in done if one.problem] == []
            assert own < SHARE * 60
        assert {one.ratio for one in done} == {None}
        found = service.candidates(WANTED // MIB)
        print(f"hosts that could take {WANTED // GIB} GiB: none before, {len(found)} after")
    true = {name for name, free in room.items() if free >= WANTED}
    assert found == {uuid_of(name) for name in true}
