"""Who gets how much when it does not reach for all: two exact, pure functions.

`balance` says what is fair. Each VM makes five claims, each at least the one before. The budget is laid
out in tiers: everybody's first claim comes before anybody's second. Within a tier VMs get
`clamp(λ·weight, lo, hi)` with one λ for all: weighted max-min fairness on totals, so a VM of twice the weight
ends with twice the memory unless its own claims stop it. Weighted max-min: Bertsekas & Gallager, Data
Networks (2nd ed.), section 6.5.2.

`settle` says who moves. What is fair changes with every breath of every guest; what a VM holds should not.
So a VM that is comfortable stays where it is, until somebody who is not needs what it has beyond its share.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

_SHIFT: Final = 32
"""λ is an integer of 2^-32 byte per unit of weight: all arithmetic is exact, and what is left over by
rounding is below one byte per VM."""


COMFORT_SHARE: Final = 2
"""A VM is comfortable with half of the buffer that is fair to it; below that it is given all of it."""
TOLERANCE_SHARE: Final = 64
"""A difference from what is fair that is smaller than this part of what a VM holds is not worth a command."""
SPARE_SHARE: Final = 32
"""What who is given memory gets beyond its need, where there is more: the next command is not due at once."""


class Claims(NamedTuple):
    """What one VM asks for, bytes of usable memory. irreducible <= need <= eased <= desired <= keep."""

    weight: int
    irreducible: int
    """Below it the guest cannot go."""
    need: int
    """What it works with now."""
    desired: int
    """Need and the buffer that its user wants."""
    keep: int
    """What it may keep as long as nobody else has a use for it."""
    eased: int = 0
    """Need and what its stalls ask for: heard before anybody's buffer, and after all needs."""
    granted: int = 0
    """What it has been given."""
    flutter: int = 0
    """How much of its demand comes and goes within two seconds: nobody could follow that."""

    @property
    def comfort_floor(self) -> int:
        """What its buffer is counted from."""
        return self.eased if self.eased > self.need else self.need


def balance(claims: Collection[Claims], budget_bytes: int) -> list[int]:
    """Bytes for each VM, in the order of the claims.

    Their sum is min(budget, Σ keep), short by less than a byte per VM; it does not depend on the order;
    nobody gets less when the budget or the VM's own weight grows.
    """
    if not claims:
        return []
    weights, irreducible, need, desired, keep, eased, _, _ = zip(*claims, strict=True)
    nothing = (0,) * len(claims)
    eased = tuple(map(max, need, eased))
    for lo, hi in ((nothing, irreducible), (irreducible, need), (need, eased), (eased, desired)):
        if sum(hi) > budget_bytes:
            return fill(weights, lo, hi, budget_bytes)
    return fill(weights, desired, keep, budget_bytes)


def settle(claims: Collection[Claims], fair: Sequence[int], budget_bytes: int, slack_bytes: int) -> list[int]:
    """The goals, in the order of the claims: what each VM holds, but where that leaves somebody short.

    fair: `balance` of the same claims and budget. slack_bytes: what the comfortable may hold beyond the
    budget. Nobody goes away from what is fair to it: a goal lies between what is held and what is fair, but
    for a little to spare for who is given memory, where there is some. Their sum is within the budget and its
    slack. Where nobody is short, nobody holds more than it may keep, and all fit, every goal is what is held.
    """
    fits = sum(one.need for one in claims) <= budget_bytes + slack_bytes
    lo, hi = [], []
    for one, part in zip(claims, fair, strict=True):
        granted = one.granted
        if granted < _comfort(one, part, fits=fits):
            lo.append(part)
            spare = min(one.desired, one.comfort_floor + granted // SPARE_SHARE)
            hi.append(spare if spare > part else part)
        else:
            least = part if part < granted else granted
            most = one.keep if one.keep < granted else granted
            lo.append(least)
            hi.append(most if most > least else least)
    if sum(hi) <= budget_bytes + slack_bytes:
        return hi
    return fill([one.weight for one in claims], lo, hi, budget_bytes)


def _comfort(one: Claims, fair_bytes: int, *, fits: bool) -> int:
    """Below this a VM is short.

    fits: everybody's need is within the budget. Then no flutter excuses that somebody has less than its work
    holds; else what is given to one for a moment is missing to another.
    """
    aim = fair_bytes if fair_bytes < one.desired else one.desired
    if aim > one.comfort_floor:
        aim -= (aim - one.comfort_floor) // COMFORT_SHARE
    tolerated = one.granted // TOLERANCE_SHARE
    comfort = aim - (one.flutter if one.flutter > tolerated else tolerated)
    if not fits:
        return comfort
    bare = min(one.need, fair_bytes) - one.granted // (2 * TOLERANCE_SHARE)
    return bare if bare > comfort else comfort


def fill(weights: Sequence[int], lo: Sequence[int], hi: Sequence[int], budget_bytes: int) -> list[int]:
    """The weighted max-min shares within [lo, hi] that spend the budget.

    weights: >= 1. lo[i] <= hi[i], bytes. A budget below Σ lo gives lo, one above Σ hi gives hi.
    """
    if sum(hi) <= budget_bytes:
        return list(hi)
    if sum(lo) >= budget_bytes:
        return list(lo)
    level = _water_level(weights, lo, hi, budget_bytes)
    return [
        min(high, max(low, level * weight >> _SHIFT))
        for weight, low, high in zip(weights, lo, hi, strict=True)
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
