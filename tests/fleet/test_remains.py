"""Whose owner is killed: processes end with it, and the next owner removes the rest."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from lab.cluster import remains
from lab.code_disk import REPOSITORY

pytestmark = pytest.mark.fleet
CELL = """
from lab.cluster.cluster import Cluster
with Cluster(("n1",)):
    print("up", flush=True)
    input()
"""
PLACEMENT = """
from pathlib import Path
from lab import placement
placement.build_once = lambda *_: Path("/nowhere")
placement.PlacementService._python = lambda *_: None
with placement.PlacementService():
    print("up", flush=True)
    input()
"""


@contextmanager
def owner_of(what: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", what], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        yield owner


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_of_a_cell_whose_owner_is_killed_nothing_stays() -> None:
    with owner_of(CELL) as owner:
        started = psutil.Process(owner.pid).children(recursive=True)
        names = {one.name() for one in started}
        assert {"corosync", "pacemakerd", "libvirtd", "dynmem"} <= names, names
        owner.kill()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    assert remains.left_of(owner.pid) != []
    remains.remove_crashed()
    assert remains.left_of(owner.pid) == []


def test_of_a_service_whose_owner_is_killed_its_directory_in_memory_goes_with_the_next_one() -> None:
    with owner_of(PLACEMENT) as first:
        (place,) = remains.left_of(first.pid)
        assert place.startswith(f"{remains.MEMORY}/")
        first.kill()
    with owner_of(PLACEMENT) as second:
        assert remains.left_of(first.pid) == []
        second.communicate("\n")
    assert remains.left_of(second.pid) == [], "one that ends removes its own"
