"""Weighted max-min in tiers, to the byte: claims and a budget, and what each VM gets.

A claim is (weight, irreducible, need, likely, eased, desired, keep). That order does not matter, and that
more budget or weight never gives less, is asked of random hosts in
`tests/simulated/test_balance_properties.py`.
"""

import pytest

from host_controller.core.policy.balance import Claims, balance, fill

EQUAL = Claims(1, 10, 20, 25, 25, 30, 40)
FLAT = Claims(1, 0, 0, 0, 0, 100, 100)
HEAVY = Claims(3, 0, 0, 0, 0, 100, 100)
LARGE = Claims(1, 0, 40, 40, 40, 50, 60)
SMALL = Claims(1, 0, 10, 10, 10, 50, 60)
STALLING = Claims(1, 0, 10, 30, 30, 50, 60)
NOISY = Claims(1, 0, 20, 28, 40, 50, 60)
HEAVY_NOISY = Claims(100, 0, 20, 28, 40, 50, 60)

SHARES: list[tuple[list[Claims], int, list[int]]] = [
    ([], 100, []),
    # Everybody's first claim, then everybody's second.
    ([EQUAL, EQUAL], 1000, [40, 40]),
    ([EQUAL, EQUAL], 80, [40, 40]),
    ([EQUAL, EQUAL], 79, [39, 39]),  # less than a byte for each is left over
    ([EQUAL, EQUAL], 60, [30, 30]),
    ([EQUAL, EQUAL], 59, [29, 29]),
    ([EQUAL, EQUAL], 50, [25, 25]),
    ([EQUAL, EQUAL], 49, [24, 24]),
    ([EQUAL, EQUAL], 40, [20, 20]),
    ([EQUAL, EQUAL], 39, [19, 19]),
    ([EQUAL, EQUAL], 20, [10, 10]),
    ([EQUAL, EQUAL], 19, [9, 9]),
    ([EQUAL, EQUAL], 0, [0, 0]),
    ([EQUAL], 25, [25]),
    ([Claims(7, 10, 20, 20, 20, 30, 40)], 25, [24]),
    # Three times the weight is three times the memory, until its own claim stops it.
    ([FLAT, HEAVY], 80, [20, 60]),
    ([FLAT, HEAVY], 120, [30, 90]),
    ([FLAT, HEAVY], 133, [33, 99]),
    ([FLAT, HEAVY], 134, [34, 100]),
    ([FLAT, HEAVY], 140, [40, 100]),
    ([HEAVY, FLAT, FLAT], 150, [90, 30, 30]),
    ([HEAVY, FLAT, FLAT], 170, [100, 35, 35]),
    # Who needs more than an even share begins with its need; the others come up to it.
    ([LARGE, SMALL], 50, [40, 10]),
    ([LARGE, SMALL], 70, [40, 30]),
    ([LARGE, SMALL], 90, [45, 45]),
    ([LARGE, SMALL], 110, [55, 55]),
    ([LARGE, SMALL], 40, [30, 10]),  # there is not enough for both needs
    ([LARGE, SMALL], 19, [9, 9]),
    ([EQUAL, LARGE, SMALL, HEAVY], 200, [30, 40, 32, 97]),
    # What stalls ask for comes after everybody's need and before anybody's buffer.
    ([LARGE, STALLING], 50, [40, 10]),
    ([LARGE, STALLING], 60, [40, 20]),
    ([LARGE, STALLING], 70, [40, 30]),
    ([LARGE, STALLING], 80, [40, 40]),
    ([SMALL, STALLING], 20, [10, 10]),
    ([SMALL, STALLING], 30, [10, 20]),
    ([SMALL, STALLING], 45, [15, 30]),
    # Everybody's likely peaks come before the rarest ones of the heaviest.
    ([NOISY, HEAVY_NOISY], 40, [20, 20]),
    ([NOISY, HEAVY_NOISY], 48, [20, 28]),
    ([NOISY, HEAVY_NOISY], 56, [28, 28]),
    ([NOISY, HEAVY_NOISY], 68, [28, 40]),
    ([NOISY, HEAVY_NOISY], 80, [40, 40]),
]


@pytest.mark.parametrize(("claims", "budget", "shares"), SHARES)
def test_each_gets_its_share_by_weight_within_the_tier_that_the_budget_ends_in(
    claims: list[Claims], budget: int, shares: list[int]
) -> None:
    assert balance(claims, budget) == shares
    assert balance(claims[::-1], budget) == shares[::-1]


@pytest.mark.parametrize(
    ("lo", "hi", "budget", "shares"),
    [
        ([10, 10], [20, 20], 15, [10, 10]),  # below what is certain
        ([10, 10], [20, 20], 20, [10, 10]),
        ([10, 10], [20, 20], 21, [10, 10]),
        ([10, 10], [20, 20], 22, [11, 11]),
        ([10, 10], [20, 20], 40, [20, 20]),
        ([10, 10], [20, 20], 50, [20, 20]),
        ([10, 15], [10, 20], 26, [10, 16]),  # who cannot be moved is left out
        ([0, 30], [40, 35], 60, [30, 30]),
        ([0, 30], [40, 35], 64, [32, 32]),
        ([0, 30], [40, 35], 72, [37, 35]),
    ],
)
def test_a_budget_is_spent_between_what_is_certain_and_what_is_asked_for(
    lo: list[int], hi: list[int], budget: int, shares: list[int]
) -> None:
    assert fill([1, 1], lo, hi, budget) == shares


def test_a_tebibyte_is_shared_to_the_byte() -> None:
    vms = [Claims(weight, 0, 0, 0, 0, 1 << 40, 1 << 40) for weight in (1, 2, 4, 10_000)]
    shares = balance(vms, 10_007 << 20)
    assert shares == [1 << 20, 2 << 20, 4 << 20, 10_000 << 20]
