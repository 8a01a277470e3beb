"""Whether an answer has the shape that the schema gives it, as far as it says anything at all.

What a controller of another version leaves out, adds, or calls by a new word is no fault: `answer` sees to
that. A text where a size belongs, or null where an object does, is none of ours.
"""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import inspect

from host_controller.neutral import neutral

LARGEST: Final = 1 << 63
LAST_MOMENT: Final = 253_402_300_800.0
"""The year 10000: no clock shows it."""


def misfit(told: Any, shape: Any) -> str | None:
    """Where the answer says something of another kind, and what; None: nowhere. shape: one of the schema."""
    return _look(told, inspect.type_info(shape), "")


def _look(told: Any, kind: inspect.Type, where: str) -> str | None:
    match kind:
        case inspect.Metadata():
            return _look(told, kind.type, where)
        case inspect.UnionType():
            return _look_at_union(told, kind, where)
    if not _fits(told, kind, where):
        return _wrong(told, where)
    return next((found for part in _parts(told, kind, where) if (found := _look(*part)) is not None), None)


def _look_at_union(told: Any, kind: inspect.UnionType, where: str) -> str | None:
    """What is wrong inside says more than that none of its kinds fits."""
    wrong = [_look(told, one, where) for one in kind.types]
    if None in wrong:
        return None
    inside = (one for one in wrong if one is not None and not one.startswith(f"{where} is "))
    return next(inside, _wrong(told, where))


def _parts(told: Any, kind: inspect.Type, where: str) -> Iterator[tuple[Any, inspect.Type, str]]:
    """What is in an object or a list that fits: each part, its kind, and where it is."""
    match kind:
        case inspect.StructType():
            for one in kind.fields:
                if one.encode_name in told:
                    yield told[one.encode_name], one.type, f"{where}.{one.encode_name}".lstrip(".")
        case inspect.DictType():
            for name, one in told.items():
                yield one, kind.value_type, f"{where}.{name}".lstrip(".")
        case inspect.ListType() | inspect.VarTupleType():
            for at, one in enumerate(told):
                yield one, kind.item_type, f"{where}[{at}]"


def _fits(told: Any, kind: inspect.Type, where: str) -> bool:
    match kind:
        case inspect.StructType() | inspect.DictType():
            return isinstance(told, dict)
        case inspect.ListType() | inspect.VarTupleType():
            return isinstance(told, list)
        case inspect.NoneType():
            return told is None
        case inspect.BoolType():
            return isinstance(told, bool)
        case inspect.IntType() | inspect.FloatType():
            moment = where.rpartition(".")[2].endswith(("at", "since"))
            return (
                isinstance(told, int if isinstance(kind, inspect.IntType) else int | float)
                and not isinstance(told, bool)
                and abs(told) < (LAST_MOMENT if moment else LARGEST)  # so it is no NaN, either
            )
        case inspect.StrType() | inspect.EnumType() | inspect.LiteralType():
            return isinstance(told, str)
        case _:
            return True


def _wrong(told: Any, where: str) -> str:
    return f"{where or 'all of it'} is {neutral(repr(told), 60)}"
