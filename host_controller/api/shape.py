"""Whether an answer has the shape that the schema gives it, as far as it says anything at all.

What a controller of another version leaves out, adds, or calls by a new word is no fault: `answer` sees to
that. A text where a size belongs, or null where an object does, is none of ours.
"""

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
            wrong = [_look(told, one, where) for one in kind.types]
            inside = [one for one in wrong if one is not None and not one.startswith(f"{where} is ")]
            return None if None in wrong else next(iter(inside), _wrong(told, where))
        case inspect.StructType():
            if not isinstance(told, dict):
                return _wrong(told, where)
            known = ((one.encode_name, one.type) for one in kind.fields if one.encode_name in told)
            parts = ((told[name], of, f"{where}.{name}".lstrip(".")) for name, of in known)
        case inspect.DictType():
            if not isinstance(told, dict):
                return _wrong(told, where)
            parts = ((one, kind.value_type, f"{where}.{name}".lstrip(".")) for name, one in told.items())
        case inspect.ListType() | inspect.VarTupleType():
            if not isinstance(told, list):
                return _wrong(told, where)
            parts = ((one, kind.item_type, f"{where}[{at}]") for at, one in enumerate(told))
        case _:
            return None if _fits(told, kind, where) else _wrong(told, where)
    return next((found for part in parts if (found := _look(*part)) is not None), None)


def _fits(told: Any, kind: inspect.Type, where: str) -> bool:
    match kind:
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
