"""Hosts of an older version and of this one in one cell: each takes the other at its word."""

import json
import os
from collections.abc import Iterator

import pytest

from lab.cluster.cluster import DYNMEM, Cluster
from tests.fleet.test_failures import home, move

pytestmark = [pytest.mark.fleet, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]
FIRST = "79f6c6d"
"""The first commit of which hosts speak with each other."""
NEW, OLD = "n1", "n3"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(guests=("vm1",), older={OLD: FIRST}) as one:
        one.fence()
        one.add("vm1", one.file_of("vm1", boots=False))
        one.fleet(NEW, "init")
        one.rest(NEW)
        yield one


@pytest.mark.parametrize("asked", [NEW, OLD])
def test_each_version_believes_the_hosts_of_the_other_and_publishes(cluster: Cluster, asked: str) -> None:
    cluster.publish(asked)
    hosts = json.loads(cluster.on(asked, cluster.dynmem(asked), "fleet", "status", "--json"))["hosts"]
    assert [(one["name"], one["state"]) for one in hosts] == [("n1", "ok"), ("n2", "ok"), ("n3", "ok")]
    assert {one["capacity_bytes"] for one in hosts} == {cluster.capacity_mib << 20}
    assert all(one["published_mib"] for one in hosts)


def test_a_vm_moves_from_version_to_version_with_its_limits_and_never_runs_twice(cluster: Cluster) -> None:
    source = cluster.start("vm1")
    for destination in (NEW, OLD, "n2") if source == OLD else (OLD, NEW, OLD):
        assert "None" in move(cluster, NEW, source, destination)
        assert (home(cluster), len(cluster.processes("vm1"))) == (destination, 1)
        (vm,) = json.loads(cluster.on(destination, DYNMEM, "status", "--json"))["vms"]
        assert vm["limits"]["maximum_bytes"] == 1024 << 20
        source = destination
