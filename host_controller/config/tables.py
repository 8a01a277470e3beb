"""Tables of the configuration file: what their values may be, and every mistake in them by its key."""

import difflib
import json
import re
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

import msgspec

from host_controller.config.amount import parse_amount
from host_controller.core.model import LARGEST_MAXIMUM_BYTES, SMALLEST_MINIMUM_BYTES
from host_controller.errors import InputError
from host_controller.units import MIB, parse_duration, parse_size, with_unit

SIZE_WORDS: Final = 'a size such as "512M" or "1.5GiB"'
DURATION_WORDS: Final = 'seconds, or text such as "90s", "10min", "2h", "7d"'
FILE_SIZE_KIND: Final = {"kind": "size"}
SIZE_KIND: Final = {**FILE_SIZE_KIND, "of": "memory"}
DURATION_KIND: Final = {"kind": "duration"}
LARGEST: Final = LARGEST_MAXIMUM_BYTES

Size = Annotated[
    int, msgspec.Meta(ge=0, le=LARGEST, description=f"{SIZE_WORDS}, at most 16TiB", extra=SIZE_KIND)
]
VmSize = Annotated[
    int,
    msgspec.Meta(
        ge=SMALLEST_MINIMUM_BYTES, le=LARGEST, description=f"{SIZE_WORDS}, 32MiB to 16TiB", extra=SIZE_KIND
    ),
]
Duration = Annotated[
    float,
    msgspec.Meta(ge=0, le=86400, description=f"{DURATION_WORDS}, at most one day", extra=DURATION_KIND),
]
Retention = Annotated[
    float,
    msgspec.Meta(ge=3600, le=1830 * 86400, description=f"{DURATION_WORDS}, 1h to 1830d", extra=DURATION_KIND),
]
OnOff = Annotated[bool, msgspec.Meta(description="true or false")]
Text = Annotated[str, msgspec.Meta(pattern=r"^[^\0-\x1f\x7f]+\Z", description="text, not empty")]
AbsolutePath = Annotated[str, msgspec.Meta(pattern=r"^/[^\0]*$", description="an absolute path")]


_PORT: Final = r"(\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
Listen = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^(\[[0-9a-fA-F:]+\]|[0-9A-Za-z.-]+):{_PORT}$",
        description='an address and a port such as "127.0.0.1:9876" or "[::1]:9876"',
    ),
]


class Problem(NamedTuple):
    """One mistake: which key, what stands there, and what may."""

    key: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.key}: found {self.found}; allowed: {self.allowed}"


class ConfigError(InputError):
    """The configuration cannot be used; nothing of it is in force."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{path}: {count}{lines}")
        self.path = path
        self.problems = problems
        self.in_one_line = f"{path}: {count}: {', and '.join(map(str, problems))}"
        """The same for the log and whoever else has one line for it."""


def section(name: str, kind: Any, table: dict[str, Any], problems: list[Problem]) -> Any:
    """A table as a `kind`, a Struct whose fields all have defaults; its mistakes are added to `problems`."""
    hints = get_type_hints(kind, include_extras=True)
    values = {}
    for key, raw in table.items():
        if key not in hints:
            problems.append(unknown(f"{name}.{key_text(key)}", key, list(hints), "keys"))
            continue
        try:
            values[key] = _value(raw, hints[key])
        except (ValueError, msgspec.ValidationError):
            allowed = (meta_of(hints[key]).description or "") + _meant(raw, hints[key])
            problems.append(Problem(f"{name}.{key}", shown(raw), allowed))
    return kind(**values)


def _value(raw: Any, hint: Any) -> Any:
    if _kind(hint) == "amount":
        return parse_amount(raw)
    value = raw
    if isinstance(raw, str):
        if _kind(hint) == "size":
            value = parse_size(raw)
        elif _kind(hint) == "duration":
            value = parse_duration(raw)
    found = msgspec.convert(value, hint, strict=True)
    if found and _is_memory(hint) and (found < MIB or with_unit(str(raw))):
        raise ValueError(f"{raw!r} is less than anybody means")
    return found


def _meant(raw: Any, hint: Any) -> str:
    """A question to whoever left a unit out: nobody means some bytes of memory."""
    meant = with_unit(str(raw)) if _is_memory(hint) or _kind(hint) == "amount" else ""
    return f' (did you mean "{meant}"?)' if meant and parse_size(str(raw)) else ""


def meta_of(hint: Any) -> msgspec.Meta:
    """The Meta of `Annotated[…, Meta]`, also within `… | None`."""
    for candidate in (hint, *getattr(hint, "__args__", ())):
        for one in getattr(candidate, "__metadata__", ()):
            if isinstance(one, msgspec.Meta):
                return one
    return msgspec.Meta()


def _kind(hint: Any) -> str:
    return str((meta_of(hint).extra or {}).get("kind", ""))


def _is_memory(hint: Any) -> bool:
    """A size of a VM's or of the host's memory, not of a file."""
    return "of" in (meta_of(hint).extra or {})


def shown(value: Any) -> str:
    """As it stands in the file, or nearly; at most 80 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)  # the nearest to how TOML writes it
    return text if len(text) <= 80 else text[:77] + "..."


def key_text(key: str) -> str:
    """As TOML writes it: one that is empty or odd in quotation marks."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else shown(key)


def unknown(where: str, key: str, known: list[str], what: str) -> Problem:
    """A key that nobody knows, with the one that was meant, perhaps."""
    near = difflib.get_close_matches(key, known, 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return Problem(where, f"a key that is not known{meant}", f"the {what} {', '.join(known)}")
