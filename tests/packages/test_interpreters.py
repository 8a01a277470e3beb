"""The agent runs on the Python of every release that guests have, with nothing but its standard library."""

import ast
import builtins
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_controller.delivery.agent_file import agent_file
from lab.interpreter import python_of

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests/unit/agent/recorded/debian12"
OLDEST, NEWEST = ("bullseye", [3, 9]), ("forky", [3, 14])


def tree(path: Path) -> Path:
    shutil.copytree(ROOT / "agent", path / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(RECORDED, path / "guest")
    shutil.copy(Path(__file__).with_name("agent_in_any_python.py"), path / "script.py")
    return path


@pytest.mark.parametrize(("codename", "version"), [OLDEST, NEWEST])
def test_the_agent_reports_with_the_standard_library_alone(
    codename: str, version: list[int], tmp_path: Path
) -> None:
    with python_of(codename, tree(tmp_path)) as python:
        done = subprocess.run([*python, "script.py"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["version"] == version
        assert said["messages"] == ["Hello", "Report"]
        assert all(said["answers"].values()), said["answers"]
        assert said["foreign"] == []


@pytest.mark.parametrize("codename", [OLDEST[0], NEWEST[0]])
@pytest.mark.parametrize("command", ["status", "doctor"])
def test_without_its_libraries_a_command_says_which_package_to_install(
    codename: str, command: str, tmp_path: Path
) -> None:
    with python_of(codename, tree(tmp_path)) as python:
        done = subprocess.run([*python, "-m", "agent", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith(f"dynmem-agent {command} needs")
    assert "python3-click" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_controllers_command_says_which_interpreter_it_needs(tmp_path: Path) -> None:
    for name in ("agent", "host_controller"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from host_controller.start import main; raise SystemExit(main())"
    with python_of(OLDEST[0], tmp_path) as python:
        done = subprocess.run([*python, "-c", code, "status"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "dynmem needs Python 3.11 or newer; this is 3.9.\n"


@pytest.mark.parametrize(("codename", "version"), [OLDEST, NEWEST])
def test_the_agent_as_one_file_reports_and_runs_its_commands(
    codename: str, version: list[int], tmp_path: Path
) -> None:
    shutil.rmtree(tree(tmp_path) / "agent")
    (tmp_path / "dynmem-agent.pyz").write_bytes(agent_file())
    with python_of(codename, tmp_path) as python:
        done = subprocess.run([*python, "script.py"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["from"] == "dynmem-agent.pyz/agent"
        assert (said["version"], said["messages"], said["foreign"]) == (version, ["Hello", "Report"], [])
        lean = [*python, "-I", "-S", "dynmem-agent.pyz"]
        assert subprocess.run([*lean, "restore"], timeout=120).returncode == 0
        status = subprocess.run([*lean, "status"], capture_output=True, text=True, timeout=120)
        assert status.returncode == 1
        assert "python3-click" in status.stderr


IN_GUESTS = [*(ROOT / "agent").glob("*.py"), *(ROOT / "host_controller/verify/inside").glob("*.py")]
ANNOTATIONS = ("annotation", "returns")


def unions(node: ast.AST) -> Iterator[int]:
    """Lines where classes are joined by `|` while the program runs: annotations are not, here."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if name in ANNOTATIONS or not isinstance(child, ast.AST):
                continue
            if isinstance(child, ast.BinOp) and isinstance(child.op, ast.BitOr):
                sides = [side.id for side in (child.left, child.right) if isinstance(side, ast.Name)]
                if any(
                    (side[0].isupper() and not side.isupper()) or hasattr(builtins, side) for side in sides
                ):
                    yield child.lineno
            yield from unions(child)


@pytest.mark.parametrize("file", IN_GUESTS, ids=lambda path: path.name)
def test_no_program_of_a_guest_joins_classes_as_python_3_9_cannot(file: Path) -> None:
    assert list(unions(ast.parse(file.read_text()))) == []


def test_such_a_union_would_be_found() -> None:
    assert list(
        unions(ast.parse("def f(x: Ack | Hello) -> Ack | None:\n    assert isinstance(x, Ack | Hello)"))
    ) == [2]
    assert list(unions(ast.parse("x = os.O_RDONLY | os.O_CLOEXEC | FLAG"))) == []
