"""`make packages`: built as a distribution builds them, and they work with Debian's own Python."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import packages as maker

ROOT = Path(__file__).parents[2]
DEBIANS = {"psutil", "pyroute2", "click", "structlog"}
"""Debian 12 and 13 have them as packages; the agent may use nothing else."""

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = maker.build(tmp_path_factory.mktemp("dist"))
    return {path.name.partition("_")[0]: path for path in made}


@pytest.fixture(scope="module")
def unpacked(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("root")
    for file in packages.values():
        subprocess.run(["dpkg-deb", "--extract", file, tree], check=True)
    return tree


def test_lintian_finds_no_error(packages: dict[str, Path]) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("needs lintian")
    done = subprocess.run(
        # There is no address of the authors yet (CONTRIBUTING.md), and lintian says so rightly.
        [
            *("lintian", "--no-cfg", "--allow-root", "--fail-on", "error"),
            *("--suppress-tags", "bogus-mail-host,bogus-mail-host-in-debian-changelog"),
            *packages.values(),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_agents_package_is_for_every_architecture_and_uses_only_debians_python_packages(
    packages: dict[str, Path],
) -> None:
    fields = subprocess.run(
        ["dpkg-deb", "--field", packages["dynmem-agent"]], capture_output=True, text=True, check=True
    ).stdout
    assert "Architecture: all" in fields
    for name in DEBIANS:
        assert f"python3-{name}" in fields
    for file in (ROOT / "agent").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module]
            for name in names:
                first = name.partition(".")[0]
                assert first in sys.stdlib_module_names | DEBIANS | {"agent"}, f"{file}: {name}"


@pytest.mark.parametrize(
    "path",
    [
        "usr/bin/dynmem",
        "usr/bin/dynmem-agent",
        "systemd/system/dynmem.service",
        "systemd/system/dynmem-agent.service",
        "usr/lib/udev/rules.d/90-dynmem-agent.rules",
        "usr/lib/sysusers.d/dynmem.conf",
        "usr/lib/tmpfiles.d/dynmem.conf",
        "usr/share/man/man1/dynmem-status.1.gz",
        "usr/share/man/man1/dynmem-agent.1.gz",
        "usr/share/man/man5/dynmem.toml.5.gz",
        "usr/share/bash-completion/completions/dynmem",
        "usr/share/doc/dynmem/OPERATIONS.md.gz",
        "usr/lib/dynmem/host_controller/hook.py",
        "usr/share/dynmem/dynmem-agent.pyz",
        "usr/lib/dynmem/host_controller/api/page/static/page.js",
        "usr/lib/dynmem/uplot/static/uPlot.iife.js",
        "usr/share/cockpit/dynmem/manifest.json",
        "usr/share/cockpit/dynmem/dynmem.js",
        "usr/share/cockpit/dynmem/curve.js",
        "usr/share/doc/dynmem/copyright",
        "etc/dynmem/dynmem.toml",
    ],
)
def test_what_belongs_there_is_there(unpacked: Path, path: str) -> None:
    # Debian 12 installs units into /lib, later ones into /usr/lib: the same place on a merged system.
    assert any((unpacked / place / path).is_file() for place in ("", "lib", "usr/lib"))


def test_the_packaged_controller_runs_on_the_distributions_python_with_what_it_brings(unpacked: Path) -> None:
    program = (unpacked / "usr/bin/dynmem").read_text()
    assert program.startswith("#!/usr/bin/python3 -I\n")
    moved = unpacked / "dynmem-here"
    moved.write_text(program.replace('"/usr/lib/dynmem"', f'"{unpacked}/usr/lib/dynmem"'))
    for arguments in (
        ["--version"],
        ["check-config", "--offline", str(unpacked / "etc/dynmem/dynmem.toml")],
        ["run", "--help"],
        ["doctor", "--help"],
    ):
        done = subprocess.run(["/usr/bin/python3", "-I", moved, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    check = (
        f"import sys; sys.path.insert(0, '{unpacked}/usr/lib/dynmem')\n"
        "import host_controller.service, host_controller.hypervisor.adapter\n"
        "from host_controller.api.page import library; assert library()\n"
    )
    done = subprocess.run(["/usr/bin/python3", "-I", "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_two_builds_are_the_same_to_the_byte(packages: dict[str, Path], tmp_path: Path) -> None:
    again = {path.name: path.read_bytes() for path in maker.build(tmp_path)}
    assert {path.name for path in packages.values()} == set(again)
    for path in packages.values():
        assert path.read_bytes() == again[path.name], path.name


def test_beside_each_package_lies_its_bill_of_materials(packages: dict[str, Path]) -> None:
    for name, path in packages.items():
        bill = json.loads(path.with_name(f"{path.name}.cdx.json").read_text())
        assert bill["metadata"]["component"]["name"] == name


def test_the_controllers_package_is_for_every_architecture(packages: dict[str, Path]) -> None:
    shown = subprocess.run(
        ["dpkg-deb", "--field", packages["dynmem"]], capture_output=True, text=True, check=True
    )
    assert "Architecture: all" in shown.stdout
    assert "python3-msgspec | dynmem-msgspec" in shown.stdout


def test_what_is_installed_is_compiled_there_and_stopped_and_cleaned_before_it_goes(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("dynmem", "dynmem-agent"):
        subprocess.run(["dpkg-deb", "--control", packages[name], tmp_path / name], check=True)
        assert f"py3compile -p {name}" in (tmp_path / name / "postinst").read_text()
        before_it_goes = (tmp_path / name / "prerm").read_text()
        assert f"py3clean -p {name}" in before_it_goes
        assert " stop " in before_it_goes


def test_the_apparmor_profile_is_loaded_before_the_unit_that_asks_for_it_starts(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    subprocess.run(["dpkg-deb", "--control", packages["dynmem"], tmp_path], check=True)
    configured = (tmp_path / "postinst").read_text()
    assert '"/etc/apparmor.d/dynmem-controller"' in configured
    assert configured.index("apparmor_parser -r") < configured.index("dynmem.service")
    assert '"/etc/apparmor.d/local/dynmem-controller"' in (tmp_path / "postrm").read_text()
