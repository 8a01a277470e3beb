"""The agent's package in a Debian that systemd boots: installed, reporting, rebooted, purged."""

import os
import shutil
import time
from pathlib import Path

import pytest

from agent import wire
from host_controller.delivery import agent_file
from lab import packages
from tests.guests.systemd_guest import BOOT_LIMIT, booted, system_image

pytestmark = pytest.mark.beside

# The reboot waits for what the host asks of the agent: the zone of new memory.
INSTALL = """
/lab/dynmem-agent.pyz install
until systemctl is-active --quiet dynmem-agent; do sleep 1; done; echo STEP by hand
dpkg --install /lab/*.deb; echo STEP installed $?; sync; echo STEP done
until grep -q movable /sys/devices/system/memory/auto_online_blocks; do sleep 1; done
systemctl reboot
"""
PURGE = """
tries=0
until systemctl is-active --quiet dynmem-agent || [ $((tries += 1)) -gt 120 ]; do sleep 1; done
systemctl show --property=ActiveState,NRestarts,Result dynmem-agent
systemctl show --property=MemoryMin,OOMScoreAdjust,FragmentPath dynmem-agent
journalctl --unit dynmem-agent --no-pager --lines 20
dpkg --purge dynmem-agent; echo STEP purged $?
systemctl is-active dynmem-agent
echo STEP left $(find / -xdev -name '*dynmem*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/lab/*' \\
    -not -path '/var/log/*' -not -path '/run/*' | tr '\\n' ' ')
echo STEP done
"""


def test_the_package_replaces_what_was_put_there_by_hand_reports_reboots_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    for tool in ("mmdebstrap", "qemu-system-x86_64", "mke2fs"):
        if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            pytest.skip(f"needs {tool}")
    image = system_image()
    made = packages.build(tmp_path / "dist")
    package = next(path for path in made if path.name.startswith("dynmem-agent_"))
    by_hand = tmp_path / agent_file.NAME
    by_hand.write_bytes(agent_file.agent_file())
    by_hand.chmod(0o755)

    begun = time.monotonic()
    with booted(image, tmp_path, 1, INSTALL, (by_hand, package)) as machine:
        assert isinstance(machine.hear(wire.Hello), wire.Hello), "that of the agent that was there by hand"
        first = machine.hear(wire.Hello)
        assert isinstance(first, wire.Hello)
        assert first.psi
        # Hardened as it is, it may still do its work: the zone of new memory is written to /sys.
        machine.tell(wire.Welcome("test"))
        machine.tell(wire.OnlineZone(7, "movable"))
        answer = machine.hear(wire.Ack, 60)
        assert isinstance(answer, wire.Ack)
        assert answer.ok, answer.detail
        said = machine.until_said("STEP done")
        assert "the one that was put here by hand goes" in said
        assert "STEP installed 0" in said
        machine.process.wait(BOOT_LIMIT)  # it reboots in good order, which ends this QEMU (-no-reboot)
    print(f"\ninstalled and reporting {time.monotonic() - begun:.0f} s after power on")

    begun = time.monotonic()
    with booted(image, tmp_path, 2, PURGE) as machine:
        second = machine.hear(wire.Hello)
        print(f"after the reboot it reports {time.monotonic() - begun:.0f} s after power on")
        assert isinstance(second, wire.Hello)
        assert second.boot_id != first.boot_id
        said = machine.until_said("STEP done")
        print("\n".join(line for line in said.splitlines() if "=" in line or "STEP" in line))
        assert "ActiveState=active" in said
        assert "FragmentPath=/lib/systemd/system" in said or "FragmentPath=/usr/lib/systemd/system" in said
        assert "NRestarts=0" in said
        assert "OOMScoreAdjust=-950" in said
        assert "STEP purged 0" in said
        left = next(line for line in said.splitlines() if line.startswith("STEP left")).split()[2:]
        assert left == []
