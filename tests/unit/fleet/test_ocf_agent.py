"""The cluster's agent starts one arbiter, finds it again and ends it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

AGENT = Path(__file__).parents[3] / "services/ocf/fleet"
FUNCTIONS = """
OCF_SUCCESS=0 OCF_ERR_GENERIC=1 OCF_ERR_UNIMPLEMENTED=3
OCF_ERR_INSTALLED=5 OCF_ERR_CONFIGURED=6 OCF_NOT_RUNNING=7
have_binary() { [ -x "$1" ]; }
ocf_exit_reason() { echo "$*" >&2; }
"""
"""As far as it asks of resource-agents."""


@dataclass(frozen=True)
class Node:
    """A node of a cluster: what its agent is given, and what it says."""

    place: Path
    run: Path

    def asks(self, action: str) -> tuple[int, str]:
        given = {"binary": "dynmem", "config": "dynmem.toml", "log": "fleet.log"}
        environment = {
            **os.environ,
            **{f"OCF_RESKEY_{name}": str(self.place / file) for name, file in given.items()},
            "OCF_FUNCTIONS_DIR": str(self.place),
            "HA_RSCTMP": str(self.run),
        }
        done = subprocess.run([AGENT, action], env=environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    def arbiters(self) -> list[psutil.Process]:
        found = psutil.process_iter(["cmdline"])
        return [one for one in found if str(self.place / "dynmem") in (one.info["cmdline"] or ())]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "ocf-shellfuncs").write_text(FUNCTIONS)
    (tmp_path / "dynmem.toml").touch()
    (tmp_path / "dynmem").write_text("#!/bin/sh\nwhile sleep 0.1; do :; done\n")
    (tmp_path / "dynmem").chmod(0o755)
    (tmp_path / "run").mkdir()
    return Node(tmp_path, tmp_path / "run")


def test_one_is_started_found_again_and_ended(node: Node) -> None:
    assert node.asks("monitor")[0] == 7
    assert node.asks("start") == (0, "")
    assert node.asks("start") == (0, "")
    assert len(node.arbiters()) == 1
    assert node.asks("monitor")[0] == 0
    assert node.asks("stop")[0] == 0
    assert node.arbiters() == []
    assert node.asks("monitor")[0] == 7


def test_one_that_could_not_be_found_again_is_not_left_to_go_on_beside_the_next(node: Node) -> None:
    node.run.rmdir()  # as where it is full: its pid is written nowhere
    code, said = node.asks("start")
    assert (code, "cannot be written" in said) == (1, True)
    left = node.arbiters()
    for one in left:
        one.kill()
    assert left == []
