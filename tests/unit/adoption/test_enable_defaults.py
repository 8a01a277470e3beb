"""The limits that `dynmem enable` gives a VM that had none."""

from host_controller.cli.limits import first_limits as _first
from host_controller.core.model import Limits
from host_controller.units import GIB, MIB

DEFAULTS = Limits(1 * GIB, 512 * MIB, 4 * GIB, 20, 100)
NOTHING: dict[str, int | None] = dict.fromkeys(("startup", "minimum", "maximum", "buffer", "weight"))


def test_what_is_not_named_comes_from_the_configuration() -> None:
    assert _first(DEFAULTS, NOTHING) == DEFAULTS
    assert _first(DEFAULTS, NOTHING | {"weight": 300}).weight == 300


def test_a_named_startup_draws_the_defaults_along() -> None:
    small = _first(DEFAULTS, NOTHING | {"startup": 256 * MIB})
    large = _first(DEFAULTS, NOTHING | {"startup": 8 * GIB})
    assert (small.minimum_bytes, small.maximum_bytes) == (256 * MIB, 4 * GIB)
    assert (large.minimum_bytes, large.maximum_bytes) == (512 * MIB, 8 * GIB)


def test_what_is_named_is_never_bent() -> None:
    limits = _first(DEFAULTS, NOTHING | {"startup": 256 * MIB, "minimum": 512 * MIB})
    assert limits.minimum_bytes == 512 * MIB
    assert limits.problems()
