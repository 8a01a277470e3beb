"""A cell whose owner is killed: its processes end with it, and the next owner removes the rest."""

import os
import subprocess
import sys

import psutil
import pytest

from lab.cluster import remains
from lab.code_disk import REPOSITORY

pytestmark = [pytest.mark.fleet, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]
OWNER = """
from lab.cluster.cluster import Cluster
with Cluster(("n1",)):
    print("up", flush=True)
    input()
"""


def test_of_a_cell_whose_owner_is_killed_nothing_stays() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", OWNER], cwd=REPOSITORY, text=True, **pipes) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        started = psutil.Process(owner.pid).children(recursive=True)
        names = {one.name() for one in started}
        assert {"corosync", "pacemakerd", "libvirtd", "dynmem"} <= names, names
        owner.kill()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    assert remains.left_of(owner.pid) != []
    remains.remove_crashed()
    assert remains.left_of(owner.pid) == []
