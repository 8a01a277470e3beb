"""The bill of materials of a package: what is in it and what it needs, as CycloneDX 1.6 (JSON), beside it.

A .deb and an .rpm are read by their own tools. A bill is made of what they say, and of the pins where
something is carried. So the same package has the same bill, to the byte; its time is that of the changelog.
"""

import json
import re
import subprocess
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lab.code_disk import REPOSITORY

LICENCE: Final = [{"license": {"id": "Apache-2.0"}}]
CARRIED: Final = {"dynmem-msgspec": ("msgspec", "BSD-3-Clause"), "dynmem-uplot": ("uplot-python", "MIT")}
"""By package: what it carries of PyPI, and that one's licence."""
_NAMESPACE: Final = uuid.UUID("5d1f4d5e-6f0b-5c39-9a51-64796e6d656d")
_DEBIAN: Final = re.compile(r"([a-z0-9][a-z0-9+.-]+)(?::\w+)?(?:\s*\(([^)]*)\))?")
_RPM: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9+._-]*)(?: ([<>=]+ \S+))?")
_OF_RPM: Final = "%{NAME}\\n%{VERSION}-%{RELEASE}\\n%{ARCH}"


@dataclass(frozen=True, slots=True)
class Need:
    """Another package that one needs, in whatever version the distribution has. bound: `>= 3.9`, or empty."""

    name: str
    bound: str = ""
    scope: str = "required"


@dataclass(frozen=True, slots=True)
class Package:
    """What a package says of itself. family: the beginning of its package URL, `deb/debian` or `rpm`."""

    family: str
    name: str
    version: str
    architecture: str
    needs: tuple[Need, ...] = ()


def write(file: Path, seconds: int) -> Path:
    """`NAME.cdx.json` beside a .deb or .rpm. seconds: since 1970, of its changelog.

    Raises:
        CalledProcessError: it is no package.
    """
    package = read_rpm(file) if file.suffix == ".rpm" else read_deb(file)
    path = file.with_name(f"{file.name}.cdx.json")
    path.write_text(json.dumps(bill_of(package, seconds), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def read_deb(file: Path) -> Package:
    """Of its control fields; of alternatives the first."""
    fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", _said("dpkg-deb", "--field", str(file)), re.MULTILINE))
    needs = [
        *_needs(_DEBIAN, fields.get("Depends", "").split(","), "required"),
        *_needs(_DEBIAN, fields.get("Recommends", "").split(","), "optional"),
    ]
    return Package("deb/debian", fields["Package"], fields["Version"], fields["Architecture"], tuple(needs))


def read_rpm(file: Path) -> Package:
    """Of its header. Files, and features of rpm itself, are no packages."""

    def asked(*what: str) -> list[str]:
        return _said("rpm", "--query", "--package", *what, str(file)).splitlines()

    name, version, architecture = asked("--queryformat", _OF_RPM)
    needs = [
        *_needs(_RPM, asked("--requires"), "required"),
        *_needs(_RPM, asked("--recommends"), "optional"),
    ]
    return Package("rpm", name, version, architecture, tuple(needs))


def bill_of(package: Package, seconds: int) -> dict[str, Any]:
    """The document."""
    own = f"pkg:{package.family}/{package.name}@{package.version}?arch={package.architecture}"
    needed = {need.name: _component(package.family, need) for need in reversed(package.needs)}
    components = [*_carried(package.name), *reversed(needed.values())]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, own)}",
        "metadata": {
            "timestamp": datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": package.name,
                "version": package.version,
                "purl": own,
                "licenses": LICENCE,
            },
        },
        "components": components,
        "dependencies": [
            {"ref": own, "dependsOn": sorted(one["bom-ref"] for one in components)},
            *({"ref": one["bom-ref"]} for one in components),
        ],
    }


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _needs(pattern: re.Pattern[str], relations: Iterable[str], scope: str) -> list[Need]:
    whole = re.compile(rf"\s*{pattern.pattern}\s*(?:\|.*)?")
    matched = (whole.fullmatch(relation) for relation in relations)
    return [Need(one[1], one[2] or "", scope) for one in matched if one]


def _component(family: str, need: Need) -> dict[str, Any]:
    purl = f"pkg:{family}/{need.name}"
    component: dict[str, Any] = {
        "type": "library", "bom-ref": purl, "name": need.name, "purl": purl, "scope": need.scope,
    }  # fmt: skip
    if need.bound:
        component["properties"] = [{"name": f"{family.partition('/')[0]}:version", "value": need.bound}]
    return component


def _carried(package: str) -> list[dict[str, Any]]:
    """What is in the package itself and is not ours."""
    if package not in CARRIED:
        return []
    name, licence = CARRIED[package]
    pins = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
    version = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", pins, re.MULTILINE))[name]
    purl = f"pkg:pypi/{name}@{version}"
    return [
        {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "scope": "required",
            "licenses": [{"license": {"id": licence}}],
        }
    ]
