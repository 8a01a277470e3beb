"""What a guest says is worth nothing where it could gain by it: no trust at all, a forged balloon, greed."""

from collections.abc import Iterator

import pytest

from host_controller.units import MIB
from lab.controller import Limits, dynmem
from lab.guest import Guest
from lab.hostile import Lie, bind_balloon, put_agent, put_liar, unbind_balloon
from tests.guests.conftest import Rig, RigFactory

CAPACITY = 2000
RAM = 1024 * MIB
LIAR, HONEST = "liar", "honest"
BOOTED = 10.0
"""Seconds without a command: some seconds after its boot a guest comes to need 100 MiB more, for a moment."""
WEIGHTS = {LIAR: 100, HONEST: 100}


@pytest.fixture(scope="module")
def rig(make_shared_rig: RigFactory) -> Iterator[Rig]:
    rig = make_shared_rig(CAPACITY, keep_ready=0)
    # By its balloon a liar grows quicker: a DIMM would need some free memory, which it would have to admit.
    liar = rig.define(LIAR, Limits(minimum=160, maximum=1024, weight=WEIGHTS[LIAR], growth="balloon"))
    honest = rig.define(HONEST, Limits(minimum=160, maximum=1024, weight=WEIGHTS[HONEST]))
    guests = [liar, honest]
    rig.start(*guests)
    rig.controller.wait_managed(*guests)
    yield rig
    rig.assert_within()


@pytest.fixture
def liar(rig: Rig) -> Guest:
    """The guest, squeezed and at rest."""
    guest = rig.guests[LIAR]
    rig.controller.wait_at_rest(guest, quiet=BOOTED)
    rig.controller.wait_vm(guest, lambda vm: vm["actual_bytes"] < 300 * MIB, 90, "squeezed")
    return guest


def flagged(rig: Rig, guest: Guest) -> list[str]:
    """The phases that were told of a VM, newest last."""
    entries = rig.controller.client.follow("events", after=0)
    return [one["text"] for one in entries if one["topic"] == "phase" and one["name"] == guest.name]


def test_a_vm_without_trust_is_charged_all_of_its_ram_and_not_squeezed(rig: Rig, liar: Guest) -> None:
    uri = liar.session.uri
    small = rig.controller.vm(liar)
    assert small["charge_bytes"] < RAM
    done = dynmem("set", liar.name, "--trust=none", "--connect", uri)
    assert done.returncode == 0, done.stderr
    assert "no trust now" in done.stdout
    vm = rig.controller.wait_vm(liar, lambda vm: vm["charge_bytes"] >= RAM, 60, "charged with all of its RAM")
    assert vm["trust"] == "none"
    explained = rig.controller.client.get("vms", liar.name, "explain")["charge"]
    assert any(part["name"] == "untrusted" and part["deciding"] for part in explained)
    liar.workload.allocate(150, rate=50)
    liar.workload.wait_event("done", "memory", 60)
    grown = rig.controller.wait_vm(
        liar,
        lambda vm: vm["assigned_bytes"] > small["assigned_bytes"] + 100 * MIB,
        20,
        "it grows all the same",
    )
    liar.workload.free()
    rig.controller.wait_vm(
        liar, lambda vm: vm["demand_bytes"] < grown["demand_bytes"] - 100 * MIB, 60, "freed"
    )
    rig.controller.wait_at_rest(liar, quiet=6.0)
    kept = rig.controller.vm(liar)
    print(f"\ncharge {kept['charge_bytes'] / MIB:.0f}, assigned {kept['assigned_bytes'] / MIB:.0f} MiB")
    assert kept["assigned_bytes"] >= grown["assigned_bytes"], "what it gave back would free nothing"
    assert dynmem("set", liar.name, "--trust=guest", "--connect", uri).returncode == 0
    rig.controller.wait_vm(liar, lambda vm: vm["charge_bytes"] < RAM, 60, "trusted again")


@pytest.mark.faults
def test_a_forged_actual_gains_nothing_and_one_that_is_kept_up_is_flagged(rig: Rig, liar: Guest) -> None:
    charge = rig.controller.vm(liar)["charge_bytes"]
    lowest = charge

    def looked(vm: dict[str, int | str]) -> bool:
        nonlocal lowest
        lowest = min(lowest, int(vm["charge_bytes"]))
        return vm["phase"] == "contradicted"

    # The driver writes the truth when it moves next, so whoever wants to be believed writes again and again.
    liar.workload.exec(
        "(while :; do forge-actual 960; sleep 0.2; done) > /dev/null 2>&1 & echo $! > /tmp/forger"
    )
    try:
        vm = rig.controller.wait_vm(liar, looked, 60, "found out")
        assert vm["charge_bytes"] >= vm["ram_bytes"]
        assert lowest >= charge - 16 * MIB, "no byte of the release was believed"
    finally:
        liar.workload.exec("kill $(cat /tmp/forger)")  # and nobody sets right what it wrote last
    print(f"\ncharge {charge / MIB:.0f} → {vm['charge_bytes'] / MIB:.0f} MiB, never below {lowest / MIB:.0f}")
    rig.controller.wait_vm(liar, lambda vm: vm["phase"] == "live", 60, "believed again")
    assert any("contradicted" in text for text in flagged(rig, liar))


def test_an_unbound_balloon_driver_is_charged_all_of_its_ram_and_told(rig: Rig, liar: Guest) -> None:
    def told() -> list[str]:
        entries = rig.controller.client.follow("events", after=before)
        return [one["text"] for one in entries if one["name"] == liar.name and one["topic"] == "balloon"]

    before = max(one["number"] for one in rig.controller.client.follow("events", after=0))
    unbind_balloon(liar)
    vm = rig.controller.wait_vm(liar, lambda vm: vm["charge_bytes"] >= RAM, 60, "charged with all of its RAM")
    rig.controller.wait_for(lambda _: any("without us" in text for text in told()), 60, "told")
    kept = rig.controller.vm(liar)
    print(f"\n{vm['phase']}, charge {kept['charge_bytes'] / MIB:.0f} MiB; told: {told()[-1]}")
    assert kept["charge_bytes"] >= RAM
    bind_balloon(liar)
    rig.controller.wait_vm(liar, lambda vm: vm["actual_bytes"] < 300 * MIB, 100, "squeezed again")


@pytest.mark.faults
def test_a_greedy_liar_gets_its_weighted_share_under_contention_and_no_more(rig: Rig, liar: Guest) -> None:
    honest = rig.guests[HONEST]
    honest.workload.allocate(740, rate=60)
    honest.workload.wait_event("done", "memory", 60)
    alone = rig.controller.vm(honest)
    put_liar(liar, Lie.NEEDY)
    try:
        rig.controller.wait_vm(
            liar, lambda vm: vm["assigned_bytes"] > 600 * MIB, 60, "it gets a lot by lying"
        )
        rig.controller.wait_at_rest(*rig.guests.values(), limit=90)
        sample = rig.observer.latest()
        got = {name: float(sample.guests[name].actual) for name in WEIGHTS}
        share = sum(got.values()) * WEIGHTS[LIAR] / sum(WEIGHTS.values())
        vm = rig.controller.vm(honest)
        print(
            f"\nhonest {alone['assigned_bytes'] / MIB:.0f} → {got[HONEST] / MIB:.0f} MiB, "
            f"liar {got[LIAR] / MIB:.0f} MiB of a share of {share / MIB:.0f}"
        )
        assert got[LIAR] <= share + 16 * MIB
        assert got[HONEST] >= vm["need_bytes"] - 16 * MIB, "nothing that it needs was taken"
        assert honest.workload.memory().vmstat["oom_kill"] == 0
    finally:
        put_agent(liar)
        honest.workload.free()
    rig.controller.wait_vm(liar, lambda vm: vm["assigned_bytes"] < 500 * MIB, 90, "honest again, and smaller")
