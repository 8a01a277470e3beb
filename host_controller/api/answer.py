"""Answers as the CLI reads them: of a controller that is older or newer than it is itself.

Within version 1 of the API fields are added and never removed or given another meaning, so a CLI that is
older misses nothing that it asks for. One that is newer asks an older controller for what that does not know:
such a field is MISSING, which is shown as a question mark, counts as nothing, and has nothing in it.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from host_controller.neutral import UNKNOWN


class _Missing:
    """What an answer does not have."""

    __slots__ = ()

    def __getitem__(self, _key: object) -> "_Missing":
        return self

    def get(self, _key: object, default: object = None) -> object:
        """Nothing is in it."""
        return default

    def items(self) -> tuple[()]:
        """Nothing is in it."""
        return ()

    values = keys = items

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return UNKNOWN

    def __format__(self, specification: str) -> str:
        width = "".join(one for one in specification if one in "<>^0123456789")
        return format(UNKNOWN, width if "." not in specification else "")

    def __neg__(self) -> int:
        return 0

    def __gt__(self, _other: object) -> bool:
        return False

    __lt__ = __ge__ = __le__ = __gt__


MISSING: Final = _Missing()


class Answer(dict[str, Any]):
    """An object of an answer; what it does not have is MISSING."""

    def __missing__(self, _key: str) -> _Missing:
        return MISSING


def read(text: bytes) -> Any:
    """What an answer says. Raises ValueError when it is no JSON."""
    try:
        return json.loads(text, object_hook=Answer)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def known(value: Any, otherwise: Any) -> Any:
    """The value, or something to reckon with where there is none."""
    return otherwise if value is None or value is MISSING else value
