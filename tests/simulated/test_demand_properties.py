"""What `Demand` promises, of any readings that a guest may send."""

from hypothesis import given, settings
from hypothesis import strategies as st

from host_controller.core.model import GuestFacts, Limits
from host_controller.core.vm.demand import Demand
from host_controller.core.vm.stalls import STALL_LIMIT
from host_controller.units import GIB, MIB

LIMITS = Limits(1 * GIB, 256 * MIB, 8 * GIB)
MANY = settings(max_examples=200, deadline=None)


@st.composite
def readings(draw: st.DrawFn) -> list[GuestFacts]:
    """One boot's readings: counters go forward, the rest goes anywhere."""
    at, swap_in, refault, stall = 0.0, 0, 0, 0
    found = []
    for sequence in range(draw(st.integers(1, 30))):
        at += draw(st.floats(0.05, 20.0))
        swap_in += draw(st.integers(0, 1 << 30))
        refault += draw(st.integers(0, 1 << 30))
        stall += draw(st.integers(0, 20_000_000))
        usable = draw(st.integers(64 * MIB, 16 * GIB))
        available = draw(st.integers(0, usable))
        free = draw(st.integers(0, available))
        facts = GuestFacts(
            at, "boot", sequence, True, usable, available, free, available - free, usable, usable, 0, 0,
            draw(st.integers(0, 64 * MIB)), draw(st.integers(0, 4 * GIB)), swap_in, refault, stall,
        )  # fmt: skip
        found.append(facts)
    return found


@MANY
@given(readings())
def test_every_estimate_lies_within_the_limits_and_in_order(told: list[GuestFacts]) -> None:
    demand = Demand()
    for facts in told:
        demand.observe(facts)
        found = demand.estimate(LIMITS, facts.at)
        assert found is not None
        ordered = (LIMITS.minimum_bytes, found.irreducible_bytes, found.need_bytes, found.desired_bytes)
        assert list(ordered) == sorted(ordered)
        assert found.desired_bytes <= LIMITS.maximum_bytes


@MANY
@given(readings())
def test_what_is_added_to_demand_is_bounded_by_what_it_stands_for(told: list[GuestFacts]) -> None:
    demand = Demand()
    largest_demand = largest_cache = 0
    for facts in told:
        demand.observe(facts)
        found = demand.estimate(LIMITS, facts.at)
        assert found is not None
        largest_demand = max(largest_demand, facts.demand_bytes)
        largest_cache = max(largest_cache, facts.reclaimable_bytes + facts.usable_bytes // 16)
        assert 0 <= found.hot_swap_bytes <= facts.swap_used_bytes
        assert 0 <= found.stall_bytes <= STALL_LIMIT * largest_demand + 1
        assert 0 <= found.cache_bytes <= largest_cache
        assert found.ahead_bytes <= max(found.guest_bytes // 2, 64 * MIB)


@MANY
@given(readings(), st.integers(1, 1900))
def test_a_larger_buffer_never_asks_for_less(told: list[GuestFacts], more: int) -> None:
    demand = Demand()
    for facts in told:
        demand.observe(facts)
    small = demand.estimate(LIMITS, told[-1].at)
    large = demand.estimate(Limits(1 * GIB, 256 * MIB, 8 * GIB, 20 + more), told[-1].at)
    assert small is not None
    assert large is not None
    assert large.desired_bytes >= small.desired_bytes
    assert large.need_bytes == small.need_bytes


@MANY
@given(readings())
def test_what_was_added_fades_when_its_cause_is_gone(told: list[GuestFacts]) -> None:
    demand = Demand()
    for facts in told:
        demand.observe(facts)
    last = told[-1]
    calm = last
    for i in range(1, 400):
        calm = GuestFacts(
            last.at + 30.0 * i, "boot", last.sequence + i, True, 4 * GIB, 3 * GIB, 3 * GIB, 0, 4 * GIB,
            4 * GIB, 0, 0, 8 * MIB, 0, last.swap_in_bytes, last.refault_bytes, last.stall_us,
        )  # fmt: skip
        demand.observe(calm)
    found = demand.estimate(LIMITS, calm.at)
    assert found is not None
    assert found.demand_bytes - found.guest_bytes < 32 * MIB
