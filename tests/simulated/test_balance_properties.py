"""What `balance` promises, of any VMs and any budget."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from host_controller.core.policy.balance import Claims, balance

SIZES = st.integers(0, 1 << 40)


@st.composite
def claims(draw: st.DrawFn) -> Claims:
    return Claims(draw(st.integers(1, 10000)), *sorted(draw(st.tuples(*(SIZES,) * 6))))


HOSTS = st.lists(claims(), min_size=1, max_size=50)
BUDGETS = st.integers(0, 1 << 44)
MANY = settings(max_examples=300, deadline=None)


@MANY
@given(HOSTS, BUDGETS)
def test_it_is_feasible_and_wastes_nothing(vms: list[Claims], budget: int) -> None:
    shares = balance(vms, budget)
    whole = sum(vm.keep for vm in vms)
    assert all(0 <= share <= vm.keep for share, vm in zip(shares, vms, strict=True))
    assert min(budget, whole) - len(vms) <= sum(shares) <= min(budget, whole)


@MANY
@given(HOSTS, BUDGETS)
def test_everybodys_first_claim_comes_before_anybodys_second(vms: list[Claims], budget: int) -> None:
    shares = balance(vms, budget)
    for before in ("irreducible", "need", "likely", "eased", "desired"):
        behind = [s for s, vm in zip(shares, vms, strict=True) if s < getattr(vm, before) - 1]
        above = [s for s, vm in zip(shares, vms, strict=True) if s > getattr(vm, before) + 1]
        assert not (behind and above)


@MANY
@given(HOSTS, BUDGETS, st.randoms(use_true_random=False))
def test_order_does_not_matter(vms: list[Claims], budget: int, rng: object) -> None:
    shares = balance(vms, budget)
    order = list(range(len(vms)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    assert balance([vms[i] for i in order], budget) == [shares[i] for i in order]


@MANY
@given(HOSTS, BUDGETS, st.integers(0, 1 << 40))
def test_more_budget_never_hurts_anybody(vms: list[Claims], budget: int, more: int) -> None:
    before, after = balance(vms, budget), balance(vms, budget + more)
    assert all(a >= b for a, b in zip(after, before, strict=True))


@MANY
@given(HOSTS, BUDGETS, st.integers(0, 49), st.integers(1, 10000))
def test_more_weight_never_hurts_its_owner(vms: list[Claims], budget: int, which: int, more: int) -> None:
    which %= len(vms)
    heavier = list(vms)
    heavier[which] = vms[which]._replace(weight=vms[which].weight + more)
    # λ is rounded down to a 2^-32 byte per unit of weight, so the owner may lose the last byte
    assert balance(heavier, budget)[which] >= balance(vms, budget)[which] - 1


@MANY
@given(HOSTS, BUDGETS, claims())
def test_equal_vms_get_equal_shares(vms: list[Claims], budget: int, twin: Claims) -> None:
    *_, a, b = balance([*vms, twin, twin], budget)
    assert a == b


@MANY
@given(HOSTS, BUDGETS, st.integers(2, 1000))
def test_it_does_not_depend_on_the_unit_of_memory(vms: list[Claims], budget: int, factor: int) -> None:
    small = balance(vms, budget)
    scaled = [Claims(vm.weight, *(size * factor for size in vm[1:])) for vm in vms]
    large = balance(scaled, budget * factor)
    assert all(0 <= b - a * factor <= 2 * factor for a, b in zip(small, large, strict=True))


@MANY
@given(HOSTS, BUDGETS, st.integers(2, 100))
def test_it_does_not_depend_on_the_unit_of_weight(vms: list[Claims], budget: int, factor: int) -> None:
    heavy = [vm._replace(weight=vm.weight * factor) for vm in vms]
    for a, b in zip(balance(vms, budget), balance(heavy, budget), strict=True):
        assert abs(a - b) <= len(vms) + 1


@MANY
@given(HOSTS, BUDGETS)
def test_it_is_exact_weighted_max_min(vms: list[Claims], budget: int) -> None:
    """Nobody within a tier could get more without somebody worse off, per weight, getting less."""
    shares = balance(vms, budget)
    tiers = [(0, *vm[1:]) for vm in vms]
    for tier in range(6):
        inside = [
            (Fraction(share, vm.weight), Fraction(1, vm.weight), share, t[tier], t[tier + 1])
            for share, vm, t in zip(shares, vms, tiers, strict=True)
        ]
        if sum(t[tier + 1] for t in tiers) <= budget:
            continue
        if sum(t[tier] for t in tiers) > budget:
            break
        # λ lies between the levels of those held up by their floor and those held down by their ceiling
        free = [(level, unit) for level, unit, x, lo, hi in inside if lo < x < hi]
        for level, unit in free:
            for other, other_unit in free:
                assert abs(level - other) <= unit + other_unit
            assert all(low >= level - unit - u for low, u, x, lo, hi in inside if x == lo < hi)
            assert all(high <= level + unit + u for high, u, x, lo, hi in inside if lo < x == hi)
        break
