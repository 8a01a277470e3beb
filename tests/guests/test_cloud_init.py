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

# In a unit of its own: cloud-init's last stage comes after multi-user.target, which waits for this step.
STEP = f"""
systemd-run --quiet -p StandardOutput=tty -p TTYPath=/dev/ttyS0 /bin/sh -c '
cloud-init status --wait > /dev/null 2>&1
echo "cloud-init: $(cloud-init status)"
sha256sum {INSTALLED}'
"""


@pytest.mark.faults  # an image of its own, and two boots
def test_user_data_that_dynmem_prints_bring_the_agent_and_it_is_there_at_every_boot(tmp_path: Path) -> None:
    for tool in ("mmdebstrap", "qemu-system-x86_64", "mke2fs"):
        if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            pytest.skip(f"needs {tool}")
    said = dynmem("agent", "cloud-config")
    assert said.returncode == 0, said.stderr
    image = system_image("cloud-init")
    # The lab's Debian has no locales, and one that cannot be set is an error of cloud-init's own.
    with booted(image, tmp_path, 1, STEP, user_data=said.stdout + "locale: C.UTF-8\n") as machine:
        assert isinstance(machine.hear(wire.Hello, 480), wire.Hello)
        assert "cloud-init: status: done" in machine.until_said(digest(agent_file()))
    with booted(image, tmp_path, 2, "true") as machine:
        assert isinstance(machine.hear(wire.Hello, 240), wire.Hello), "by its own unit, without user data"
