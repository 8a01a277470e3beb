"""Nothing that somebody else writes makes a reader do anything but take it or refuse it."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import readers
from tests.fuzz.__main__ import found, fuzz
from tests.fuzz.targets import TARGETS, Target

SHORT = 5_000
"""Inputs: a few seconds each; `make fuzz` tries a million."""


@pytest.fixture(scope="module", autouse=True)
def _what_readers_write_here_goes_with_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("fuzz")))
        yield
    readers.scratch.cache_clear()


each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@each_target
def test_what_was_found_once_is_dealt_with(target: Target) -> None:
    for data in [*target.seeds, *found(target)]:
        target.run(data)


@each_target
def test_a_short_search_finds_nothing(target: Target) -> None:
    assert fuzz(target, SHORT, seed=1) == 0


def test_what_readers_write_goes_with_their_search(monkeypatch: pytest.MonkeyPatch) -> None:
    run, places = subprocess.run, list[Path]()

    def runs(command: list[str], **how: Any) -> subprocess.CompletedProcess[bytes]:
        done = run(command, **how)
        places.extend(Path(how["env"]["TMPDIR"]).glob("readers-*/trial.toml"))
        return done

    monkeypatch.setattr(subprocess, "run", runs)
    assert fuzz(TARGETS["trial"], 10, seed=1) == 0
    (place,) = places
    assert not place.parents[1].exists()
