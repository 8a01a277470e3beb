"""A machine that lacks an archive, root or namespaces fails nobody's commit; what else goes wrong does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import apt, namespaces
from lab.cluster import quick
from lab.errors import FetchError, LabError

ROOT = Path(__file__).parents[2]
LIST = ROOT / "lab/fleet-packages.txt"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others in PATH, for a machine without packages whose apt does what it is told."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = tmp_path / "asked"
    program(tmp_path / "dpkg-query", "exit 1")
    program(tmp_path / "id", "echo 0")
    program(
        tmp_path / "apt-get", f'echo "$@" >> {said}; case $1 in indextargets) echo http://deb.example; esac'
    )
    return tmp_path


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_what_is_missing_is_fetched_and_then_installed(programs: Path) -> None:
    apt.install(LIST)
    asked = (programs / "asked").read_text()
    assert asked.index("update") < asked.index("--download-only install") < asked.index("DPkg::Lock::Timeout")
    assert "corosync" in asked


@pytest.mark.parametrize(
    ("name", "script", "said"),
    [
        ("apt-get", "exit 0", "apt knows no archive"),
        ("apt-get", "sleep 1000", "could not be fetched in 1 s"),
        ("apt-get", "echo E: Failed to fetch http://deb.example/a.deb >&2; exit 100", "Failed to fetch"),
        ("id", "echo 1000", "no sudo that would install them"),
    ],
    ids=["no archive", "a network that swallows", "an archive that is not reached", "nobody who may"],
)
def test_packages_that_cannot_be_had_are_told_from_packages_that_fail(
    programs: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str, said: str
) -> None:
    monkeypatch.setattr(apt, "_FETCH_SECONDS", "1")
    program(programs / "sudo", "exit 1")
    program(programs / name, script)
    with pytest.raises(FetchError, match=said):
        apt.install(LIST)


@pytest.mark.parametrize(
    "said",
    ["E: Unable to locate package corosyng", "dpkg: error processing package corosync (--configure)"],
)
def test_a_package_that_does_not_exist_or_fails_is_a_fault(programs: Path, said: str) -> None:
    program(
        programs / "apt-get",
        f"case $1 in indextargets) echo http://deb.example; exit; esac; echo '{said}' >&2; exit 100",
    )
    with pytest.raises(LabError, match=said.split("(")[0]) as raised:
        apt.install(LIST)
    assert type(raised.value) is LabError


def test_what_came_and_cannot_be_installed_is_a_fault_whatever_archive_was_not_reached_before(
    programs: Path,
) -> None:
    program(
        programs / "apt-get",
        "case $* in\n"
        "indextargets*) echo http://deb.example ;;\n"
        "*update) echo W: Failed to fetch http://other.example/InRelease >&2 ;;\n"
        "*DPkg::Lock*) echo E: Could not get lock /var/lib/dpkg/lock-frontend >&2; exit 100 ;;\n"
        "esac",
    )
    with pytest.raises(LabError, match="Could not get lock") as raised:
        apt.install(LIST)
    assert type(raised.value) is LabError


@pytest.mark.parametrize(
    ("error", "hindered", "ends"),
    [
        (None, "", 7),
        (FetchError("no archive"), "", 0),
        (None, "it needs root", 0),
        (LabError("dpkg: error processing package"), "", 1),
    ],
)
def test_the_fleets_quick_half_is_excused_where_it_cannot_be_tried_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: LabError | None,
    hindered: str,
    ends: int,
) -> None:
    def install(_: Path) -> None:
        if error:
            raise error

    monkeypatch.setattr(apt, "install", install)
    monkeypatch.setattr(namespaces, "why_not", lambda _: hindered)

    def is_replaced(*_: object) -> None:
        raise SystemExit(7)

    monkeypatch.setattr(quick.os, "execv", is_replaced)
    with pytest.raises(SystemExit) as ended:
        sys.exit(quick.main())
    assert ended.value.code == ends
    assert ("is not tried" in capsys.readouterr().out) == (ends == 0)


@needs_root
@pytest.mark.parametrize("trial", [namespaces.NODES, namespaces.ROOTS], ids=["nodes", "roots"])
def test_what_nodes_and_roots_need_of_namespaces_is_tried_and_nothing_is_left(trial: str) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    assert namespaces.why_not(trial) == ""
    assert Path("/proc/self/mounts").read_text() == mounts


@needs_root
def test_namespaces_that_are_refused_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNMEM_CACHE", str(tmp_path))
    said = namespaces.why_not("mount -t nothing none /mnt")
    assert said.startswith("this machine does not let us make namespaces for it (mount: /mnt: ")
    assert list(tmp_path.iterdir()) == []


def test_without_root_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: 1000)
    assert namespaces.why_not(namespaces.NODES) == "it needs root"


@pytest.mark.parametrize(
    ("made", "ends"), [("exit 0", 0), ("exit 2", 2), ("trap 'exit 0' INT; sleep 1000", 124)]
)
def test_a_part_of_ci_that_hangs_is_ended_and_said(tmp_path: Path, made: str, ends: int) -> None:
    program(tmp_path / "make", f"case $1 in test) exit 0; esac; {made}")
    place = tmp_path / "tree/.ci"
    place.mkdir(parents=True)
    (place / "run").write_text((ROOT / ".ci/run").read_text().replace("20m", "1").replace("15m", "1"))
    done = subprocess.run(
        ["sh", place / "run"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ends
    assert ("make test-fleet-quick: 0 min" in done.stdout) == (ends == 0)
    assert ("make test-suite has not ended within 1" in done.stderr) == (ends == 124)
