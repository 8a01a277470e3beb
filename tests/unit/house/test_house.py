"""How the core is built: who writes what, and how long things are."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Final, get_type_hints

import pytest

from host_controller.core.vm.demand import Demand
from host_controller.core.vm.record import Vm

TREE: Final = Path(__file__).parents[3]
CORE: Final = sorted((TREE / "host_controller/core").rglob("*.py"))
EVERYTHING: Final = sorted(
    path for room in ("host_controller", "tests", "bench", "lab") for path in (TREE / room).rglob("*.py")
)
MOST_LINES: Final = 300
MOST_BRANCHES: Final = 15
MUTATORS: Final = {
    "add",
    "append",
    "clear",
    "discard",
    "extend",
    "pop",
    "popitem",
    "remove",
    "setdefault",
    "update",
}


def records() -> dict[str, Any]:
    """Each record of a VM by the name by which it is reached."""
    kinds = get_type_hints(Vm)
    home = "host_controller.core.vm."
    found = {field.name: kinds[field.name] for field in fields(Vm)}
    own = {name: kind for name, kind in found.items() if getattr(kind, "__module__", "").startswith(home)}
    return {name: kind for name, kind in own.items() if hasattr(kind, "__dataclass_fields__")} | {
        "vm": Vm,
        "demand": Demand,
    }


RECORDS: Final = records()


@cache
def parsed(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


def where(path: Path) -> str:
    return str(path.relative_to(TREE))


def test_a_vm_is_made_of_records() -> None:
    assert {
        "balloon",
        "evidence",
        "guest",
        "plug",
        "pauses",
        "progress",
        "dimms",
        "virtio_mem",
    } <= RECORDS.keys()


def test_nobody_but_a_record_itself_assigns_its_fields() -> None:
    assert [found for path in EVERYTHING for found in assignments(path)] == []


def test_that_an_assignment_from_outside_is_seen() -> None:
    def seen(text: str) -> bool:
        return bool(list(assignments_in(ast.parse(text), "here")))

    assert seen("vm.balloon.target_bytes = 1")
    assert seen("known.guest.facts, rest = None, 2")
    assert seen("balloon = vm.balloon\nballoon.ceiling_bytes += 1")
    assert seen("vm.balloon.sent.clear()")
    assert seen("vm.balloon.sent[1] = 2")
    assert seen("del vm.balloon.sent[1]")
    assert seen("setattr(vm, name, 1)")
    assert seen("engine.vms[uuid].sent_at = 1.0")
    assert not seen("vm.balloon.send(1, 2, 3, 4.0)")
    assert not seen("self.target_bytes = 1")


def assignments(path: Path) -> Iterator[str]:
    # Simulated VMs are others, whose fields are called alike, and are their simulator's own.
    if "simulator" in path.parts or path.is_relative_to(TREE / "host_controller/hypervisor"):
        return iter(())
    return assignments_in(parsed(path), where(path))


def assignments_in(tree: ast.AST, place: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            target: ast.expr = node.value if isinstance(node, ast.Subscript) else node
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS
        ):
            target = node.func.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            if _record(node.args[0]) is not None:
                yield f"{place}:{node.lineno}: setattr"
            continue
        else:
            continue
        if not isinstance(target, ast.Attribute):
            continue
        kind = _record(target.value)
        if kind is not None and target.attr in {field.name for field in fields(kind)}:
            yield f"{place}:{node.lineno}: {ast.unparse(node)}"


def _record(value: ast.expr) -> Any:
    """The record that an expression names: `vm`, `vm.balloon`, `engine.vms[uuid]`; None for others."""
    if isinstance(value, ast.Subscript):
        return Vm if isinstance(value.value, ast.Attribute) and value.value.attr == "vms" else None
    if isinstance(value, ast.Attribute):
        return RECORDS.get(value.attr)
    return RECORDS.get(value.id) if isinstance(value, ast.Name) else None


@pytest.mark.parametrize("path", CORE, ids=where)
def test_no_file_of_the_core_is_long(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, "it has a second job: find it a file"


@pytest.mark.parametrize("path", CORE, ids=where)
def test_no_function_of_the_core_has_many_branches(path: Path) -> None:
    for function in ast.walk(parsed(path)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            assert branches(function) <= MOST_BRANCHES, f"{function.name}, line {function.lineno}"


def branches(function: ast.AST) -> int:
    """Ways that it can take beside the first: conditions, each part of one, cases, loops, handlers."""
    kinds = (ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.match_case, ast.comprehension)
    count = 0
    for node in ast.walk(function):
        if isinstance(node, kinds):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


@pytest.mark.parametrize("module", ["core.grants.round", "core.policy.plan", "guest_agent.words"])
def test_a_module_can_be_the_first_that_a_program_asks_for(module: str) -> None:
    """The agent's modules do without `typing` where nobody has it. Here annotations are worked out."""
    subprocess.run([sys.executable, "-c", f"import host_controller.{module}"], cwd=TREE, check=True)
