"""What is known of a balloon: what its driver claims, what it was told, and what may still be in force."""

import pytest

from host_controller.core.vm.balloon import FASTEST_INFLATION, RATE_WINDOW, RETRY_SECONDS, SETTLING, Balloon
from host_controller.units import MIB


def balloon(actual_mib: int = 300, **changes: object) -> Balloon:
    size = actual_mib * MIB
    known = {"actual_bytes": size, "claim_bytes": size, "ceiling_bytes": size, "target_bytes": size}
    return Balloon(**(known | {"actual_at": 0.0} | changes))  # type: ignore[arg-type]


def test_a_claim_rises_with_a_reading_and_falls_only_once_the_host_has_looked_later() -> None:
    one = balloon(300)
    one.read(400 * MIB, 1.0)
    assert (one.actual_bytes, one.actual_at, one.claim_bytes) == (400 * MIB, 1.0, 400 * MIB)
    one.read(200 * MIB, 5.0)
    assert one.claim_bytes == 400 * MIB
    one.confirm(4.9)
    assert one.claim_bytes == 400 * MIB, "the host looked before the guest claimed it"
    one.confirm(5.0)
    assert one.claim_bytes == 200 * MIB


@pytest.mark.parametrize("came_mib", [128, -128])
def test_what_is_in_force_moves_with_the_ram_and_is_said_again(came_mib: int) -> None:
    one = balloon(300, target_bytes=250 * MIB, followed=((-1.0, 280 * MIB), (0.0, 250 * MIB)))
    one.ram_changed(came_mib * MIB, max(0, came_mib) * MIB)
    assert one.actual_bytes == (300 + came_mib) * MIB
    assert one.claim_bytes == (300 + max(0, came_mib)) * MIB, "a DIMM that left was given back by the guest"
    assert one.ceiling_bytes == (300 + came_mib) * MIB
    assert one.target_bytes == (250 + came_mib) * MIB
    assert one.followed == ((-1.0, (280 + came_mib) * MIB), (0.0, (250 + came_mib) * MIB))
    assert one.resend


def test_ram_that_leaves_takes_no_figure_below_nothing() -> None:
    one = balloon(0, target_bytes=0, followed=((0.0, 0),))
    one.ram_changed(-128 * MIB, 0)
    assert (one.actual_bytes, one.ceiling_bytes, one.target_bytes) == (0, 0, 0)
    assert one.followed == ((0.0, 0),)


def test_ram_that_changes_before_the_first_target_sets_none() -> None:
    one = balloon(target_bytes=None)
    one.ram_changed(128 * MIB, 128 * MIB)
    assert one.target_bytes is None


def test_a_target_that_was_sent_may_be_in_force_until_the_last_one_is_confirmed() -> None:
    one = balloon(300)
    one.send(1, 400 * MIB, 300 * MIB, 1.0)
    one.send(2, 350 * MIB, 400 * MIB, 1.1)
    assert (one.target_bytes, one.ceiling_bytes) == (350 * MIB, 400 * MIB)
    one.answered(1, None, 1.2)
    assert one.ceiling_bytes == 400 * MIB, "the other one is still on its way"
    one.answered(2, None, 1.3)
    assert one.ceiling_bytes == 350 * MIB
    assert not one.sent


def test_a_target_that_failed_may_have_been_carried_out_and_is_said_again_after_a_while() -> None:
    one = balloon(300)
    one.send(1, 400 * MIB, 300 * MIB, 1.0)
    one.answered(1, "timed out", 3.0)
    assert one.ceiling_bytes == 400 * MIB
    assert one.resend
    assert one.retry_at == 3.0 + RETRY_SECONDS
    one.send(2, 310 * MIB, 300 * MIB, 5.0)
    assert not one.resend


def test_a_smaller_target_that_failed_leaves_the_larger_one_in_force() -> None:
    one = balloon(300)
    one.send(1, 250 * MIB, 300 * MIB, 1.0)
    one.answered(1, "refused", 1.1)
    assert one.ceiling_bytes == 300 * MIB


def test_an_answer_to_a_command_that_is_no_target_changes_nothing() -> None:
    one = balloon(300, ceiling_bytes=400 * MIB)
    one.answered(99, None, 1.0)
    one.answered(99, "refused", 1.0)
    assert (one.ceiling_bytes, one.resend) == (400 * MIB, False)


def test_a_balloon_may_follow_the_target_before_for_as_long_as_it_takes_to_settle() -> None:
    one = balloon(300)
    one.send(1, 400 * MIB, 300 * MIB, 10.0)
    assert [size for _, size in one.still_followed(10.0 + SETTLING)] == [300 * MIB, 400 * MIB]
    assert [size for _, size in one.still_followed(10.1 + SETTLING)] == [400 * MIB]
    one.send(2, 500 * MIB, 400 * MIB, 10.5 + SETTLING)
    assert [size for _, size in one.followed] == [400 * MIB, 500 * MIB]
    assert [size for _, size in one.still_followed(1000.0)] == [500 * MIB], "the last one holds for ever"


def test_of_targets_in_a_row_the_one_before_the_last_may_be_followed_and_none_before_it() -> None:
    one = balloon(300)
    for number, (size_mib, at) in enumerate(((400, 10.0), (410, 11.0), (420, 12.0))):
        one.send(number, size_mib * MIB, 300 * MIB, at)
    assert [size // MIB for _, size in one.followed] == [300, 400, 410, 420]
    assert [size // MIB for _, size in one.still_followed(11.5 + SETTLING)] == [410, 420]


def test_the_first_target_of_all_may_be_followed_beside_what_was_in_force_before() -> None:
    one = balloon(300, target_bytes=None)
    one.send(1, 200 * MIB, 512 * MIB, 10.0)
    assert [size for _, size in one.still_followed(10.5)] == [512 * MIB, 200 * MIB]


@pytest.mark.parametrize(
    ("seconds", "inflated_mib", "rate_mib"),
    [
        (1.0, 100, 100),
        (2.0, 100, 50),
        (RATE_WINDOW[0], 1, 20),
        (RATE_WINDOW[1] + 0.1, 100, 0),  # nobody knows when in that time it moved
        (RATE_WINDOW[0] / 2, 100, 0),
        (1.0, -100, 0),  # deflating is another thing
        (1.0, 0, 0),
    ],
)
def test_how_fast_it_inflates_is_learned_from_two_readings_close_to_each_other(
    seconds: float, inflated_mib: int, rate_mib: int
) -> None:
    one = balloon(600, actual_at=0.0)
    one.measure((600 - inflated_mib) * MIB, seconds)
    assert one.inflate_rate == pytest.approx(rate_mib * MIB)


def test_a_balloon_that_stands_says_nothing_about_its_speed() -> None:
    one = balloon(600, inflate_rate=100.0 * MIB)
    one.measure(600 * MIB, 1.0)
    assert one.inflate_rate == 100 * MIB


def test_one_byte_of_inflation_is_measured() -> None:
    one = balloon(600)
    one.measure(600 * MIB - 1, 1.0)
    assert one.inflate_rate == 1.0


def test_a_rate_changes_by_a_third_with_each_measurement_and_no_figures_make_it_absurd() -> None:
    one = balloon(600, inflate_rate=100.0 * MIB)
    one.measure(400 * MIB, 1.0)
    assert one.inflate_rate == pytest.approx((0.7 * 100 + 0.3 * 200) * MIB)
    forged = balloon(1 << 20)
    forged.measure(0, 0.1)
    assert forged.inflate_rate == FASTEST_INFLATION


def test_a_kernel_that_starts_anew_has_said_nothing_yet_and_is_told_its_target() -> None:
    one = balloon(300, moved=True)
    one.start_anew(768 * MIB, 512 * MIB)
    assert (one.moved, one.claim_bytes, one.target_bytes, one.resend) == (False, 768 * MIB, 512 * MIB, True)


def test_a_target_of_a_dry_run_was_never_sent() -> None:
    before, one = balloon(300, followed=((0.0, 300 * MIB),), resend=True), balloon(300)
    one.send(1, 400 * MIB, 300 * MIB, 1.0)
    one.unsend(1, before)
    assert not one.sent
    assert (one.target_bytes, one.ceiling_bytes) == (300 * MIB, 300 * MIB)
    assert (one.followed, one.resend) == (((0.0, 300 * MIB),), True)
    one.unsend(7, before)  # one that nobody knows is passed over


def test_a_target_is_aimed_at_and_said_again_without_being_sent_at_once() -> None:
    one = balloon(300)
    one.aim(280 * MIB)
    assert (one.target_bytes, one.resend, one.sent) == (280 * MIB, True, {})
    other = balloon(300)
    other.say_again()
    assert (other.target_bytes, other.resend) == (300 * MIB, True)


def test_what_a_definition_says_is_no_word_of_the_driver() -> None:
    one = Balloon()
    one.presume(300 * MIB)
    assert one.actual_bytes == 300 * MIB
    assert one.actual_at < 0
    one.confirm(0.0)
    assert one.claim_bytes == 300 * MIB
