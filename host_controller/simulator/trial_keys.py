"""The keys of a file for `dynmem simulate`: what each may be, and which need not be there.

A key's parser raises ValueError, whose text is what is allowed.
"""

from collections.abc import Callable
from typing import Any, Final

from host_controller.core.model import BUFFER_RANGE, WEIGHT_RANGE, Growth
from host_controller.units import LONGEST_SECONDS, parse_duration, parse_size, with_unit

_MOST_VMS: Final = 1000

Parse = Callable[[Any], Any]


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('a size such as "512MiB" or "1.5GiB"')
    return parse_size(str(value))


def _memory(value: Any) -> int:
    """Of a host or a VM: nobody means some bytes of memory."""
    found = _size(value)
    if not found:
        raise ValueError("more than nothing")
    if meant := with_unit(str(value)):
        raise ValueError(f'a size such as "512MiB" or "1.5GiB" (did you mean "{meant}"?)')
    return found


def _duration(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST_SECONDS:
        return float(value)
    try:
        return parse_duration(str(value))
    except ValueError:
        raise ValueError('seconds, or text such as "90s", "10min", "2h", "7d"') from None


def _some_time(value: Any) -> float:
    """Of what is simulated: in no time nothing happens."""
    found = _duration(value)
    if not found:
        raise ValueError("more than nothing")
    return found


def _within(allowed: range) -> Parse:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
            raise ValueError(f"a whole number from {allowed[0]} to {allowed[-1]}")
        return value

    return parse


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return float(value)


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("text, not empty")
    return value


def _growth(value: Any) -> Growth:
    allowed = [growth.value for growth in Growth]
    if value not in allowed:
        raise ValueError(" or ".join(f'"{one}"' for one in allowed))
    return Growth(value)


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a table")
    return value


HOST: Final[dict[str, Parse]] = {
    "capacity": _memory, "duration": _some_time, "seed": _within(range((1 << 32) + 1)), "warm_up": _duration,
}  # fmt: skip
VM: Final[dict[str, Parse]] = {
    "name": _text, "count": _within(range(1, _MOST_VMS + 1)),
    "startup": _memory, "minimum": _memory, "maximum": _memory,
    "buffer": _within(BUFFER_RANGE), "weight": _within(WEIGHT_RANGE), "growth": _growth, "start": _duration,
    "swap": _size, "demand": _table, "cache": _size, "slots": _within(range(1, 256)), "overhead": _size,
    "boot": _duration, "reporting": _yes_or_no,
}  # fmt: skip
DEMAND: Final[dict[str, dict[str, Parse]]] = {
    "steady": {"level": _size, "noise": _share},
    "ramp": {"low": _size, "high": _size, "start": _duration, "over": _duration},
    "burst": {
        "base": _size,
        "peak": _size,
        "every": _duration,
        "hold": _duration,
        "rise": _duration,
        "first": _duration,
    },
    "diurnal": {"low": _size, "high": _size, "period": _duration, "noise": _share},
    "leak": {"base": _size, "per_hour": _size, "restart_at": _size},
    "sine": {"low": _size, "high": _size, "period": _duration, "phase": _share},
    "saw": {"low": _size, "high": _size, "period": _duration, "phase": _share},
    "square": {"low": _size, "high": _size, "period": _duration, "phase": _share},
    "trace": {"file": _text, "column": _text, "unit": _size},
}
OPTIONAL: Final = frozenset(
    ("seed", "warm_up", "count", "buffer", "weight", "growth", "start", "swap", "cache", "slots", "overhead",
     "boot", "reporting")
)  # fmt: skip
OPTIONAL_DEMAND: Final = frozenset(("rise", "first", "noise", "phase", "unit"))
OPTIONAL_OF: Final = {"diurnal": {"period"}}
