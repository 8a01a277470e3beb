"""What holds for every test of a fleet: it leaves nothing behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab.cluster import remains


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert psutil.Process().children(recursive=True) == []
    assert remains.left_of(os.getpid()) == []
    assert f"{remains.name_of(os.getpid())}-" not in Path("/proc/mounts").read_text()
