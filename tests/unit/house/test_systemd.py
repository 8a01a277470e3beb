"""The units: accepted by systemd, hardened as promised, and in the right order."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.wire import PORT_NAME
from host_controller.api import peer
from host_controller.host import exclusive, proc

UNITS = Path(__file__).parents[3] / "systemd"

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@pytest.mark.figures
@pytest.mark.parametrize(("unit", "most"), [("dynmem-agent.service", 3.0), ("dynmem.service", 4.5)])
def test_units_are_hardened(unit: str, most: float) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / unit)],
        capture_output=True,
        text=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    print(f"exposure of {unit}: {found[1]}")
    assert float(found[1]) <= most


@pytest.mark.parametrize("unit", ["dynmem-agent.service", "dynmem.service"])
def test_systemd_understands_every_line(unit: str, tmp_path: Path) -> None:
    # The programs are installed by packages: here they are stood in for.
    text = re.sub(r"^(Exec\w+=-?)\S+", r"\1/bin/true", (UNITS / unit).read_text(), flags=re.M)
    (tmp_path / unit).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True
    )
    about = [line for line in done.stderr.splitlines() if unit in line]
    assert about == []


def test_the_agent_comes_and_goes_with_its_port() -> None:
    unit = (UNITS / "dynmem-agent.service").read_text()
    device = "dev-virtio\\x2dports-" + PORT_NAME + ".device"
    assert f"BindsTo={device}" in unit
    assert f"After={device}" in unit
    rule = (UNITS / "90-dynmem-agent.rules").read_text()
    assert f'ATTR{{name}}=="{PORT_NAME}"' in rule
    assert "dynmem-agent.service" in rule


def test_the_controller_is_up_before_autostart_and_keeps_its_promises_over_a_restart() -> None:
    unit = (UNITS / "dynmem.service").read_text()
    assert re.search(r"^Before=libvirtd.service virtqemud.service", unit, re.M)
    assert "RuntimeDirectoryPreserve=yes" in unit


@pytest.mark.parametrize("unit", ["dynmem-agent.service", "dynmem.service"])
def test_a_unit_runs_only_the_program_of_its_package(unit: str) -> None:
    """Others may not be installed, and the sandbox is made for this one."""
    programs = re.findall(r"^Exec\w+=-?(\S+)", (UNITS / unit).read_text(), re.M)
    assert set(programs) == {f"/usr/bin/{unit.removesuffix('.service')}"}


needs_apparmor = pytest.mark.skipif(shutil.which("apparmor_parser") is None, reason="needs apparmor_parser")


def profile(path: Path) -> subprocess.CompletedProcess[str]:
    """What AppArmor's parser makes of a profile, which is not loaded: that takes a kernel that has it."""
    command = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", "--debug", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_apparmor_profile_has_every_file_of_a_process_that_is_read() -> None:
    allowed = re.search(r"@\{PROC\}/\[0-9\]\*/\{([\w,]+)\} r,", (UNITS / "dynmem-controller").read_text())
    assert allowed
    read = re.findall(r'_read\(pid, "(\w+)"', Path(proc.__file__).read_text())
    read += re.findall(r'(?:str\(pid\) / "|/proc/{pid}/)(\w+)', Path(peer.__file__).read_text())
    assert {"statm", "ksm_merging_pages", "loginuid"} <= set(read) <= set(allowed[1].split(","))


def test_a_controller_that_a_user_has_started_is_not_hidden_from_the_service() -> None:
    """Its lock lies in that user's runtime directory: unseen, two controllers would grant the same memory."""
    unit, confined = ((UNITS / name).read_text() for name in ("dynmem.service", "dynmem-controller"))
    assert str(exclusive.USERS) == "/run/user"
    assert re.search(r"^ProtectHome=read-only$", unit, re.M)
    assert re.search(r"^InaccessiblePaths=-/home -/root$", unit, re.M)
    assert "\n  /run/user/ r,\n" in confined
    assert "\n  /run/user/*/dynmem/*.lock r,\n" in confined
    assert str(exclusive.lock_name("qemu:///system")).endswith(".lock")


def test_sqlite_may_sort_a_long_history_where_the_service_is_confined(tmp_path: Path) -> None:
    """Beyond some MiB it sorts in a file, whose name is its own."""
    confined = (UNITS / "dynmem-controller").read_text()
    program = """
import os, sqlite3
db = sqlite3.connect(":memory:")
db.execute("PRAGMA temp_store = FILE")
db.execute("PRAGMA cache_size = 10")
sql = "WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 300000) SELECT x FROM n ORDER BY x % 1000"
rows = db.execute(sql)
rows.fetchone()
places = [f"/proc/self/fd/{one}" for one in os.listdir("/proc/self/fd")]
print(*[os.readlink(one) for one in places if os.path.islink(one)])
"""
    opened = subprocess.run(
        [sys.executable, "-c", program],
        env={"SQLITE_TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"{tmp_path}/etilqs_" in opened
    assert "\n  owner /{,var/}tmp/etilqs_* rwk,\n" in confined


@needs_apparmor
def test_the_apparmor_profile_is_one_and_the_unit_asks_for_it() -> None:
    done = profile(UNITS / "dynmem-controller")
    assert done.returncode == 0, done.stderr
    unit = (UNITS / "dynmem.service").read_text()
    assert re.search(r"^AppArmorProfile=-dynmem-controller$", unit, re.M)
    assert "profile dynmem-controller " in (UNITS / "dynmem-controller").read_text()


@needs_apparmor
def test_the_parser_would_say_so_if_the_profile_were_none(tmp_path: Path) -> None:
    text = (UNITS / "dynmem-controller").read_text()
    (tmp_path / "broken").write_text(text.replace("capability sys_ptrace,", "capability everything,"))
    assert profile(tmp_path / "broken").returncode != 0


def test_the_profile_allows_no_more_capabilities_than_the_unit() -> None:
    unit = (UNITS / "dynmem.service").read_text()
    allowed = re.search(r"^CapabilityBoundingSet=(.+)$", unit, re.M)
    assert allowed is not None
    named = re.findall(r"^  capability (\w+),$", (UNITS / "dynmem-controller").read_text(), re.M)
    assert {f"CAP_{one.upper()}" for one in named} == set(allowed[1].split())


def test_what_leaks_is_ended_and_what_is_ours_is_nobody_elses() -> None:
    unit = (UNITS / "dynmem.service").read_text()
    for line in ("MemoryMax=2G", "UMask=0077", "StateDirectoryMode=0700", "RuntimeDirectoryMode=0711"):
        assert re.search(rf"^{line}$", unit, re.M), line
    groups = (UNITS / "dynmem.sysusers").read_text()
    assert re.findall(r"^g (\S+)", groups, re.M) == ["dynmem", "dynmem-view"]
    assert re.search(r"^SupplementaryGroups=dynmem dynmem-view$", unit, re.M)
