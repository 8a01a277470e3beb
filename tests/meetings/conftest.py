"""Two releases: the first one out of the repository's history, and the present."""

import pytest

from bench.replay.__main__ import ReplayError, unpack
from tests.meetings.release import FIRST_RELEASE, PRESENT, Release


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """0.1.0."""
    try:
        return Release(unpack(FIRST_RELEASE, tmp_path_factory.mktemp("release") / "0.1.0"))
    except ReplayError as error:
        pytest.skip(f"0.1.0 is not in this clone: {error}")


@pytest.fixture(scope="session")
def new() -> Release:
    """This tree."""
    return Release(PRESENT)
