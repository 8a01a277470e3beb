"""What holds for every test of a fleet: it leaves nothing behind, and one that fails shows what nodes say."""

import contextlib
import os
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.cluster import remains
from lab.cluster.cluster import Cluster
from lab.errors import LabError

SHOWN = (
    "crm_mon -1",
    "cibadmin --query --scope constraints",
    "tail -n 30 /var/log/dynmem.log",
    "tail -n 30 /var/log/dynmem-fleet.log",
    "tail -n 150 /var/log/pacemaker/pacemaker.log",
)
"""Their logs end with the cluster, and what fails once in a while is not seen again."""


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
    for node in cluster.nodes:
        for command in () if cluster.off(node) else SHOWN:
            with contextlib.suppress(LabError, subprocess.TimeoutExpired):
                said = cluster.on(node, *command.split(), check=False, limit=20.0)
                report.sections.append((f"{node}: {command}", said))
