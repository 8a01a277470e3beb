"""What holds for every test of a fleet: it leaves nothing behind, and one that fails shows what nodes say."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.cluster import remains
from lab.cluster.cluster import Cluster
from lab.cluster.evidence import said_by


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert psutil.Process().children(recursive=True) == []
    assert remains.left_of(os.getpid()) == []
    assert f"{remains.name_of(os.getpid())}-" not in Path("/proc/mounts").read_text()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    done = yield
    report, cluster = done.get_result(), getattr(item, "funcargs", {}).get("cluster")
    if report.when != "call" or not report.failed or not isinstance(cluster, Cluster):
        return
    report.sections.extend(said_by(cluster))
