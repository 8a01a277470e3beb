"""Sizes, durations and versions as people write and read them.

Inside the program they are `int` bytes, `float` seconds, and libvirt's numbers.
"""

import re
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40
LARGEST_BYTES: Final = 1 << 60
"""Of a size that anybody names: beyond an exbibyte it is no memory's, and what is reckoned with it ends."""
LONGEST_SECONDS: Final = 1000 * 366 * 86400.0
"""The same of a duration."""

_FACTORS: Final[dict[str, int]] = {
    "": 1,
    "b": 1,
    **{f"{prefix}{suffix}": 1 << shift
       for prefix, shift in (("k", 10), ("m", 20), ("g", 30), ("t", 40))
       for suffix in ("", "ib")},
    **{f"{prefix}b": 1000**power for prefix, power in (("k", 1), ("m", 2), ("g", 3), ("t", 4))},
}  # fmt: skip
_WITH_UNIT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
_SURELY_MIB: Final = 32
"""A number alone counts GiB below: no VM and no host has less than 32 MiB."""
_SURELY_KIB: Final = 256 * KIB
"""It counts MiB below: nobody means 256 GiB there, and some mean 256 MiB."""
_SURELY_BYTES: Final = 32 * MIB
"""It counts KiB below: in bytes it would be less than 32 MiB."""
_LONGEST_NUMBER: Final = 40
"""Characters. Python refuses to read numbers of thousands, and makes infinity of hundreds."""
_SECONDS: Final = {
    "": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "day": 86400, "days": 86400
}  # fmt: skip


def parse_size(text: str) -> int:
    """Bytes meant by `512M`, `1.5GiB`, `2g`, `1000000`.

    The suffixes are virsh's: `M` and `MiB` are 2^20, `MB` is 10^6, nothing is bytes.

    Raises:
        ValueError: with a sentence that says what is allowed.
    """
    match = _WITH_UNIT.fullmatch(text)
    factor = _FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a size; write it like 512M, 1.5GiB or 536870912")
    whole, _, fraction = match[1].partition(".")
    if len(match[1]) <= _LONGEST_NUMBER:
        part = int(fraction) * factor // int("1" + "0" * len(fraction)) if fraction else 0
        if (found := int(whole) * factor + part) <= LARGEST_BYTES:
            return found
    raise ValueError(f"{_begin(text)!r} is more than any memory; the most is {LARGEST_BYTES // TIB}TiB")


def with_unit(text: str) -> str:
    """What somebody meant who left the unit of memory out: `4` is 4G, `1024` is 1024M, `1.5` is 1.5G, and
    `1048576` is 1048576K, as virsh and domain XML count; empty where there is one, and where it may well
    count bytes.
    """
    match = _WITH_UNIT.fullmatch(text)
    if match is None or match[2] or float(match[1]) >= _SURELY_BYTES:
        return ""
    if "." in match[1] or int(match[1]) < _SURELY_MIB:
        return f"{match[1]}G"
    return f"{match[1]}{'M' if int(match[1]) < _SURELY_KIB else 'K'}"


def parse_duration(text: str) -> float:
    """Seconds meant by `90`, `90s`, `10min`, `2h`, `7d`.

    Raises:
        ValueError: with a sentence that says what is allowed.
    """
    match = _WITH_UNIT.fullmatch(text.lower())
    factor = _SECONDS.get(match[2]) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 10min, 2h or 7d")
    found = float(match[1]) * factor
    if found > LONGEST_SECONDS:
        raise ValueError(f"{_begin(text)!r} is longer than a thousand years")
    return found


def _begin(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:20]}…"


def format_size(size_bytes: int) -> str:
    """The shortest form that loses nothing a person would miss: `512 MiB`, `1.5 GiB`, `-3 KiB`."""
    magnitude = abs(size_bytes)
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if magnitude >= unit:
            # GiB want two decimals, MiB none: a tenth of a GiB is a hundred MiB.
            digits = 2 if unit > MIB else 0
            text = f"{size_bytes / unit:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.') if digits else text} {name}"
    return f"{size_bytes} B"


def format_apart(one_bytes: int, other_bytes: int) -> tuple[str, str]:
    """Two sizes in the shortest form in which one sees that they differ: `4194304 KiB` and `4194300 KiB`."""
    texts = format_size(one_bytes), format_size(other_bytes)
    for unit, name in ((MIB, "MiB"), (KIB, "KiB"), (1, "B")):
        if texts[0] != texts[1] or one_bytes == other_bytes:
            break
        texts = f"{one_bytes // unit} {name}", f"{other_bytes // unit} {name}"
    return texts


def format_version(number: int) -> str:
    """A version as libvirt counts it, `1000000 * major + 1000 * minor + release`: `9.0.0`."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def round_up(size_bytes: int, granule_bytes: int) -> int:
    """The smallest multiple of the granule that is not below the size."""
    return -(-size_bytes // granule_bytes) * granule_bytes


def round_down(size_bytes: int, granule_bytes: int) -> int:
    """The largest multiple of the granule that is not above the size."""
    return size_bytes // granule_bytes * granule_bytes
