"""PROTOCOL.md says what the code that both sides run does."""

import re
from pathlib import Path
from typing import Final

import pytest

from agent import codec, wire
from agent.codec import fields_of

TEXT: Final = (Path(__file__).parents[3] / "PROTOCOL.md").read_text()
SECTIONS: Final = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL))
HOST_ROWS: Final = {
    row.split("`")[1]: row for row in re.findall(r"^\| `.*$", TEXT.partition("## Host")[2], re.M)
}
MESSAGES: Final = {name: cls for cls, name in codec._NAMES.items()}


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_of_a_message_is_in_its_section(name: str) -> None:
    said = SECTIONS.get(name) or HOST_ROWS[name]
    keys = {field.key for field in fields_of(MESSAGES[name])}
    assert keys <= set(re.findall(r"`([a-z]+)`", said))


@pytest.mark.parametrize("name", ["hello", "report"])
def test_each_key_stands_beside_its_name_in_python(name: str) -> None:
    rows = re.findall(r"^\| ((?:`\w+` ?)+) \| ((?:`\w+` ?)+) \|", SECTIONS[name], re.MULTILINE)
    said = [pair for keys, names in rows for pair in zip(keys.split(), names.split(), strict=True)]
    told = {(key.strip("`"), python.strip("`")) for key, python in said}
    assert told == {(field.key, field.name) for field in fields_of(MESSAGES[name])}


def test_what_a_report_may_not_contradict_is_told() -> None:
    refused = re.search(r"The host refuses a report with .*?\.", TEXT, re.DOTALL)
    assert refused is not None
    told = [
        (small, large)
        for smaller, large in re.findall(r"((?:`\w+`(?:, | or )?)+)\s+above\s+`(\w+)`", refused[0])
        for small in re.findall(r"`(\w+)`", smaller)
    ]
    keys = {field.name: field.key for field in fields_of(wire.Report)}
    assert sorted(told) == sorted((keys[small], keys[large]) for small, large in codec._NOT_ABOVE)
