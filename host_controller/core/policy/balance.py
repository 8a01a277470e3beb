"""Who gets how much when it does not reach for all: one exact, pure function.

Each VM makes six claims, each at least the one before. The budget is laid out in tiers: everybody's
first claim comes before anybody's second. Within a tier VMs get `clamp(λ·weight, lo, hi)` with one λ for
all: weighted max-min fairness on totals, so a VM of twice the weight ends with twice the memory unless
its own claims stop it. Weighted max-min: Bertsekas & Gallager, Data Networks (2nd ed.), section 6.5.2.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

_SHIFT: Final = 32
"""λ is an integer of 2^-32 byte per unit of weight: all arithmetic is exact, and what is left over by
rounding is below one byte per VM."""


class Claims(NamedTuple):
    """What one VM asks for, bytes of usable memory, each at least the one before it."""

    weight: int
    irreducible: int
    """Below it the guest cannot go."""
    need: int
    """What it works with now."""
    likely: int
    """Need and what its stalls ask for, or that part of its noise which comes all the time."""
    eased: int
    """Need and what its noise or its stalls ask for: heard before anybody's buffer, and after all needs."""
    desired: int
    """Need and the buffer that its user wants."""
    keep: int
    """What it may keep as long as nobody else has a use for it."""


def balance(claims: Collection[Claims], budget_bytes: int) -> list[int]:
    """Bytes for each VM, in the order of the claims.

    Their sum is min(budget, Σ keep), short by less than a byte per VM; it does not depend on the order;
    nobody gets less when the budget or the VM's own weight grows.
    """
    if not claims:
        return []
    weights, *tiers = zip(*claims, strict=True)
    for lo, hi in pairwise(((0,) * len(claims), *tiers)):
        if sum(hi) > budget_bytes:
            return fill(weights, lo, hi, budget_bytes)
    return list(tiers[-1])


def fill(weights: Sequence[int], lo: Sequence[int], hi: Sequence[int], budget_bytes: int) -> list[int]:
    """The weighted max-min shares within [lo, hi] that spend the budget.

    weights: >= 1. lo[i] <= hi[i], bytes. A budget below Σ lo gives lo, one above Σ hi gives hi.
    """
    if sum(hi) <= budget_bytes:
        return list(hi)
    if sum(lo) >= budget_bytes:
        return list(lo)
    level = _water_level(weights, lo, hi, budget_bytes)
    shares = [level * weight >> _SHIFT for weight in weights]
    return [
        low if share < low else high if share > high else share
        for share, low, high in zip(shares, lo, hi, strict=True)
    ]


def _water_level(weights: Sequence[int], lo: Sequence[int], hi: Sequence[int], budget_bytes: int) -> int:
    """The largest integer λ for which Σ clamp(λ·w, lo, hi), all shifted by _SHIFT, is within the budget.

    The sum is piecewise linear in λ and bends where a VM leaves its lo or reaches its hi; it is walked
    from bend to bend. Flooring the bends is exact, since λ is an integer.
    """
    bends = []
    for weight, low, high in zip(weights, lo, hi, strict=True):
        if low < high:
            bends.append(((low << _SHIFT) // weight, weight, -low))
            bends.append(((high << _SHIFT) // weight, -weight, high))
    bends.sort()
    slope = 0
    constant = sum(lo)
    budget = budget_bytes << _SHIFT
    for at, weight_change, constant_change in bends:
        if slope and (constant << _SHIFT) + at * slope > budget:
            break
        slope += weight_change
        constant += constant_change
    return (budget - (constant << _SHIFT)) // slope
