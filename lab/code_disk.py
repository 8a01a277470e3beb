"""The disk with the code under test: the agent and the lab's in-guest programs, straight from the checkout.

Kept apart from the base image, so that a change of code costs no image build. Read only, on /lab in the
guest.
"""

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from host_controller.verify.guest_kernel import INSIDE, WORKLOAD_SERVER
from lab.errors import ImageError

REPOSITORY = Path(__file__).resolve().parents[1]
GUEST_PYTHON = (3, 11)  # of the image's Debian release
DISK_MIB = 8


def make_code_disk(disk: Path, initrd: Path, tree: Path = REPOSITORY) -> None:
    """Write the disk to `disk` (ext4, 8 MiB, sparse). The initrd is for a guest that boots itself anew.

    tree: whose agent the guest runs.
    """
    with tempfile.TemporaryDirectory(prefix="dynmem-code-") as name:
        content = Path(name)
        content.chmod(0o755)
        without = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(tree / "agent", content / "agent", ignore=without)
        shutil.copytree(REPOSITORY / "lab" / "inside", content / "guest", ignore=without)
        for program in WORKLOAD_SERVER:
            shutil.copy(INSIDE / program, content / "guest")
        shutil.copy(INSIDE / "forge_actual.py", content / "guest" / "forge-actual")
        shutil.copyfile(initrd, content / "initrd")
        if (
            sys.version_info[:2] == GUEST_PYTHON
        ):  # else the guest compiles at every start, which costs some 100 ms
            compileall.compile_dir(
                content,
                quiet=2,
                stripdir=name,
                prependdir="/lab",
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        for path in content.rglob("*"):
            os.chown(path, 0, 0) if os.geteuid() == 0 else None
        result = subprocess.run(
            [
                "mke2fs",
                "-q",
                "-F",
                "-t",
                "ext4",
                "-O",
                "^has_journal",
                "-m",
                "0",
                "-d",
                name,
                disk,
                f"{DISK_MIB}M",
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
        )
    if result.returncode != 0:
        raise ImageError(f"The code disk could not be made. mke2fs said: {result.stderr.strip()}")
    disk.chmod(0o444)
