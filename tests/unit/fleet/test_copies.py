"""A change of the engine's configuration is made where all nodes have the same one, and nowhere else."""

import os
from pathlib import Path

import pytest

from host_controller.fleet.errors import EngineError, RaceLost
from host_controller.fleet.pacemaker.tools import Tools

TOOL = """#!/bin/sh
echo "$@" >> {directory}/asked
case "$*" in *--node=*) cat "{directory}/$(echo "$*" | sed 's/.*--node=//; s/ .*//')" ;; esac
"""
HEAD = '<cib admin_epoch="0" epoch="{epoch}" num_updates="{updates}" have-quorum="1"'
STATUS = (
    '<node_state uname="n1" crmd="online"/><node_state uname="n2" crmd="1796061624"/>'
    '<node_state uname="off" crmd="offline"/><node_state uname="down" crmd="0"/>'
    '<node_state uname="remote" remote_node="true" in_ccm="true"/>'
)


def head(epoch: int, updates: int) -> str:
    return HEAD.format(epoch=epoch, updates=updates)


BEFORE = f"{head(5, 2)}><configuration/><status>{STATUS}</status></cib>".encode()


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    for name in ("cibadmin", "crm_diff"):
        (tmp_path / name).write_text(TOOL.format(directory=tmp_path))
        (tmp_path / name).chmod(0o755)
    for node in ("n1", "n2"):
        (tmp_path / node).write_text(f"{head(5, 2)}/>")
    return Tools({"PATH": f"{tmp_path}:{os.environ['PATH']}"})


def patched(tmp_path: Path) -> bool:
    return "--patch" in (tmp_path / "asked").read_text()


def test_where_all_that_have_a_copy_have_the_same_it_is_made(tools: Tools, tmp_path: Path) -> None:
    tools.replace(BEFORE, b"<cib/>")
    assert patched(tmp_path)


@pytest.mark.parametrize("node", ["n1", "n2"])
@pytest.mark.parametrize("version", [(5, 1), (5, 3), (4, 2)])
def test_where_one_has_another_version_it_is_not(
    tools: Tools, tmp_path: Path, node: str, version: tuple[int, int]
) -> None:
    """A node that has just joined would take what all others refuse."""
    (tmp_path / node).write_text(f"{head(*version)}/>")
    with pytest.raises(RaceLost, match=f"not the same on {node}"):
        tools.replace(BEFORE, b"<cib/>")
    assert not patched(tmp_path)


def test_where_one_does_not_tell_it_is_not(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "n2").unlink()
    with pytest.raises(EngineError):
        tools.replace(BEFORE, b"<cib/>")
    assert not patched(tmp_path)
