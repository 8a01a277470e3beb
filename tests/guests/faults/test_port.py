"""Faults of what comes through the agent's port: too much of it, no end of it, no sense, or only lies."""

import pytest

from host_controller.units import MIB
from lab.hostile import Lie, bind_balloon, forge_actual, put_agent, put_liar, unbind_balloon
from tests.guests.faults.conftest import FaultFactory
from tests.guests.faults.ward import Ward

PEAK = 24 * MIB
"""Above what it had before, while a guest does its worst: it holds a read of 64 KiB and a line of 4 KiB."""


def noticed(ward: Ward) -> dict[str, int]:
    """What the controller did not believe of the victim, by kind."""
    counts: dict[str, int] = ward.vm()["ignored"]
    return counts


@pytest.mark.parametrize(
    ("lie", "name"),
    [
        (Lie.FLOOD, "port flooded at full speed for 10 s"),
        (Lie.ENDLESS_LINE, "a line of 1 GiB"),
        (Lie.NOISE, "binary noise"),
    ],
)
def test_what_is_too_much_is_drained_and_counted(
    ward: Ward, survive: FaultFactory, lie: Lie, name: str
) -> None:
    asserted = f"drained and counted; the controller's RSS stays within {PEAK // MIB} MiB of what it was"
    with survive(ward, name, asserted) as fault:
        before, counts = ward.resident(), noticed(ward)
        most = before
        with fault.on():
            put_liar(ward.victim, lie)
            for _ in range(20):
                ward.rig.observer.lasts(0.5)
                most = max(most, ward.resident())
            put_agent(ward.victim)
        counts = {key: count - counts.get(key, 0) for key, count in noticed(ward).items()}
        fault.saw(f"counted {', '.join(f'{count} {key}' for key, count in counts.items() if count)}")
        fault.saw(f"RSS at most {(most - before) / MIB:+.1f} MiB meanwhile")
        assert sum(counts.values()) > 0
        assert most - before <= PEAK


def test_half_a_line_and_then_silence(ward: Ward, survive: FaultFactory) -> None:
    asserted = (
        "silence is noticed, statistics stand in; the next agent's first line is not lost in the half one"
    )
    with survive(ward, "a truncated line, then silence", asserted) as fault, fault.on():
        put_liar(ward.victim, Lie.CUT)
        ward.controller.wait_vm(ward.victim, lambda vm: vm["agent"] is None, 60, "silence noticed")
        put_agent(ward.victim)


@pytest.mark.parametrize(
    ("lie", "name", "kind"),
    [
        (Lie.DEMAND_2_63, "a demand of 2^63", "bad-field"),
        (Lie.AVAILABLE_ABOVE_TOTAL, "available > total", "bad-field"),
        (Lie.TOTAL_ABOVE_MAXIMUM, "total > maximum", "total-above-ram"),
        (Lie.FROZEN, "frozen counters", "sequence-back"),
        (Lie.SEQUENCE_BACK, "a sequence that goes back", "sequence-back"),
    ],
)
def test_a_lie_is_dropped_and_counted(
    ward: Ward, survive: FaultFactory, lie: Lie, name: str, kind: str
) -> None:
    asserted = f"not believed, counted as `{kind}`; the victim is never given more than it had and needed"
    with survive(ward, name, asserted) as fault:
        before, size = noticed(ward).get(kind, 0), ward.vm()["assigned_bytes"]
        largest = size
        with fault.on():
            put_liar(ward.victim, lie)
            for _ in range(16):
                ward.rig.observer.lasts(0.5)
                largest = max(largest, ward.vm()["assigned_bytes"])
            put_agent(ward.victim)
        dropped = noticed(ward).get(kind, 0) - before
        fault.saw(f"{dropped} × {kind}, {size / MIB:.0f} → at most {largest / MIB:.0f} MiB")
        assert dropped > 0, noticed(ward)
        assert largest <= size + 64 * MIB


def test_a_forged_actual_is_found_out(ward: Ward, survive: FaultFactory) -> None:
    asserted = (
        "no byte of the claimed release is spent: the charge does not fall; the balloon is set right again"
    )
    with survive(ward, "a forged `actual`", asserted) as fault:
        charge = ward.vm()["charge_bytes"]
        lowest = charge
        with fault.on():
            forge_actual(ward.victim, 64)
            for _ in range(16):
                ward.rig.observer.lasts(0.5)
                lowest = min(lowest, ward.vm()["charge_bytes"])
        fault.saw(f"charge {charge / MIB:.0f} → at least {lowest / MIB:.0f} MiB")
        assert lowest >= charge - 32 * MIB


def test_an_unbound_driver_is_charged_all_of_its_ram(ward: Ward, survive: FaultFactory) -> None:
    asserted = "the guest has all of its RAM, and is charged with it"
    with survive(ward, "balloon driver unbound", asserted) as fault, fault.on():
        unbind_balloon(ward.victim)
        taken = ward.controller.wait_vm(
            ward.victim, lambda vm: vm["charge_bytes"] >= vm["ram_bytes"], 60, "charged all of its RAM"
        )
        ward.rig.observer.lasts(8)
        kept = ward.vm()
        fault.saw(f"charge {taken['charge_bytes'] / MIB:.0f} of RAM {taken['ram_bytes'] / MIB:.0f} MiB")
        assert kept["charge_bytes"] >= kept["ram_bytes"]
        bind_balloon(ward.victim)
