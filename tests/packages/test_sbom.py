"""Each package has a bill of materials: what it is, what it needs, what it carries."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab.sbom import CARRIED, Need, Package, bill_of

AGENT = Package(
    "deb/debian",
    "dynmem-agent",
    "0.2.0",
    "all",
    (Need("python3", ">= 3.9"), Need("python3-x"), Need("python3-click", scope="optional")),
)


def test_a_bill_names_the_package_its_licence_and_what_it_needs() -> None:
    bill = bill_of(AGENT, 0)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    own = bill["metadata"]["component"]
    assert own["purl"] == "pkg:deb/debian/dynmem-agent@0.2.0?arch=all"
    assert own["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert {one["name"]: one["scope"] for one in bill["components"]} == {
        "python3": "required",
        "python3-x": "required",
        "python3-click": "optional",
    }
    assert bill["components"][0]["properties"] == [{"name": "deb:version", "value": ">= 3.9"}]


def test_every_reference_of_a_bill_is_resolved_in_it() -> None:
    bill = bill_of(AGENT, 0)
    known = [bill["metadata"]["component"]["bom-ref"], *(one["bom-ref"] for one in bill["components"])]
    assert len(known) == len(set(known))
    assert {one["ref"] for one in bill["dependencies"]} == set(known)
    for one in bill["dependencies"]:
        assert set(one.get("dependsOn", ())) <= set(known)


@pytest.mark.parametrize("package", CARRIED)
def test_what_a_package_carries_is_in_its_bill_with_version_and_licence(package: str) -> None:
    bill = bill_of(replace(AGENT, name=package), 0)
    carried = bill["components"][0]
    assert carried["purl"] == f"pkg:pypi/{carried['name']}@{carried['version']}"
    assert carried["licenses"]


def test_the_same_package_has_the_same_bill_and_another_version_another() -> None:
    assert json.dumps(bill_of(AGENT, 7)) == json.dumps(bill_of(replace(AGENT), 7))
    other = bill_of(replace(AGENT, version="0.2.1"), 7)
    assert other["serialNumber"] != bill_of(AGENT, 7)["serialNumber"]
    assert bill_of(AGENT, 0)["metadata"]["timestamp"] == "1970-01-01T00:00:00Z"


def test_no_bill_names_a_host(tmp_path: Path) -> None:
    assert "://" not in json.dumps(bill_of(AGENT, 0))
