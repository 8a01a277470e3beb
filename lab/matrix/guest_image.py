"""Guests of other Debian releases, which systemd boots: their images, and the lab's disk beside them."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from host_controller.verify.guest_kernel import INSIDE, WORKLOAD_SERVER
from lab import apt, image, initrd
from lab.cache import build_once, key_of
from lab.code_disk import REPOSITORY
from lab.errors import FetchError, ImageError
from lab.image import Image
from lab.matrix.roots import options_of
from lab.matrix.suites import FOREIGN_PACKAGES, GUEST_PACKAGES, Suite

DISK_MIB: Final = 16
_INIT: Final = """#!/bin/sh
# The lab's initrd ends here: its workload server is a unit of this boot, and systemd goes on.
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lab /run/systemd/system/multi-user.target.wants
cat > /run/systemd/system/lab-workload.service <<END
[Unit]
After=systemd-udev-settle.service
[Service]
Restart=always
RestartSec=1
OOMScoreAdjust=-1000
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/usr/bin/python3 -I -S /lab/guest/workload_server.py
END
ln -s ../lab-workload.service /run/systemd/system/multi-user.target.wants/lab-workload.service
ln -s /dev/null /run/systemd/system/serial-getty@ttyS0.service
exec /sbin/init
"""


def guest_image(suite: Suite) -> Image:
    """Kernel, initrd and root disk, built once. Raises FetchError or ImageError."""
    packages = FOREIGN_PACKAGES if suite.architecture else GUEST_PACKAGES
    key = key_of(suite.name, *packages, *apt.LEFT_OUT, initrd.INIT)
    place = build_once(f"guest-{suite.name}", key, lambda place: _build(suite, place))
    return Image(place / "vmlinuz", place / "initrd", place / "root.ext4")


def _build(suite: Suite, place: Path) -> None:
    archive = place / "root.tar"
    packages: tuple[str, ...] = GUEST_PACKAGES
    kind = "customize"
    options = [f"--mode={'root' if os.geteuid() == 0 else 'unshare'}", *options_of(suite)]
    if suite.architecture:
        packages, kind = FOREIGN_PACKAGES, "extract"
        options += ["--variant=extract", f"--architectures={suite.architecture}"]
        # No package's own script runs, so nobody else says which module needs which.
        options.append(
            '--extract-hook=for one in "$1"/usr/lib/modules/*; do depmod -b "$1" "${one##*/}"; done'
        )
    options += [
        f'--{kind}-hook=rm -rf "$1"/etc/apt/sources.list* "$1"/etc/apt/apt.conf.d/99mmdebstrap',
        f'--{kind}-hook=mkdir -p "$1/lab"',
    ]
    command = apt.mmdebstrap(suite.codename, str(archive), packages, *options)
    if suite.backports:
        command += apt.backports(suite.codename)
    done = subprocess.run(
        [*apt.contained(), *command], env={**os.environ, "INITRD": "No"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise FetchError(
            f"mmdebstrap could not make a guest of {suite.name}. Can its archive be reached? It said:\n"
            + done.stderr[-2000:]
        )
    image.make_bootable(archive, place)


def make_guest_disk(disk: Path, agent: Path) -> None:
    """The lab's programs, and the agent's package in /lab/package. Raises ImageError."""
    with tempfile.TemporaryDirectory(prefix="dynmem-guest-") as name:
        content = Path(name)
        content.chmod(0o755)
        shutil.copytree(REPOSITORY / "lab/inside", content / "guest", ignore=shutil.ignore_patterns("*.pyc"))
        for name in WORKLOAD_SERVER:
            shutil.copy(INSIDE / name, content / "guest")
        (content / "guest/init").write_text(_INIT)
        (content / "package").mkdir()
        shutil.copy(agent, content / "package")
        done = subprocess.run(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", content, disk, f"{DISK_MIB}M"],
            env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise ImageError(f"The disk of the lab's programs could not be made: {done.stderr.strip()}")
    disk.chmod(0o444)
