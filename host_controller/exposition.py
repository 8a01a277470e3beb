"""The Prometheus text format 0.0.4, as far as we write it."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Family(NamedTuple):
    """A metric: its name, type and help."""

    name: str
    kind: str
    help: str


def escape(text: str) -> str:
    """A text as a label's value: backslash, newline and quotation mark escaped."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def text_of(family: Family, samples: Sequence[str]) -> bytes:
    """A metric with its samples, which are whole lines; nothing where there are none."""
    if not samples:
        return b""
    head = f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
    return (head + "\n".join(samples) + "\n").encode()


def sample(family: Family, labels: Mapping[str, str], value: float) -> str:
    """One line of a metric, without its end."""
    told = ",".join(f'{name}="{escape(text)}"' for name, text in labels.items())
    return f"{family.name}{{{told}}} {value}" if told else f"{family.name} {value}"
