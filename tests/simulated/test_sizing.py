"""A law's VMs grow as ours do, whichever way that is: no peer looks helpless for want of hands."""

from dataclasses import replace
from pathlib import Path

import pytest

from host_controller.core.model import Growth
from host_controller.simulator.laws import LAWS
from host_controller.simulator.trial import play, simulate
from host_controller.simulator.trial_file import Trial, read_trial
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB

WORST = Path(__file__).parents[1] / "data" / "worst"


def with_growth(trial: Trial, growth: Growth) -> Trial:
    vms = tuple(replace(vm, spec=replace(vm.spec, growth=growth)) for vm in trial.vms)
    return replace(trial, vms=vms)


@pytest.fixture
def trial() -> Trial:
    return read_trial(WORST / "law-on-hotadd.toml")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("growth", Growth)
def test_a_law_gives_a_vm_more_than_startup_in_every_way_of_growing(
    trial: Trial, law: str, growth: Growth
) -> None:
    """The slowest, in steps of 100 MiB every 10 s, gets to 4 GiB in that time."""
    [web] = simulate(with_growth(trial, growth), law).vms
    assert web.largest_assigned_bytes > 3 * GIB


@pytest.mark.parametrize("growth", Growth)
def test_a_law_that_knows_the_future_leaves_nobody_short_in_any_way_of_growing(
    trial: Trial, growth: Growth
) -> None:
    result = simulate(with_growth(trial, growth), "clairvoyant")
    assert result.unmet_mib_seconds == 0
    assert result.footprint < 1.15


@pytest.mark.parametrize("growth", Growth)
def test_a_vm_ends_within_a_memory_block_of_what_its_law_wants(trial: Trial, growth: Growth) -> None:
    there: list[float] = []
    play(
        with_growth(trial, growth),
        LAWS["peak"],
        each_second=lambda world, _: there.append(world.vm("web").memory.usable),
    )
    needed = there[-1]
    # Its peak and a fifth: 5 GiB of programs and some 250 MiB of kernel.
    assert 6.1 * GIB <= needed <= 6.4 * GIB + 128 * MIB
    assert there[-1] == there[-60], "and then it is left alone"


def test_dimms_of_a_law_never_run_out_of_slots(trial: Trial) -> None:
    [vm] = trial.vms
    few = replace(trial, vms=(replace(vm, spec=replace(vm.spec, slots=3)),))

    def look(world: World, _: object) -> None:
        assert len(world.vm("web").slots.dimms) <= 3

    result = play(few, LAWS["clairvoyant"], each_second=look)
    assert result.vms[0].largest_assigned_bytes > 5 * GIB


def test_qemus_own_memory_is_taken_off_for_laws_as_for_ours(trial: Trial) -> None:
    [vm] = trial.vms
    spec = replace(vm.spec, growth=Growth.BALLOON, overhead_bytes=1 * GIB)
    small = replace(trial, capacity_bytes=6 * GIB, vms=(replace(vm, spec=spec),), warm_up_seconds=60.0)
    assert play(small, LAWS["squeezed"]).vms[0].largest_assigned_bytes <= 5 * GIB + MIB
