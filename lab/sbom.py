"""The bill of materials of a package: what is in it and what it needs, as CycloneDX 1.6 (JSON), beside it.

It is made of the package's own fields, and of the pins where something is carried. So the same package has
the same bill, to the byte; its time is that of the changelog.
"""

import json
import re
import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lab.code_disk import REPOSITORY

LICENCE: Final = [{"license": {"id": "Apache-2.0"}}]
CARRIED: Final = {"dynmem-msgspec": ("msgspec", "BSD-3-Clause"), "dynmem-uplot": ("uplot-python", "MIT")}
"""By package: what it carries of PyPI, and that one's licence."""
_NAMESPACE: Final = uuid.UUID("5d1f4d5e-6f0b-5c39-9a51-64796e6d656d")
_RELATION: Final = re.compile(r"([a-z0-9][a-z0-9+.-]+)(?::\w+)?(?:\s*\(([^)]*)\))?")


def write(package: Path, seconds: int) -> Path:
    """`NAME.cdx.json` beside a .deb. seconds: since 1970, of its changelog.

    Raises:
        CalledProcessError: it is no package.
    """
    bill = bill_of(fields_of(package), seconds)
    path = package.with_name(f"{package.name}.cdx.json")
    path.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def fields_of(package: Path) -> dict[str, str]:
    """Its control fields."""
    shown = subprocess.run(
        ["dpkg-deb", "--field", package], capture_output=True, text=True, check=True
    ).stdout
    return dict(re.findall(r"^([A-Za-z-]+): (.*)$", shown, re.MULTILINE))


def bill_of(fields: dict[str, str], seconds: int) -> dict[str, Any]:
    """The document, of a package's fields."""
    name, version = fields["Package"], fields["Version"]
    own = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}"
    needed = [
        *_needed(fields.get("Depends", ""), "required"),
        *_needed(fields.get("Recommends", ""), "optional"),
    ]
    components = [*_carried(name), *needed]
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
                "name": name,
                "version": version,
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


def _needed(relations: str, scope: str) -> list[dict[str, Any]]:
    """Packages of the distribution, in whatever version that has; of alternatives the first."""
    found = []
    for relation in filter(None, (one.strip() for one in relations.split(","))):
        matched = _RELATION.match(relation)
        if matched is None:
            continue
        name, bound = matched[1], matched[2]
        purl = f"pkg:deb/debian/{name}"
        component: dict[str, Any] = {
            "type": "library", "bom-ref": purl, "name": name, "purl": purl, "scope": scope,
        }  # fmt: skip
        if bound:
            component["properties"] = [{"name": "debian:version", "value": bound}]
        found.append(component)
    return list({one["bom-ref"]: one for one in found}.values())


def _carried(package: str) -> list[dict[str, Any]]:
    """What is in the package itself and is not ours."""
    if package not in CARRIED:
        return []
    name, licence = CARRIED[package]
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
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
