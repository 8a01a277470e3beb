"""Sizes and durations as people write them."""

import pytest

from host_controller.cli.simulate import simulate
from host_controller.config import ConfigError, parse
from host_controller.units import LARGEST_BYTES, MIB, TIB, format_size, parse_duration, parse_size, with_unit

BEYOND = ["9" * 20, "9" * 400, "9" * 5000, "1048577TiB", f"1.{'9' * 5000}GiB", f"{'9' * 400}.5T"]


@pytest.mark.parametrize("text", BEYOND, ids=lambda text: text[:10])
def test_a_size_beyond_any_memory_is_refused_in_a_short_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"more than any memory; the most is 1048576TiB") as said:
        parse_size(text)
    assert len(str(said.value)) < 100
    assert parse_size("1048576TiB") == LARGEST_BYTES
    assert format_size(LARGEST_BYTES) == "1048576 TiB"


@pytest.mark.parametrize("text", ["9" * 400, f"{'9' * 400}d", "400000d"], ids=["digits", "days", "no reason"])
def test_a_duration_without_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than a thousand years"):
        parse_duration(text)
    assert parse_duration("366000d") == 366_000 * 86_400


@pytest.mark.parametrize(
    ("number", "meant"),
    [
        ("4", "4G"),
        ("31", "31G"),
        ("32", "32M"),
        ("1024", "1024M"),
        ("131072", "131072M"),
        ("262144", "262144K"),
        ("1048576", "1048576K"),  # a GiB in virsh and in domain XML
        (str(32 * MIB - 1), f"{32 * MIB - 1}K"),
        (str(32 * MIB), ""),
        ("9" * 5000, ""),
        ("1.5", "1.5G"),
        ("1.5K", ""),
    ],
)
def test_a_number_alone_is_asked_about_unless_it_may_well_be_bytes(number: str, meant: str) -> None:
    assert with_unit(number) == meant


@pytest.mark.parametrize("line", ["reserve = {}", 'reserve = "{}"', "capacity = {}", 'keep_ready = "{}"'])
def test_the_configuration_names_a_size_beyond_any_memory(line: str) -> None:
    for digits in (20, 400):
        with pytest.raises(ConfigError, match=r"host\.\w+: found .*; allowed: a size"):
            parse(f"[host]\n{line.format('9' * digits)}\n".encode())


def test_a_command_refuses_it_before_anything_is_done() -> None:
    from click.testing import CliRunner

    told = CliRunner().invoke(simulate, ["x.toml", "--capacity", "9" * 400])
    assert (told.exit_code, "more than any memory" in " ".join(told.output.split())) == (2, True), told.output
    assert TIB < LARGEST_BYTES
