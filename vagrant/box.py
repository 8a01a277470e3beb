"""The Vagrant box: a bootable Debian built from packages, in the form that vagrant-libvirt wants."""

import json
import os
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from lab import apt
from lab.cache import build_once, key_of
from lab.errors import ImageError
from lab.image import CODENAME
from lab.progress import Progress

NAME: Final = "dynmem-lab"
HERE: Final = Path(__file__).resolve().parent
SETUP: Final = HERE / "box-setup.sh"

SYSTEM: Final = (
    "dbus",
    "grub-pc-bin",
    "ifupdown",  # what Vagrant looks for on a Debian
    "initramfs-tools",
    "iproute2",
    "linux-image-cloud-amd64",
    "openssh-server",
    "procps",
    "sudo",
    "systemd-sysv",
    "udev",  # without it there is no /dev/virtio-ports, and nobody who starts the agent
)
AGENT: Final = ("python3-click", "python3-psutil", "python3-pyroute2", "python3-structlog")
WORKLOADS: Final = (
    "g++",
    "make",
    "postgresql",
    "postgresql-contrib",
    "redis-server",
    "redis-tools",
    "stress-ng",
)
PACKAGES: Final = (*SYSTEM, *AGENT, *WORKLOADS)

DISK_GIB: Final = 8  # sparse
_PARTITION_START: Final = 1 << 20
_SECTOR: Final = 512


def key() -> str:
    """A name for everything that the box depends on."""
    return key_of(CODENAME, *PACKAGES, *apt.LEFT_OUT, SETUP.read_text(), Path(__file__).read_text())


def ensure_box(public_key: Path) -> Path:
    """The cached box file, built first if it is missing or its inputs have changed (two minutes).

    Raises ImageError with what the builder said.
    """
    return build_once("box", key(), lambda directory: _build(directory, public_key)) / "dynmem-lab.box"


def _build(directory: Path, public_key: Path) -> None:
    with Progress("box") as progress:
        progress.step("packages by mmdebstrap")
        root = directory / "root"
        _bootstrap(root, public_key)
        progress.step("making the disk")
        disk = directory / "disk.raw"
        _make_disk(root, disk)
        _run("rm", "-rf", "--one-file-system", str(root))
        _run("qemu-img", "convert", "-O", "qcow2", str(disk), str(directory / "box.img"))
        disk.unlink()
        progress.step("packing the box")
        facts = {"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GIB, "dynmem_key": key()}
        (directory / "metadata.json").write_text(json.dumps(facts))
        with tarfile.open(directory / "dynmem-lab.box", "w") as box:
            for name in ("metadata.json", "box.img"):
                box.add(directory / name, name)
        (directory / "box.img").unlink()
        progress.step("done")


def _bootstrap(root: Path, public_key: Path) -> None:
    options = ["--quiet", "--mode=root", "--format=directory"]
    options.append(f'--customize-hook=sh {SETUP} "$1" < {public_key}')
    _run(*apt.contained(), *apt.mmdebstrap(CODENAME, str(root), PACKAGES, *options))


def _make_disk(root: Path, disk: Path) -> None:
    """One partition with `root` in it, GRUB's first sector and core before it. Needs no loop device."""
    disk.touch()
    os.truncate(disk, DISK_GIB << 30)
    _run(
        *("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^metadata_csum,^64bit", "-m", "0"),
        *("-E", f"offset={_PARTITION_START},lazy_itable_init=1", "-d", str(root), str(disk)),
        f"{(DISK_GIB << 20) - _PARTITION_START // 1024}k",
    )
    boot, core = ((root / "boot" / name).read_bytes() for name in ("boot.img", "core.img"))
    if _SECTOR + len(core) > _PARTITION_START:
        raise ImageError("GRUB's core does not fit before the first partition.")
    start = _PARTITION_START // _SECTOR
    anywhere = b"\xfe\xff\xff"  # cylinder, head, sector: nobody reads them
    linux = struct.pack(
        "<B3sB3sII", 0x80, anywhere, 0x83, anywhere, start, (DISK_GIB << 30) // _SECTOR - start
    )
    with disk.open("r+b") as device:
        device.write(boot[:446] + linux + bytes(48) + b"\x55\xaa" + core)


def _run(*command: str) -> None:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode != 0:
        raise ImageError(f"{command[0]} could not do its part of the box. It said:\n{result.stderr[-2000:]}")
