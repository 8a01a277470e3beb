"""The configuration is taken whole or refused whole, with every mistake named."""

from pathlib import Path

import pytest

from host_controller.config import ConfigError, load, parse
from host_controller.core.model import HostFacts, HugePool
from host_controller.units import GIB, MIB


def mistakes(text: str) -> dict[str, tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), "dynmem.toml")
    return {one.key: (one.found, one.allowed) for one in caught.value.problems}


def test_an_empty_file_means_the_defaults() -> None:
    config = parse(b"")
    assert config.libvirt.uri == "qemu:///system"
    assert config.socket_path == Path("/run/dynmem/control.sock")


def test_an_editor_that_begins_a_file_with_a_mark_writes_toml_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "dynmem.toml"
    path.write_text('[host]\ncapacity = "3GiB"\n', encoding="utf-8-sig")
    assert load(path).host.capacity == 3 * GIB
    with pytest.raises(ConfigError, match="TOML"):
        parse(path.read_bytes()[:3] + path.read_bytes())


def test_sizes_and_durations_are_written_as_people_write_them() -> None:
    config = parse(
        b'[host]\ncapacity = "1.5GiB"\nkeep_ready = 0\n'
        b'[timing]\nshrink_after = "2min"\nsettle = 3\nunplug_after = 0.5\n[history]\nkeep = "30d"\n'
    )
    assert config.host.capacity == 3 * GIB // 2
    assert config.host.keep_ready == 0
    assert (config.timing.shrink_after, config.timing.settle, config.timing.unplug_after) == (120, 3, 0.5)
    assert config.history.keep == 30 * 86400


def test_capacity_is_physical_memory_less_the_reserve_unless_it_is_configured() -> None:
    host = HostFacts(0.0, 16 * GIB, 15 * GIB, ordinary_bytes=16 * GIB, others_bytes=GIB)
    default = parse(b"").settings(host)
    assert (default.capacity_bytes, default.reserve_bytes) == (14 * GIB, 2 * GIB)
    assert (default.capacity_follows, default.reserve_follows) == (True, True)
    reserved = parse(b'[host]\nreserve = "4GiB"').settings(host)
    assert (reserved.capacity_bytes, reserved.reserve_bytes) == (12 * GIB, 4 * GIB)
    assert (reserved.capacity_follows, reserved.reserve_follows) == (True, False)
    lab = parse(b'[host]\ncapacity = "1GiB"').settings(host)
    assert (lab.capacity_bytes, lab.reserve_bytes) == (GIB, 2 * GIB)
    assert (lab.capacity_follows, lab.reserve_follows) == (False, True)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('reserve = "16GiB"', "host.reserve"),
        ('reserve = "600GiB"', "host.reserve"),
        ('capacity = "600GiB"', "host.capacity"),
        ('capacity = "17GiB"', "host.capacity"),
        ('keep_ready = "17GiB"', "host.keep_ready"),
        ('overhead_floor = "17GiB"', "host.overhead_floor"),
        ('capacity = "2GiB"\nkeep_ready = "3GiB"', "host.keep_ready"),
        ('capacity = "2GiB"\noverhead_floor = "2GiB"', "host.overhead_floor"),
        ('reserve = "12GiB"\nkeep_ready = "5GiB"', "host.keep_ready"),
    ],
)
def test_what_the_host_does_not_have_is_refused_with_what_it_has(text: str, key: str) -> None:
    pools = (HugePool(2 * MIB, 8 * GIB, 0),)
    host = HostFacts(0.0, 24 * GIB, 15 * GIB, ordinary_bytes=16 * GIB, pools=pools)
    (problem,) = parse(f"[host]\n{text}".encode()).problems_on(host)
    assert problem.key == key
    assert "the host has 16 GiB beside 8 GiB in huge pages" in problem.allowed


def test_what_the_host_has_is_accepted() -> None:
    host = HostFacts(0.0, 16 * GIB, 15 * GIB, ordinary_bytes=16 * GIB)
    for text in ('capacity = "16GiB"', 'reserve = "15GiB"', 'keep_ready = "4GiB"', ""):
        assert not parse(f"[host]\n{text}".encode()).problems_on(host)


def test_all_mistakes_are_named_with_what_was_found_and_what_is_allowed() -> None:
    found = mistakes(
        """
        [host]
        capasity = "1GiB"
        reserve = "lots"
        keep_ready = true
        [defaults]
        buffer = 4
        weight = "100"
        minimum = "1M"
        [timing]
        settle = -1
        [metrics]
        """
    )
    assert set(found) == {
        "host.capasity", "host.reserve", "host.keep_ready", "defaults.buffer", "defaults.weight",
        "defaults.minimum", "timing.settle", "metrics",
    }  # fmt: skip
    assert "did you mean capacity?" in found["host.capasity"][0]
    assert found["host.reserve"] == ('"lots"', 'a size such as "512M" or "1.5GiB", at most 16TiB')
    assert found["defaults.buffer"] == ("4", "percent of demand, 5 to 2000")
    assert found["defaults.minimum"][1].endswith("32MiB to 16TiB")
    assert "libvirt, host, defaults" in found["metrics"][1]


@pytest.mark.parametrize("text", ["[host", 'host = "x"', "\xff"])
def test_what_is_not_a_table_of_tables_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text.encode("latin-1"))


def test_default_limits_out_of_order_are_refused() -> None:
    assert list(mistakes('[defaults]\nstartup = "256M"\nminimum = "512M"')) == ["defaults"]


def test_capacity_and_reserve_together_are_refused() -> None:
    assert list(mistakes('[host]\ncapacity = "4G"\nreserve = "1G"')) == ["host"]


def test_a_named_file_that_is_missing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load(tmp_path / "none.toml")


def test_a_missing_default_file_means_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_controller.config.DEFAULT_PATH", tmp_path / "none.toml")
    assert load().host.overhead_floor == 64 * MIB


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        load(tmp_path)


@pytest.mark.parametrize("key", ["capacity", "reserve", "keep_ready", "overhead_floor"])
@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("64", "64M"),
        ('"64"', "64M"),
        ('" 64 "', "64M"),
        ("4", "4G"),
        ("4194304", "4194304K"),
        ('"4194304"', "4194304K"),
    ],
)
def test_a_size_without_its_unit_is_asked_about(key: str, value: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f'host.{key}.*did you mean "{meant}"'):
        parse(f"[host]\n{key} = {value}".encode())


def test_the_size_of_a_file_may_be_some_bytes() -> None:
    assert parse(b"[history]\nmax_size = 10485760").history.max_size == 10 * MIB


def test_a_fraction_without_its_unit_is_asked_about() -> None:
    with pytest.raises(ConfigError, match=r'did you mean "1\.5G"'):
        parse(b'[defaults]\nmaximum = "1.5"')


@pytest.mark.parametrize(
    "uri", ["qemu://[::1/system", "qemu+ssh://host:ssh/system", "qemu+tcp://h:70000/system"]
)
def test_an_address_that_cannot_be_taken_apart_is_refused(uri: str) -> None:
    assert list(mistakes(f'[libvirt]\nuri = "{uri}"')) == ["libvirt.uri"]


def test_no_path_has_a_nul_in_it() -> None:
    assert list(mistakes('[paths]\nhistory = "/var/\\u0000"')) == ["paths.history"]


@pytest.mark.parametrize("text", [b"a = " + b"[" * 100_000, b"a = " + b"9" * 5000, b"\xff", b"a"])
def test_what_no_toml_can_be_is_one_mistake(text: bytes) -> None:
    with pytest.raises(ConfigError, match="TOML"):
        parse(text)


def test_a_file_without_end_is_not_read_to_it() -> None:
    with pytest.raises(ConfigError, match="more than"):
        load(Path("/dev/zero"))


@pytest.mark.parametrize(
    "uri", [r"qemu:///system\u0000", r"qemu:///system\n", r"qemu+ssh://h\u007f/system", ""]
)
def test_an_address_that_no_libvirt_can_be_asked_at_is_refused(uri: str) -> None:
    assert mistakes(f'[libvirt]\nuri = "{uri}"')["libvirt.uri"][1] == "text, not empty"
