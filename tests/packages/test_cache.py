"""What was built once stays, and one kind's builder touches nothing of another's."""

from pathlib import Path

import pytest

from lab.cache import build_once, key_of

KEY = key_of("an input")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DYNMEM_CACHE", str(tmp_path))
    return tmp_path


def made(place: Path) -> None:
    (place / "made").write_text("")


def test_a_second_asker_gets_what_the_first_one_built() -> None:
    place = build_once("guest", KEY, made)
    assert build_once("guest", KEY, lambda _: pytest.fail("built again")) == place


def test_an_interrupted_build_leaves_nothing_and_the_next_one_removes_what_a_crash_left(cache: Path) -> None:
    with pytest.raises(OSError, match="interrupted"):
        build_once("guest", KEY, lambda _: (_ for _ in ()).throw(OSError("interrupted")))
    assert not list(cache.glob("guest-*"))
    (cache / f"guest-{KEY}.partial.crashed").mkdir()
    build_once("guest", KEY, made)
    assert [one.name for one in cache.glob("guest-*")] == [f"guest-{KEY}"]


def test_a_build_leaves_alone_what_another_kind_of_a_longer_name_is_just_building(cache: Path) -> None:
    other = cache / f"guest-bookworm-backports-{KEY}.partial.running"
    other.mkdir()
    build_once("guest-bookworm", KEY, made)
    assert other.is_dir()
