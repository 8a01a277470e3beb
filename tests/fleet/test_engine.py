"""A real Pacemaker, and no guest: the arbiter runs once and is moved, and no publication wins a lost race."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from host_controller.fleet.pacemaker.cib import changed, read_cib
from host_controller.fleet.pacemaker.tools import OLD
from lab.cluster.cluster import Cluster
from lab.code_disk import REPOSITORY

REPLACE = """
import sys
from pathlib import Path
from host_controller.fleet.errors import RaceLost
from host_controller.fleet.pacemaker.tools import Tools

try:
    Tools().replace(*(Path(one).read_bytes() for one in sys.argv[1:]))
    print("replaced")
except RaceLost:
    print("race lost")
"""
pytestmark = [pytest.mark.fleet, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as one:
        yield one


def dummy(cluster: Cluster, name: str, size_mib: int) -> None:
    xml = (
        f'<primitive class="ocf" id="{name}" provider="pacemaker" type="Dummy"><utilization id="{name}-u">'
        f'<nvpair id="{name}-s" name="dynmem" value="{size_mib}"/></utilization></primitive>'
    )
    cluster.on("n1", "cibadmin", "--create", "-o", "resources", "-X", xml)
    cluster.rest("n1")


def test_capacities_are_published_once_and_then_there_is_nothing_to_do(cluster: Cluster) -> None:
    cluster.publish("n1")
    published = {one["name"]: one["published_mib"] for one in cluster.status()["hosts"]}
    assert published == {"n1": 1400, "n2": 1400, "n3": 1400}
    assert "published" not in cluster.fleet("n2", "run", "--once", check=False)


def test_a_commit_that_somebody_was_faster_than_changes_nothing(cluster: Cluster) -> None:
    text = cluster.on("n1", "cibadmin", "--query").encode()
    old, new, patch = (cluster.directory / name for name in ("old.xml", "new.xml", "patch.xml"))
    old.write_bytes(text)
    new.write_bytes(changed(read_cib(text), {}, {"n1": 7, "n2": 7, "n3": 7}))
    patch.write_text(cluster.on("n1", "crm_diff", "-o", str(old), "-n", str(new), check=False))
    cluster.on("n3", "crm_attribute", "-t", "crm_config", "-n", "cluster-name", "-v", "theirs")
    said = cluster.on("n1", "sh", "-c", f"cibadmin --patch --xml-file {patch}; echo code $?", check=False)
    assert f"code {OLD}" in said, said
    assert {one["published_mib"] for one in cluster.status()["hosts"]} == {1400}


def version(cluster: Cluster, node: str) -> tuple[str, str, str]:
    """Of a node's own copy of the configuration."""
    return read_cib(cluster.on(node, "cibadmin", "--query").encode()).version


def test_a_commit_that_only_a_node_would_take_whose_copy_is_behind_changes_no_copy(cluster: Cluster) -> None:
    """As that of a node which has just joined may be for some seconds (fact: copies-judge-alone)."""
    cluster.rest("n1")
    text, before = cluster.on("n1", "cibadmin", "--query").encode(), version(cluster, "n3")
    old, new = (cluster.directory / name for name in ("old.xml", "new.xml"))
    old.write_bytes(text)
    new.write_bytes(changed(read_cib(text), {}, {"n1": 7, "n2": 7, "n3": 7}))
    state = '<node_state id="1" uname="n1" crm-debug-origin="the lab"/>'
    for node in ("n1", "n2"):  # each in its own copy alone
        cluster.on(node, "cibadmin", "--node", node, "--modify", "-o", "status", "-X", state)
    assert version(cluster, "n3") == before != version(cluster, "n1")
    assert "race lost" in cluster.on("n1", sys.executable, "-c", REPLACE, str(old), str(new))
    assert version(cluster, "n3") in (before, version(cluster, "n1")), "n3 has changed what nobody else has"
    cluster.until(lambda: len({version(cluster, one) for one in cluster.nodes}) == 1, "they are one", 60.0)
    assert {one["published_mib"] for one in cluster.status()["hosts"]} == {1400}


def test_what_cannot_migrate_live_keeps_its_host_from_being_drained(cluster: Cluster) -> None:
    dummy(cluster, "thing", 100)
    place = cluster.place_of("thing")
    said = cluster.fleet("n1", "drain", str(place), check=False)
    assert "thing (100 MiB): it would be stopped and started again: it cannot be migrated live" in said
    assert cluster.place_of("thing") == place


def test_the_arbiter_is_run_once_and_moved_when_its_node_is_emptied(cluster: Cluster) -> None:
    cluster.add_arbiter()
    first = str(cluster.place_of("arbiter"))
    cluster.on("n1", "crm_standby", "-v", "on", "-N", first)
    cluster.until(lambda: cluster.place_of("arbiter") not in (None, first), "it has moved", 60.0)
    running = [node for node in cluster.nodes if "fleet run" in cluster.on(node, "ps", "-eo", "args")]
    assert running == [cluster.place_of("arbiter")]
    cluster.on("n1", "crm_standby", "-D", "-N", first)


def test_a_stopped_controller_offers_nothing_and_its_host_is_named(cluster: Cluster) -> None:
    cluster.on("n3", "pkill", "-f", "dynmem run")
    cluster.until(
        lambda: {one["name"]: one["state"] for one in cluster.status()["hosts"]}["n3"].startswith("silent"),
        "n3 is silent",
        20.0,
    )
    cluster.until(
        lambda: {one["name"]: one["published_mib"] for one in cluster.status()["hosts"]}["n3"] in (0, 100),
        "the arbiter offers nothing of n3",
        90.0,
    )


def test_a_host_where_a_start_failed_is_tried_again_by_the_arbiter(cluster: Cluster) -> None:
    fails = (
        '<instance_attributes id="f"><nvpair id="f-n" name="fail_start_on" value="n1"/></instance_attributes>'
    )
    small = '<utilization id="f-u"><nvpair id="f-s" name="dynmem" value="100"/></utilization>'
    xml = f'<primitive class="ocf" id="flaky" provider="pacemaker" type="Dummy">{fails}{small}</primitive>'
    cluster.on("n1", "cibadmin", "--create", "-o", "resources", "-X", xml)
    for node in ("n2", "n3"):
        never = f'<rsc_location id="never-{node}" rsc="flaky" node="{node}" score="-INFINITY"/>'
        cluster.on("n1", "cibadmin", "--create", "-o", "constraints", "-X", never)

    def failed_at() -> str | None:
        root = ElementTree.fromstring(cluster.on("n1", "cibadmin", "--query"))
        pair = root.find("status//nvpair[@name='last-failure-flaky#start_0']")
        return None if pair is None else pair.get("value")

    cluster.until(lambda: failed_at() is not None, "its start has failed", 60.0)
    cluster.rest("n1")
    before = failed_at()
    cluster.until(
        lambda: "a ban is lifted" in cluster.fleet("n2", "run", "--once", check=False),
        "the ban is lifted",
        60.0,
    )
    cluster.until(lambda: failed_at() not in (None, before), "it was tried again, and failed again", 60.0)
    for gone in ('<rsc_location id="never-n2"/>', '<rsc_location id="never-n3"/>', '<primitive id="flaky"/>'):
        cluster.on("n1", "cibadmin", "--delete", "-X", gone)


@pytest.mark.skipif(shutil.which("ocf-tester") is None, reason="needs ocf-tester")
def test_the_agent_is_a_resource_agent_as_ocf_has_it(tmp_path: Path) -> None:
    program, config = tmp_path / "dynmem", tmp_path / "dynmem.toml"
    program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    program.chmod(0o755)
    config.touch()
    options = [f"binary={program}", f"config={config}", f"log={tmp_path}/log"]
    given = [word for one in options for word in ("-o", one)]
    command = ["ocf-tester", "-n", f"test-{os.getpid()}", *given, str(REPOSITORY / "services/ocf/fleet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "passed all tests" in done.stdout, done.stdout + done.stderr


def test_the_engines_configuration_is_still_valid(cluster: Cluster) -> None:
    root = ElementTree.fromstring(cluster.on("n1", "cibadmin", "--query"))
    assert root.find("configuration/nodes/node/utilization") is not None
    said = cluster.on("n1", "crm_verify", "--live-check", "-V", check=False)
    assert "error" not in said.lower().replace("no stonith", ""), said
