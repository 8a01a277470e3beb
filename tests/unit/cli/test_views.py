"""`dynmem status` and `dynmem explain`: what operators read, and what it costs."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from host_controller.cli.explain import _holders, explain
from host_controller.cli.explain import _limits as limits_of
from host_controller.cli.status import host_lines, status
from host_controller.cli.text import cut, duration, table
from host_controller.core.model import HostFacts, HugePool, Limits
from host_controller.simulator.workload import Curve, Workload
from host_controller.units import GIB, MIB
from tests.support.serving import invoke, served
from tests.support.virtual import Host, aside, run

FORBIDDEN = {"aiohttp", "asyncio", "libvirt", "msgspec", "rich", "structlog", "host_controller.core.engine"}


def test_status_has_a_line_for_the_host_and_a_row_for_each_vm_and_is_plain_when_piped(tmp_path: Path) -> None:
    async def story() -> str:
        host = Host()
        host.vm("web")
        host.vm("agentless", agent=False)
        async with served(host, tmp_path):
            await asyncio.sleep(60)
            return (await aside(invoke, status, tmp_path)).output

    text = run(story())
    lines = text.splitlines()
    assert "capacity 4 GiB" in lines[1]
    assert [line.split()[0] for line in lines[3:]] == ["VM", "agentless", "web"]
    assert "statistics" in lines[4]
    assert "hold: it has what it should have" in lines[5]
    assert "\033" not in text


def test_status_says_what_is_wrong(tmp_path: Path) -> None:
    async def story() -> str:
        host = Host(512 * MIB)
        host.vm("web")
        async with served(host, tmp_path, dry_run=True) as (controller, _):
            controller.hold_all(True)
            controller.journal.count_error("event")
            await asyncio.sleep(2)
            return (await aside(invoke, status, tmp_path)).output

    text = run(story())
    assert "overdraft of" in text
    assert "web was found running" in text
    assert "paused: no VM is managed" in text
    assert "dry run" in text
    assert "1 × event" in text


def test_names_and_texts_from_elsewhere_cannot_command_the_terminal(tmp_path: Path) -> None:
    async def story() -> str:
        host = Host()
        host.vm("ev\033[31mil")
        async with served(host, tmp_path):
            await asyncio.sleep(5)
            return (await aside(invoke, status, tmp_path)).output

    assert "ev?[31mil" in run(story())


def test_explain_names_the_deciding_rule_and_what_holds_the_vm_back(tmp_path: Path) -> None:
    async def story() -> str:
        host = Host(1 * GIB)
        host.vm("web", limits=Limits(512 * MIB, 256 * MIB, 512 * MIB))
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(60)
            controller.hold_all(True)
            await asyncio.sleep(1)
            return (await aside(invoke, explain, tmp_path, "web")).output

    text = run(story())
    assert text.startswith("web: has ")
    assert "It is left alone: paused by the operator." in text
    assert "* overhead" in text
    assert "in use" in text


def test_explain_says_who_holds_the_guests_memory_and_who_has_grown(tmp_path: Path) -> None:
    async def story() -> str:
        host = Host()
        curve = Curve([(0.0, 100 * MIB), (120.0, 100 * MIB), (150.0, 800 * MIB)])
        host.vm("web", workload=Workload(curve))
        async with served(host, tmp_path):
            await asyncio.sleep(300)
            return (await aside(invoke, explain, tmp_path, "web")).output

    text = run(story())
    assert re.search(r"^Held by: the largest of its services, .* ago$", text, re.MULTILINE), text
    assert re.search(r"^  workload +\d+ MiB  grew by \d+ MiB in ", text, re.MULTILINE), text
    assert re.search(r"^  system +32 MiB$", text, re.MULTILINE), text


def test_explain_says_why_nobody_is_named_and_an_older_controller_says_nothing() -> None:
    why = {"by": None, "at": None, "since": None, "top": [], "missing": "Its agent is too old to say."}
    assert _holders(why, False) == ["", "Held by", "  Its agent is too old to say."]
    assert _holders(None, False) == []


@pytest.mark.parametrize(("command", "arguments"), [(status, []), (explain, ["web"])])
def test_json_is_the_controllers_answer(tmp_path: Path, command: Any, arguments: list[str]) -> None:
    async def story() -> str:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path):
            await asyncio.sleep(30)
            return (await aside(invoke, command, tmp_path, *arguments, "--json")).output

    answer = json.loads(run(story()))
    assert "vm" in answer or answer["vms"][0]["name"] == "web"


def test_status_imports_nothing_that_it_does_not_need() -> None:
    code = "import sys, host_controller.cli.status, host_controller.cli.explain; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not FORBIDDEN & set(loaded.split())


def test_columns_stand_below_each_other_whatever_the_script_of_a_name() -> None:
    """A terminal gives two columns to a letter of East Asia, and none to a mark that combines."""
    lines = table(("VM", "SIZE"), [("web", "1"), ("日本語", "2"), ("u\u0308nn", "3")], left=(0,))
    assert lines == ["VM      SIZE", "web        1", "日本語     2", "u\u0308nn        3"]
    assert cut("日本語", 6) == "日本語"
    assert cut("日本語", 5) == "日本…"
    assert cut("日本語", 4) == "日…"


def test_a_table_is_cut_to_the_terminal_and_not_to_a_pipe() -> None:
    wide = table(("NAME", "TEXT"), [("x", "y" * 500)], left=(0, 1))
    assert len(wide[1]) == 506


def test_one_long_name_leaves_the_other_columns_of_all_others_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    lines = table(
        ("NAME", "STATE", "TEXT"), [("x" * 200, "live", "y" * 200), ("web", "live", "z")], (0, 1, 2)
    )
    assert lines[1].startswith("x" * 39 + "…  live   yyy")
    assert lines[2] == "web".ljust(42) + "live   z"
    assert len(lines[1]) == 80
    assert all(line.startswith("…") for line in _on(monkeypatch, 1)[1:])


def _on(monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    return table(("NAME", "TEXT"), [("web", "y"), ("db", "z")], left=(0, 1))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (59.9, "1 min"), (3725, "1 h 2 min"), (90000, "1 d 1 h"), (86400, "1 d")],
)
def test_durations_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_status_shows_huge_pages_as_a_pool_of_their_own_and_what_bounds_the_ordinary_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(4 * GIB)
    facts = HostFacts(
        0.0,
        128 * GIB,
        28 * GIB,
        ordinary_bytes=32 * GIB,
        foreign_bytes=GIB,
        pools=(HugePool(2 * MIB, 96 * GIB, 12 * GIB),),
        unread=(("uuid", "CAP_SYS_PTRACE is missing"),),
        limit_bytes=2 * GIB,
        limited_by="memory.max of machine.slice",
    )
    monkeypatch.setattr(host.hypervisor, "host_facts", lambda: facts)

    async def story() -> str:
        async with served(host, tmp_path):
            await asyncio.sleep(2)
            return (await aside(invoke, status, tmp_path)).output

    text = run(story())
    assert "capacity 2 GiB (of 32 GiB outside of huge pages" in text
    assert "bounded by memory.max of machine.slice" in text
    assert "other QEMUs 1 GiB" in text
    assert "huge pages of 2 MiB: 96 GiB, 12 GiB free" in text
    assert "of 1 VMs it is not known what they hold: CAP_SYS_PTRACE is missing" in text


def test_status_of_an_older_controller_is_shown() -> None:
    older = {
        "version": "0.1.0",
        "connection": "qemu:///system",
        "uptime_seconds": 1.0,
        "physical_bytes": GIB,
        "capacity_bytes": GIB,
        "reserve_bytes": 0,
        "charged_bytes": 0,
        "headroom_bytes": 0,
        "ready_bytes": 0,
        "reserved_bytes": 0,
        "unmanaged_bytes": 0,
        "connected": True,
        "overdraft": None,
        "emergency": None,
        "vm_swap_bytes": 0,
        "waiting_bytes": 0,
        "paused": False,
        "dry_run": False,
        "configuration_error": None,
        "lateness_seconds": 0.0,
        "errors": {},
    }
    assert "capacity 1 GiB (of 1 GiB, 0 B kept for the host)" in host_lines(older)[1]


def test_explain_says_of_each_limit_where_it_is_from_unless_it_is_the_vms_own() -> None:
    limits = {
        "minimum_bytes": GIB,
        "startup_bytes": GIB,
        "maximum_bytes": GIB,
        "buffer_percent": 20,
        "weight": 7,
    }
    assert (
        limits_of({"limits": limits}) == "minimum 1 GiB, startup 1 GiB, maximum 1 GiB, buffer 20 %, weight 7"
    )
    sources = dict.fromkeys(("minimum", "startup", "maximum", "weight"), "rule[2]") | {"buffer": "[defaults]"}
    told = limits_of({"limits": limits, "limit_sources": sources})
    assert told.endswith("maximum 1 GiB (rule[2]), buffer 20 % ([defaults]), weight 7 (rule[2])")
