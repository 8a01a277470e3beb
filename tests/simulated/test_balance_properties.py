"""What `balance` promises, of any VMs and any budget."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from host_controller.core.policy.balance import Claims, balance, settle

SIZES = st.integers(0, 1 << 40)


@st.composite
def claims(draw: st.DrawFn) -> Claims:
    a, b, c, d = sorted(draw(st.tuples(SIZES, SIZES, SIZES, SIZES)))
    return Claims(draw(st.integers(1, 10000)), a, b, c, d)


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
    for before in ("irreducible", "need", "desired"):
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
    for tier in range(4):
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


@st.composite
def settled_claims(draw: st.DrawFn) -> Claims:
    a, b, c, d, e = sorted(draw(st.tuples(*(SIZES,) * 5)))
    held, flutter = draw(SIZES), draw(st.integers(0, 1 << 30))
    return Claims(draw(st.integers(1, 10000)), a, b, d, e, c, held, flutter)


SETTLED = st.lists(settled_claims(), min_size=1, max_size=30)


def settled(vms: list[Claims], budget: int, slack: int = 0) -> tuple[list[int], list[int]]:
    fair = balance(vms, budget)
    return fair, settle(vms, fair, budget, slack)


@MANY
@given(SETTLED, BUDGETS, st.integers(0, 1 << 38))
def test_what_is_settled_is_within_the_budget_and_its_slack(
    vms: list[Claims], budget: int, slack: int
) -> None:
    assert sum(settled(vms, budget, slack)[1]) <= budget + slack


@MANY
@given(SETTLED, BUDGETS, st.integers(0, 1 << 38))
def test_nobody_is_moved_away_from_what_is_fair(vms: list[Claims], budget: int, slack: int) -> None:
    fair, goals = settled(vms, budget, slack)
    for vm, part, goal in zip(vms, fair, goals, strict=True):
        assert min(vm.granted, part) <= goal <= max(vm.granted, part, vm.desired)
        if goal > vm.granted:
            assert goal >= part, "who is given memory gets all that is fair, not a part of it"


@MANY
@given(SETTLED, BUDGETS)
def test_who_has_what_was_settled_stays_there(vms: list[Claims], budget: int) -> None:
    """A host in which nothing changes is at rest after one round."""
    _, goals = settled(vms, budget)
    there = [
        vm._replace(granted=goal, keep=max(goal, vm.desired)) for vm, goal in zip(vms, goals, strict=True)
    ]
    again = settle(there, balance(there, budget), budget, 0)
    for goal, after in zip(goals, again, strict=True):
        assert abs(after - goal) <= len(vms) + 1


@MANY
@given(SETTLED, BUDGETS, st.randoms(use_true_random=False))
def test_who_moves_does_not_depend_on_the_order(vms: list[Claims], budget: int, rng: object) -> None:
    _, goals = settled(vms, budget)
    order = list(range(len(vms)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    assert settled([vms[i] for i in order], budget)[1] == [goals[i] for i in order]
