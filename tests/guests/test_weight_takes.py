"""When memory is short weight takes what a lighter guest can drop, then what it can put into its own swap,
and never what its kernel would kill for.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from host_controller.units import MIB
from lab.controller import Limits
from lab.guest import Guest
from tests.guests.conftest import Rig, RigFactory

CAPACITY = 1500
"""While the heavy one boots, all of its RAM is charged beside a light one at rest."""
LIGHT = Limits(minimum=160, maximum=1024, buffer=5, weight=100, growth="balloon", startup=1024)
HEAVY = Limits(minimum=160, maximum=1024, buffer=5, weight=1000, growth="balloon", startup=512)
HELD_MIB = 780
"""What the light one's programs hold: with that the host is as good as full."""
USED_MIB, READ_MIB, WANTED_MIB = 400, 300, 320
"""What one of these programs holds; a file that is read where the others were; and what the heavy one needs:
some 120 MiB that are still free, and two thirds of the file.
"""
MOST_PSI = 60.0
"""Of ten seconds, percent: it swaps to a file under TCG, and its stalls slow its squeezing down."""

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def rig(make_shared_rig: RigFactory) -> Iterator[Rig]:
    rig = make_shared_rig(CAPACITY, shrink_after=2, keep_ready=16)
    light = rig.add("light", LIGHT, swap_mib=512)
    rig.controller.wait_at_rest(light, limit=60)
    rig.add("heavy", HEAVY, swap_mib=256)
    yield rig
    rig.assert_within()


@pytest.fixture
def guests(rig: Rig) -> tuple[Guest, Guest]:
    """At rest, and the light one holds what there is; only the light one has swap."""
    light, heavy = rig.guests["light"], rig.guests["heavy"]
    for guest in (light, heavy):
        guest.workload.free()
    heavy.workload.exec("swapoff -a")
    rig.controller.wait_at_rest(light, heavy, limit=60)
    for name, mib in (("memory", USED_MIB), ("more", HELD_MIB - USED_MIB)):
        light.workload.allocate(mib, rate=100, name=name, swaps=True)
        light.workload.wait_event("done", name, 60)
    rig.controller.wait_at_rest(light, heavy, limit=60)
    return light, heavy


@contextmanager
def only_what_others_need(rig: Rig) -> Iterator[None]:
    """Meanwhile nobody's memory is taken because it has lain idle for a while."""
    controller, text = rig.controller, rig.controller.config.read_text()
    patient = text.replace("shrink_after = 2\n", "shrink_after = 3600\n")
    assert patient != text
    controller.config.write_text(patient)
    controller.client.post("reload")
    try:
        yield
    finally:
        controller.config.write_text(text)
        controller.client.post("reload")


def swapped_out_mib(guest: Guest) -> float:
    return guest.workload.memory().vmstat["pswpout"] * 4096 / MIB


def cached_mib(guest: Guest, path: str) -> float:
    """What of a file is in its guest's memory."""
    return int(guest.workload.exec(f"fincore --bytes --noheadings --output RES {path}")) / MIB


def stalls(guest: Guest) -> float:
    return float(guest.workload.memory().psi.split("avg10=", 1)[1].split()[0])


def test_a_heavier_guests_program_lives_while_the_lighter_one_swaps_at_its_own_pace(
    rig: Rig, guests: tuple[Guest, Guest]
) -> None:
    light, heavy = guests
    before, had = swapped_out_mib(light), rig.controller.vm(heavy)["assigned_bytes"]
    heavy.workload.allocate(300, rate=8, swaps=True)
    worst = 0.0

    def grown(_: object) -> bool:
        nonlocal worst
        worst = max(worst, stalls(light))
        return bool(rig.controller.vm(heavy)["assigned_bytes"] > had + 250 * MIB)

    rig.controller.wait_for(grown, 120, "the heavy one has what it needs")
    heavy.workload.wait_event("done", "memory", 60)
    swapped = swapped_out_mib(light) - before
    print(f"\nthe light one swapped {swapped:.0f} MiB, PSI some avg10 at most {worst:.0f} %")
    assert heavy.workload.memory().vmstat["oom_kill"] == 0
    assert light.workload.memory().vmstat["oom_kill"] == 0
    assert swapped > 50
    assert worst <= MOST_PSI


def test_a_lighter_guests_cache_is_dropped_before_it_swaps(rig: Rig, guests: tuple[Guest, Guest]) -> None:
    """A file that it has read, and reads no more. Nothing comes back into its cache, so what is left of it
    at the end was there to be dropped all the time.
    """
    light, heavy = guests
    with only_what_others_need(rig):
        light.workload.free("more")
        light.workload.exec(f"truncate -s {READ_MIB}M /read && cat /read > /dev/null", limit=60)
        before, cached = swapped_out_mib(light), cached_mib(light, "/read")
        assert cached == READ_MIB
        heavy.workload.allocate(WANTED_MIB, rate=30, swaps=True)
        heavy.workload.wait_event("done", "memory", 120)
        swapped, left = swapped_out_mib(light) - before, cached_mib(light, "/read")
    light.workload.exec("rm /read")
    print(f"\nthe light one dropped {cached - left:.0f} of {cached:.0f} MiB, and swapped {swapped:.1f} MiB")
    for guest in (light, heavy):
        assert guest.workload.memory().vmstat["oom_kill"] == 0
    assert swapped < (cached - left) / 20  # now and then its kernel takes some pages of a program
    assert cached - left > READ_MIB / 3
    assert left > READ_MIB / 10


def test_without_swap_the_heavier_one_waits_and_is_told_why(rig: Rig, guests: tuple[Guest, Guest]) -> None:
    light, heavy = guests
    light.workload.free()
    light.workload.exec("swapoff -a", limit=60)
    light.workload.allocate(HELD_MIB, rate=100, swaps=True)
    light.workload.wait_event("done", "memory", 60)
    rig.controller.wait_at_rest(light, heavy, limit=60)
    heavy.workload.exec("swapon /swapfile")
    held = rig.controller.vm(light)["assigned_bytes"]
    heavy.workload.allocate(300, rate=20, swaps=True)

    def told(_: object) -> bool:
        why = rig.controller.client.get("vms", heavy.name, "explain")["why"]
        return "no swap on a disk can take it" in str(why)

    rig.controller.wait_for(told, 60, "explain says why it waits")
    assert rig.controller.vm(light)["assigned_bytes"] >= held - 64 * MIB
    assert light.workload.memory().vmstat["oom_kill"] == 0
