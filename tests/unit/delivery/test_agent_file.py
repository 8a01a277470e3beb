"""The agent as one file."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import agent
from host_controller.delivery.agent_file import agent_file, digest

SOURCES = Path(agent.__file__).parent


def test_equal_sources_give_equal_bytes_whatever_their_age_and_mode(tmp_path: Path) -> None:
    copy = tmp_path / "agent"
    shutil.copytree(SOURCES, copy)
    for path in copy.glob("*.py"):
        path.chmod(0o600)
        os.utime(path, (1, 1))
    assert digest(agent_file(copy)) == digest(agent_file())
    (copy / "wire.py").write_text("changed = True\n")
    assert digest(agent_file(copy)) != digest(agent_file())


def test_it_holds_every_module_of_the_agent_uncompressed_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "it.pyz"
    file.write_bytes(agent_file())
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    assert {one.filename for one in members} == {"__main__.py"} | {
        f"agent/{path.name}" for path in SOURCES.iterdir() if path.suffix in (".py", ".service", ".rules")
    }
    assert {one.compress_type for one in members} == {zipfile.ZIP_STORED}


def test_it_runs_from_anywhere_and_imports_nothing_from_there(tmp_path: Path) -> None:
    file = tmp_path / "it.pyz"
    file.write_bytes(agent_file())
    (tmp_path / "agent.py").write_text("raise SystemExit('a foreign module was imported')\n")
    done = subprocess.run(
        [sys.executable, "-I", file, "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, agent.__version__ in done.stdout) == (0, True), done.stderr


def test_the_commands_own_module_writes_the_same_bytes(tmp_path: Path) -> None:
    module = [sys.executable, "-m", "host_controller.delivery.agent_file", tmp_path / "new" / "it.pyz"]
    subprocess.run(module, check=True)
    assert (tmp_path / "new" / "it.pyz").read_bytes() == agent_file()
    assert os.access(tmp_path / "new" / "it.pyz", os.X_OK)
