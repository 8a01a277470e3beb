"""A guest's words have a price: they change what the others can be given by its own maximum at most."""

from functools import cache
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agent import codec, values, wire
from host_controller.core.engine import Engine
from host_controller.core.model import Growth, Limits, Settings
from host_controller.hypervisor.link import Link
from host_controller.simulator.behaviours import BEHAVIOURS
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.simulator.workload import Workload, steady
from host_controller.simulator.world import World
from host_controller.units import GIB, MIB, format_size
from tests.simulated.hostile import FOR_THE_TRUTHFUL, LIAR, harm

CAPACITY = 64 * GIB
"""So large that all that is kept by shares of it is more than the liar's maximum."""
LIMITS = Limits(512 * MIB, 256 * MIB, 2 * GIB)
HONEST = Limits(4 * GIB, GIB, 16 * GIB)
SETTLED = 30.0
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
BOOT = "0b1c2d3e-4f50-4162-9384-a5b6c7d8e9f0"

near = st.sampled_from([0, MIB, 100 * MIB, 256 * MIB, 404 * MIB, 512 * MIB, 640 * MIB, GIB, 2 * GIB])
boot_ids = st.just(BOOT) | st.uuids().map(str)
PSI = ("psi_some_avg10", "psi_full_avg10", "psi_some_total_us", "psi_full_total_us")


def of_kind(kind: values.Kind) -> st.SearchStrategy[Any]:
    """Whatever the wire lets through: a field that is new is tried as well."""
    match kind:
        case values.Kib():
            return near | st.integers(0, values.MAX_SIZE_BYTES >> 10).map(lambda size: size << 10)
        case values.Integer(high=high):
            powers = st.integers(0, 50).map(lambda n: min(high, 1 << n))
            return st.integers(0, min(high, 1000)) | powers | st.integers(0, high)
        case values.Decimal(low=low, high=high):
            return st.floats(low, high)
        case values.Flag():
            return st.booleans()
        case values.Choice(allowed=allowed):
            return st.sampled_from(allowed)
        case values.Text(most=most, least=least, alphabet=alphabet):
            letters = st.sampled_from(alphabet) if alphabet else st.characters(exclude_categories=("C", "Z"))
            return st.text(letters, min_size=least, max_size=most)
        case values.Versions():
            return st.just((1,))
    raise NotImplementedError(type(kind))


@st.composite
def messages(draw: st.DrawFn) -> wire.GuestMessage:
    """Any message; a report keeps the wire's own rules among its fields, or it is only dropped."""
    cls = draw(st.sampled_from([wire.Report, wire.Report, wire.Report, wire.Hello, wire.Ack, wire.Error]))
    told = {field.name: draw(of_kind(field.kind)) for field in codec.fields_of(cls)}
    if cls is wire.Hello:
        told["boot_id"] = draw(boot_ids)
    if cls is wire.Report:
        told["boot_id_prefix"] = draw(boot_ids)[:8]
        told["total_bytes"] = told["total_bytes"] or MIB
        for small, large in codec._NOT_ABOVE:
            if told[small] > told[large]:
                told[small] = draw(st.sampled_from([told[large], told[large] // 2, 0]))
        if draw(st.booleans()):
            told |= dict.fromkeys(PSI)
    return cls(**told)


words = st.lists(st.tuples(st.sampled_from([0.0, 0.06, 0.3, 1.0, 6.0]), messages()), max_size=12)


def budgets(
    growth: Growth, said: list[tuple[float, wire.GuestMessage]], looks: int
) -> tuple[list[int], World]:
    """What the others can be given, after each of the words and for a while; other words, the same times."""
    world = World(CAPACITY)
    engine = Engine(Settings(CAPACITY, shrink_after_seconds=5.0, settle_seconds=2.0))
    world.control(lambda _capacity: engine)
    silent = BEHAVIOURS["agent silent"]
    world.add(GuestSpec(LIAR, LIMITS, growth=growth, workload=Workload(steady(64 * MIB)), behaviour=silent))
    for name in ("one", "two"):
        world.add(GuestSpec(name, HONEST, workload=Workload(steady(GIB))))
    world.run(SETTLED)
    vm = world.vm(LIAR)
    link = Link(vm.uuid, world.now, rate_per_second=1e9, burst=1e9)
    found = []
    for look in range(looks):
        if look < len(said):
            for event in link.feed(codec.encode(said[look][1]), world.now):
                vm.emit(event)
        world.run(0.1)
        found.append(engine.budget_bytes - engine.goals.get(vm.uuid, 0))
        if look < len(said):
            world.run(said[look][0])
    return found, world


@cache
def silence(growth: Growth) -> tuple[int, int]:
    """What the others can be given at the least and at the most while it says nothing at all."""
    found, _ = budgets(growth, [], 600)
    return min(found), max(found)


@pytest.mark.parametrize("growth", list(Growth))
@settings(max_examples=40, deadline=None, phases=PHASES)
@given(said=words)
def test_words_change_what_the_others_can_be_given_by_the_speakers_own_maximum_at_most(
    growth: Growth, said: list[tuple[float, wire.GuestMessage]]
) -> None:
    least, most = silence(growth)
    found, world = budgets(growth, said, len(said) + 10)
    for one in found:
        change = max(most - one, one - least)
        assert change <= LIMITS.maximum_bytes, f"{format_size(change)} by {said}"
    harmed = [str(one) for one in world.violations if one.vm != LIAR or one.rule not in FOR_THE_TRUTHFUL]
    assert harmed == []
    assert world.checker.overdraft_seconds == 0


@pytest.mark.parametrize("seed", range(25))
def test_a_guest_that_says_anything_costs_nobody_else_anything(seed: int) -> None:
    outcome = harm(seed, seconds=30.0)
    assert outcome.good, outcome
