"""libvirt's hook for real: `virsh start` and `restore` of VMs whose memory is there, is taken, or is not.

libvirt looks for hooks in /etc/libvirt/hooks only, so this runs in a mount namespace where that is our own:
no other libvirt of this machine sees the hook.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STORY = Path(__file__).with_name("admission_story.py")
ALONE = 'mount -t tmpfs none /etc/libvirt && mkdir -p /etc/libvirt/hooks/qemu.d && exec "$@"'

pytestmark = pytest.mark.beside


def test_starts_are_admitted_or_refused_through_libvirts_hook() -> None:
    if os.geteuid() != 0 or not Path("/etc/libvirt").is_dir():
        pytest.skip("needs root for a mount namespace")
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(STORY)]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", ALONE, "sh", *pytest_command],
        cwd=STORY.parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
