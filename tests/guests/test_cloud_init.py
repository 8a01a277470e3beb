"""A VM that cloud-init sets up has the agent from its first boot on, by user data that `dynmem` prints."""

import os
import shutil
from pathlib import Path

import pytest

from agent import wire
from host_controller.delivery.agent_file import agent_file, digest
from host_controller.delivery.push import INSTALLED
from lab.controller import dynmem
from tests.guests.systemd_guest import booted, system_image

STEP = f"""
cloud-init status --wait > /dev/null 2>&1
echo "cloud-init: $(cloud-init status)"
sha256sum {INSTALLED}
"""


@pytest.mark.faults  # an image of its own, and two boots
def test_user_data_that_dynmem_prints_bring_the_agent_and_it_is_there_at_every_boot(tmp_path: Path) -> None:
    for tool in ("mmdebstrap", "qemu-system-x86_64", "mke2fs"):
        if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            pytest.skip(f"needs {tool}")
    said = dynmem("agent", "cloud-config")
    assert said.returncode == 0, said.stderr
    image = system_image("cloud-init")
    with booted(image, tmp_path, 1, STEP, user_data=said.stdout) as machine:
        assert isinstance(machine.hear(wire.Hello, 480), wire.Hello)
        shown = machine.until_said(INSTALLED, 240)
        assert digest(agent_file()) in shown
        assert "cloud-init: status: done" in shown
    with booted(image, tmp_path, 2, "true") as machine:
        assert isinstance(machine.hear(wire.Hello, 240), wire.Hello), "by its own unit, without user data"
