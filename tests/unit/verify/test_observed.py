"""What a burn-in's observer makes of its samples."""

from host_controller.units import MIB
from host_controller.verify.burn_in.session import LASTS_SECONDS, lasting_excess
from host_controller.verify.charge import GuestSample
from host_controller.verify.observer import Sample


def sample(at: float, resident: int, virtio_mem: int = 0) -> Sample:
    size = 512 * MIB
    guest = GuestSample(
        size, 0, virtio_mem * MIB, size, resident * MIB, 40 * MIB, True, True, 0.0, size + 40 * MIB
    )
    return Sample(at, 0.01, {"vm": guest})


def test_memory_that_stays_above_what_the_guest_has_is_an_excess() -> None:
    found = [sample(at / 5, 512 if at < 10 else 560 + at % 3) for at in range(40)]
    assert lasting_excess(found) == 48 * MIB


def test_what_a_reading_got_wrong_while_memory_moved_is_none() -> None:
    found = [sample(at / 5, 640 if 10 <= at < 18 else 512) for at in range(60)]
    assert lasting_excess(found) == 0


def test_a_device_that_shrank_between_two_readings_is_none() -> None:
    found = [sample(at / 5, 768 if at <= 10 else 512, virtio_mem=256 if at < 10 else 0) for at in range(60)]
    assert lasting_excess(found) == 0


def test_a_watch_that_was_too_short_finds_nothing() -> None:
    assert lasting_excess([sample(0.0, 600), sample(LASTS_SECONDS - 0.1, 600)]) == 0
    assert lasting_excess([sample(0.0, 600), sample(LASTS_SECONDS, 600)]) == 88 * MIB
    assert lasting_excess([]) == 0
