"""What the daemon's modules write of `typing`, without `typing`: that costs a guest's daemon 0.8 MiB.

Measured (fact: import-costs). Type checkers see the real thing, and so does a program that has it anyway: the
controller, the other commands, the tests. From Python 3.14 on annotations are worked out late, and `typing`
itself is used.
"""

import sys

TYPE_CHECKING = False  # as type checkers know it by name

if TYPE_CHECKING or "typing" in sys.modules or sys.version_info >= (3, 14):
    from typing import Annotated as Annotated
    from typing import Any as Any
    from typing import Literal as Literal
    from typing import NamedTuple as NamedTuple
    from typing import NoReturn as NoReturn
    from typing import Optional as Optional
    from typing import TypeVar as TypeVar
    from typing import Union as Union
else:
    from collections import namedtuple

    class _Written:
        """Says nothing when the program runs, whatever is written in brackets behind it."""

        def __getitem__(self, _item):
            return self

    Any = Literal = NoReturn = Optional = Union = _Written()

    def TypeVar(_name):  # noqa: N802 # as in `typing`
        """Any type."""
        return Any

    class Annotated:
        """What a type is noted with, as `__metadata__`."""

        def __init__(self, *metadata):
            self.__metadata__ = metadata

        def __class_getitem__(cls, item):
            return cls(*item[1:])

    class _Fields(type):
        """Makes a named tuple of a class's annotations, as `typing` does."""

        def __new__(cls, name, bases, members):
            if not bases:
                return super().__new__(cls, name, bases, members)
            types = members.pop("__annotations__", {})
            defaults = [members.pop(field) for field in types if field in members]
            made = namedtuple(name, types, defaults=defaults, module=members.pop("__module__"))
            made.__annotations__ = types
            for member, value in members.items():
                setattr(made, member, value)
            return made

    class NamedTuple(metaclass=_Fields):
        """The base that is named; what is made of a class with it is a tuple."""
