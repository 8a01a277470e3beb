# ruff: noqa: D102 # load() and dump() are described once, in Kind
"""How single values look on the wire, and in which ranges they are believed. Used by wire.py.

load() takes what json.loads() made of a hostile value and raises ValueError with what is wrong with it;
dump() is its inverse for a value of ours.
"""

from __future__ import annotations

import math

from agent.lean import Any

MAX_SIZE_BYTES = 1 << 50  # 1 PiB: past any guest, and exact in every JSON implementation
MAX_WORD_CHARS = 32
MOST_HOLDERS = 5
MAX_HOLDER_CHARS = 32
HOLDER_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@:+/()? "
MAX_COUNT = (1 << 53) - 1  # the largest integer that every JSON implementation keeps exactly


class Kind:
    """What values one field may have."""

    def load(self, raw: object) -> Any:
        """The value, or ValueError."""
        raise NotImplementedError

    def dump(self, value: Any) -> object:
        """What json.dumps() is to be given, or ValueError."""
        return self.load(value)


class Integer(Kind):
    """0..high. A bool is not an integer here, nor is 1.0."""

    def __init__(self, high: int = MAX_COUNT) -> None:
        self.high = high

    def load(self, raw: object) -> int:
        if type(raw) is not int:  # bool is an int to isinstance()
            raise ValueError("is not an integer")
        if not 0 <= raw <= self.high:
            raise ValueError(f"is not in 0..{self.high}")
        return raw


class Kib(Kind):
    """Bytes in Python, whole KiB (rounded down) on the wire."""

    inner = Integer(MAX_SIZE_BYTES >> 10)

    def load(self, raw: object) -> int:
        return self.inner.load(raw) << 10

    def dump(self, value: int) -> int:
        return self.inner.load(value >> 10)


_KIB = Kib()


class Decimal(Kind):
    """A finite number with two decimals. `clamp`: the nearest allowed value instead of an error."""

    def __init__(self, low: float, high: float, *, clamp: bool = False) -> None:
        self.low, self.high, self.clamp = low, high, clamp

    def load(self, raw: object) -> float:
        if type(raw) is int:
            raw = float(min(max(raw, -MAX_COUNT), MAX_COUNT))  # float(10**400) would raise
        if type(raw) is not float or not math.isfinite(raw):
            raise ValueError("is not a finite number")
        if self.clamp:
            return min(max(raw, self.low), self.high)
        if not self.low <= raw <= self.high:
            raise ValueError(f"is not in {self.low:g}..{self.high:g}")
        return raw

    def dump(self, value: float) -> float:
        return self.load(round(value, 2))


class Text(Kind):
    """Printable text: it ends up in logs and terminals, so no control characters or surrogates."""

    def __init__(self, most: int, *, least: int = 0, alphabet: str = "") -> None:
        self.most, self.least, self.alphabet = most, least, alphabet

    def load(self, raw: object) -> str:
        if not isinstance(raw, str):
            raise ValueError("is not a string")
        if not self.least <= len(raw) <= self.most:
            raise ValueError(f"is not of {self.least}..{self.most} characters")
        if not raw.isprintable() or (self.alphabet and not set(raw) <= set(self.alphabet)):
            raise ValueError("has characters that are not allowed")
        return raw


class Choice(Kind):
    """One of a fixed set of words. With `other`, a word that is not known yet is that one, and no error: a
    newer peer may have more words, and the rest of what it says is worth having.
    """

    def __init__(self, *allowed: str, other: str = "") -> None:
        self.allowed = (*allowed, other) if other else allowed
        self.other = other

    def load(self, raw: object) -> str:
        if isinstance(raw, str) and raw in self.allowed:
            return raw
        if self.other and isinstance(raw, str) and len(raw) <= MAX_WORD_CHARS:
            return self.other
        raise ValueError(f"is not one of {', '.join(self.allowed)}")

    def dump(self, value: str) -> str:
        if value not in self.allowed:
            raise ValueError(f"is not one of {', '.join(self.allowed)}")
        return value


class Flag(Kind):
    """true or false."""

    def load(self, raw: object) -> bool:
        if not isinstance(raw, bool):
            raise ValueError("is not true or false")
        return raw


class Holders(Kind):
    """At most MOST_HOLDERS pairs of a name, once each, and its bytes: on the wire whole KiB, as in Kib."""

    name = Text(MAX_HOLDER_CHARS, least=1, alphabet=HOLDER_LETTERS)

    def load(self, raw: object) -> tuple[tuple[str, int], ...]:
        if not isinstance(raw, list) or len(raw) > MOST_HOLDERS:
            raise ValueError(f"is not a list of at most {MOST_HOLDERS}")
        found: dict[str, int] = {}
        for pair in raw:
            if not isinstance(pair, list) or len(pair) != 2:
                raise ValueError("has what is no pair of a name and a size")
            name = self.name.load(pair[0])
            if name in found or name.strip() != name:
                raise ValueError("has a name twice, or one with spaces around it")
            found[name] = _KIB.load(pair[1])
        return tuple(found.items())

    def dump(self, value: tuple[tuple[str, int], ...]) -> list[list[object]]:
        raw: list[list[object]] = [[name, _KIB.dump(size)] for name, size in value]
        self.load(raw)
        return raw


class Versions(Kind):
    """A list of at most 16 version numbers."""

    def load(self, raw: object) -> tuple[int, ...]:
        if not isinstance(raw, (list, tuple)) or len(raw) > 16:
            raise ValueError("is not a list of at most 16 versions")
        return tuple(Integer().load(one) for one in raw)
