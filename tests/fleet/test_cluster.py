"""Three real nodes: starts go where memory is, and hosts are emptied without a VM being stopped.

The tests tell one story, in order: guests take a minute to boot here.
"""

import json
import os
import sys
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

import host_controller
from host_controller.fleet.pacemaker.simulation import read_simulation
from lab.cluster.cluster import DYNMEM, Cluster
from lab.code_disk import REPOSITORY

pytestmark = [pytest.mark.fleet, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]
GUESTS = ("vm1", "vm2", "vm3")
GROWTH_MIB = 450


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(guests=GUESTS) as one:
        for name in GUESTS:
            one.add(name, one.file_of(name))
        yield one


def vms(cluster: Cluster) -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in cluster.status()["vms"]}


def settled(cluster: Cluster, *names: str) -> bool:
    found = vms(cluster)
    return all(found[name]["state"] == "ok" for name in names)


def would_start(cluster: Cluster, guest: str) -> str | None:
    """Where the engine would start a stopped guest by the figures that are published."""
    root = ElementTree.fromstring(cluster.on("n1", "cibadmin", "--query"))
    role = root.find(f".//nvpair[@id='{guest}-role']")
    assert role is not None
    role.set("value", "Started")
    file = cluster.directory / "would.xml"
    file.write_bytes(ElementTree.tostring(root))
    said = cluster.on("n1", "crm_simulate", "-x", str(file), "-R", "-U", "--output-as=xml")
    starts = [one for one in read_simulation(said.encode()).actions if one.vm == guest]
    return starts[0].destination if starts else None


def test_nodes_and_the_engine_on_them_run_this_tree(cluster: Cluster) -> None:
    where = "import host_controller; print(host_controller.__file__)"
    assert cluster.on("n1", sys.executable, "-c", where).strip() == host_controller.__file__
    (engine,) = cluster.on("n1", "pgrep", "-x", "pacemakerd").split()
    assert f"PYTHONPATH={REPOSITORY}\0" in cluster.on("n1", "cat", f"/proc/{engine}/environ")


def test_init_sets_what_is_missing_and_leaves_fencing_to_people(cluster: Cluster) -> None:
    said = cluster.fleet("n1", "init", check=False)
    assert "by hand stonith-enabled" in said
    left = json.loads(cluster.fleet("n1", "init", "--check", "--json", check=False))["needs"]
    assert [one["what"] for one in left] == ["stonith-enabled"]


def test_guests_start_on_nodes_of_their_own_and_their_need_is_published(cluster: Cluster) -> None:
    cluster.publish("n1")
    assert vms(cluster)["vm1"]["booked_mib"] == 384 + 64
    assert "takes it" in cluster.fleet("n1", "why", "vm1")
    places = {cluster.start(name) for name in ("vm1", "vm2")}
    assert len(places) == 2
    cluster.until(lambda: settled(cluster, "vm1", "vm2"), "both guests have spoken", 180.0)
    cluster.publish("n1")
    found = cluster.status()
    for host in found["hosts"]:
        assert host["booked_mib"] <= host["published_mib"]
    assert all(isinstance(one["need_bytes"], int) for one in found["vms"] if one["host"])


def test_a_guest_grows_and_the_next_start_goes_elsewhere(cluster: Cluster) -> None:
    (empty,) = {"n1", "n2", "n3"} - {cluster.place_of("vm1"), cluster.place_of("vm2")}
    assert "is empty" in cluster.fleet("n1", "drain", str(empty))
    cluster.publish("n1")
    before = would_start(cluster, "vm3")
    grows = next(name for name in ("vm1", "vm2") if cluster.place_of(name) == before)
    work = cluster.workload(grows, str(before))
    work.wait_answering(60.0)
    first = vms(cluster)[grows]["need_bytes"]
    work.allocate(GROWTH_MIB)
    cluster.until(
        lambda: vms(cluster)[grows]["need_bytes"] > first + (GROWTH_MIB - 100 << 20),  # type: ignore[operator]
        f"{grows} needs more",
        180.0,
    )
    cluster.publish("n1")
    (elsewhere,) = {"n1", "n2", "n3"} - {empty, before}
    assert cluster.start("vm3") == elsewhere
    cluster.until(lambda: settled(cluster, *GUESTS), "all guests have spoken", 180.0)


def test_a_drain_that_would_stop_a_guest_is_refused_and_nothing_moves(cluster: Cluster) -> None:
    cluster.publish("n1")
    places = {name: cluster.place_of(name) for name in GUESTS}
    full = next(place for place in places.values() if list(places.values()).count(place) == 1)
    said = cluster.fleet("n1", "drain", str(full), check=False)
    assert "is not drained, and nothing was begun" in said
    assert "missing" in said
    assert {name: cluster.place_of(name) for name in GUESTS} == places


def test_a_drained_host_is_empty_and_its_guests_arrive_with_their_limits(cluster: Cluster) -> None:
    hosts = cluster.status()["hosts"]
    drained = next(one["name"] for one in hosts if "standby" in one["state"])
    cluster.fleet("n1", "undrain", drained)
    cluster.publish("n1")
    place = cluster.place_of("vm3")
    moving = [name for name in GUESTS if cluster.place_of(name) == place]
    assert "is empty" in cluster.fleet("n1", "drain", str(place))
    for name in moving:
        there = cluster.place_of(name)
        assert there not in (None, place)
        status = json.loads(cluster.on(str(there), DYNMEM, "status", "--json"))
        (found,) = [one for one in status["vms"] if one["name"] == name]
        assert found["limits"]["maximum_bytes"] == 1024 << 20
    assert "takes VMs again" in cluster.fleet("n1", "undrain", str(place))


def test_a_guest_that_prefers_a_drained_host_goes_back_by_its_promise_when_the_drain_ends(
    cluster: Cluster,
) -> None:
    place = str(cluster.place_of("vm3"))
    prefers = f'<rsc_location id="home" rsc="vm3" node="{place}" score="INFINITY"/>'
    cluster.on("n1", "cibadmin", "--create", "-o", "constraints", "-X", prefers)
    cluster.publish("n1")
    assert "is empty" in cluster.fleet("n1", "drain", place)
    assert cluster.place_of("vm3") != place
    said = cluster.fleet("n1", "undrain", place)
    assert "1 of 1 moved" in said
    assert "takes VMs again" in said
    assert cluster.place_of("vm3") == place
    cluster.on("n1", "cibadmin", "--delete", "-X", '<rsc_location id="home"/>')
