"""What distributions other than Debian take: RPMs, and the agent's services for OpenRC and runit."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from host_controller import __version__
from lab import rpms

ROOT = Path(__file__).parents[2]
OPENRC = ROOT / "services/openrc/dynmem-agent"
RUNIT = ROOT / "services/runit/dynmem-agent"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if shutil.which("rpmbuild") is None:
        pytest.skip("needs rpmbuild")
    made = rpms.build(tmp_path_factory.mktemp("rpms"))
    return {path.name.removesuffix(f"-{__version__}-1.noarch.rpm"): path for path in made}


def test_two_builds_of_an_rpm_are_the_same_to_the_byte(built: dict[str, Path], tmp_path: Path) -> None:
    again = {path.name: path.read_bytes() for path in rpms.build(tmp_path)}
    assert {path.name: path.read_bytes() for path in built.values()} == again


def asked(package: Path, what: str) -> list[str]:
    command = ["rpm", "--query", "--package", what, package]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_rpmbuild_makes_agent_controller_and_page_of_this_version(built: dict[str, Path]) -> None:
    assert built.keys() == {"dynmem", "dynmem-agent", "cockpit-dynmem"}


def test_an_rpm_has_its_program_unit_and_code_and_nothing_of_the_other(built: dict[str, Path]) -> None:
    agent, host = (asked(built[name], "--list") for name in ("dynmem-agent", "dynmem"))
    assert {
        "/usr/bin/dynmem-agent",
        "/usr/lib/systemd/system/dynmem-agent.service",
        "/usr/lib/udev/rules.d/90-dynmem-agent.rules",
        "/usr/lib/dynmem-agent/agent/daemon.py",
    } <= set(agent)
    assert any(one.startswith("/usr/share/man/man1/dynmem-agent.1") for one in agent)
    assert {
        "/usr/bin/dynmem",
        "/usr/lib/systemd/system/dynmem.service",
        "/usr/lib/sysusers.d/dynmem.conf",
        "/usr/lib/dynmem/host_controller/hook.py",
        "/usr/lib/ocf/resource.d/dynmem/fleet",
        "/usr/lib/dynmem/host_controller/api/page/static/page.js",
        "/usr/share/dynmem/dynmem-agent.pyz",
        "/usr/share/bash-completion/completions/dynmem",
    } <= set(host)
    manual = {path.rpartition("/")[2].removesuffix(".gz") for path in host if "/man/" in path}
    assert {"dynmem.1", "dynmem-status.1", "dynmem.toml.5"} <= manual
    assert "dynmem-agent.1" not in manual
    assert not [path for path in agent if "host_controller" in path]
    page = asked(built["cockpit-dynmem"], "--list")
    assert {f"/usr/share/cockpit/dynmem/{one}" for one in ("manifest.json", "dynmem.js", "text.js")} <= set(
        page
    )
    assert not set(agent) & set(host) - {path for path in host if "LICENSE" in path or "build-id" in path}


def test_the_agents_rpm_needs_an_interpreter_and_nothing_else(built: dict[str, Path]) -> None:
    needed = {line.split()[0] for line in asked(built["dynmem-agent"], "--requires")}
    assert {one for one in needed if not one.startswith(("rpmlib", "/"))} == {"python3"}


def test_beside_each_rpm_lies_its_bill_of_materials_with_what_it_requires(built: dict[str, Path]) -> None:
    bills = {
        name: json.loads(path.with_name(f"{path.name}.cdx.json").read_text()) for name, path in built.items()
    }
    for name, bill in bills.items():
        assert bill["metadata"]["component"]["purl"] == f"pkg:rpm/{name}@{__version__}-1?arch=noarch"
    agent = {one["name"]: one for one in bills["dynmem-agent"]["components"]}
    assert agent["python3"]["properties"] == [{"name": "rpm:version", "value": ">= 3.9"}]
    assert agent["python3-click"]["scope"] == "optional"
    host = {one["name"] for one in bills["dynmem"]["components"]}
    assert {"python3-msgspec", "libvirt-daemon-driver-qemu"} <= host
    assert not [name for name in host if name.startswith(("rpmlib", "/", "config"))]


def test_an_administrators_configuration_outlives_an_upgrade(built: dict[str, Path]) -> None:
    assert asked(built["dynmem"], "--configfiles") == ["/etc/dynmem/dynmem.toml"]


@pytest.mark.parametrize("script", [OPENRC, RUNIT / "run", RUNIT / "finish"], ids=lambda path: path.name)
def test_a_service_is_a_sound_script(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
    assert script.stat().st_mode & 0o111


def test_runit_runs_the_agent_and_then_has_it_put_back_what_it_set(tmp_path: Path) -> None:
    program = tmp_path / "dynmem-agent"
    program.write_text(f'#!/bin/sh\necho "$@" "umask $(umask)" >> {tmp_path}/said\n')
    program.chmod(0o755)
    for name in ("run", "finish"):
        script = f"mount -t tmpfs none /run; PATH={tmp_path}:$PATH exec {RUNIT / name}"
        subprocess.run(["unshare", "--map-root-user", "--mount", "sh", "-c", script], check=True)
    assert (tmp_path / "said").read_text().splitlines()[0] == "run umask 0077"
    assert (tmp_path / "said").read_text().splitlines()[1].startswith("restore")


def test_every_init_runs_what_the_systemd_unit_runs() -> None:
    unit = (ROOT / "systemd/dynmem-agent.service").read_text()
    assert "ExecStart=/usr/bin/dynmem-agent run" in unit
    assert "ExecStopPost=-/usr/bin/dynmem-agent restore" in unit
    openrc = OPENRC.read_text()
    assert 'command="/usr/bin/dynmem-agent"' in openrc
    assert 'command_args="run"' in openrc
    assert '"$command" restore' in openrc
