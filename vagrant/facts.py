"""What is so on this machine: read, never changed. `checks` judges it."""

import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]

from host_controller.verify.processes import start_time
from lab.cache import cache_directory
from vagrant import box
from vagrant.checks import GIB, Disk, Facts

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
STATE: Final = Path(os.environ.get("DYNMEM_VAGRANT", "/var/lib/dynmem-vagrant"))
HOME: Final = STATE / "vagrant-home"
"""Vagrant's, in the lab's namespaces (`enter` says so)."""
SOCKET: Final = Path("/run/dynmem/control.sock")
IMAGES: Final = Path("/var/lib/libvirt/images")
PACKAGES: Final = HERE / "packages.txt"

BOX_BYTES: Final = 8 * GIB  # while it is built
GUESTS_BYTES: Final = 6 * GIB  # the box in Vagrant's home and in the pool, and what three guests write


def gather(*, netns: bool) -> Facts:
    """What is so now. With `netns`, without what only libvirt knows: it is asked again inside."""
    missing = missing_packages()
    building = "DYNMEM_BOX" not in os.environ and not (cache_directory() / f"box-{box.key()}").exists()
    looked_at = not netns and not missing and os.geteuid() == 0
    domains = dict(virsh_list("--all")) if looked_at else {}
    return Facts(
        names=guest_names(),
        root=os.geteuid() == 0,
        private=netns or inside(),
        can_install=shutil.which("apt-get") is not None,
        missing_packages=missing,
        available_bytes=psutil.virtual_memory().available,
        disks=disks({cache_directory(): BOX_BYTES * building, STATE if netns else IMAGES: GUESTS_BYTES}),
        foreign_controller=not netns and answers(SOCKET) and our_controller() is None,
        libvirt_answers=not looked_at or virsh("version") is not None,
        wanted_box=box.key(),
        present_box=None if "DYNMEM_BOX" in os.environ else present_box(),
        domains=domains,
        running=frozenset(name for name, _ in virsh_list()) if looked_at else frozenset(),
        volumes=frozenset((virsh("vol-list", "--pool", "default") or "").split())
        if looked_at
        else frozenset(),
        known={name: text for name in guest_names() if (text := record(name, "id"))},
        provisioned=frozenset(name for name in guest_names() if record(name, "provisioned") is not None),
    )


def guest_names() -> tuple[str, ...]:
    """As the Vagrantfile has them."""
    return tuple(re.findall(r"^  (\w+): \{ startup:", (HERE / "Vagrantfile").read_text(), re.MULTILINE))


def missing_packages() -> tuple[str, ...]:
    """Of packages.txt, those that dpkg does not have; all of them where there is no dpkg."""
    wanted = [line for line in PACKAGES.read_text().split("\n") if line and not line.startswith("#")]
    if shutil.which("dpkg-query") is None:
        return tuple(wanted)
    show = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *wanted]
    said = subprocess.run(show, capture_output=True, text=True, check=False).stdout.splitlines()
    return tuple(name for name in wanted if f"{name} installed" not in said)


def disks(needs: dict[Path, int]) -> tuple[Disk, ...]:
    """What is needed, added up for each file system."""
    total: dict[int, Disk] = {}
    for wanted, needed in needs.items():
        path = next(one for one in (wanted, *wanted.parents) if one.exists())
        device = path.stat().st_dev
        before = total[device].needed_bytes if device in total else 0
        total[device] = Disk(str(path), shutil.disk_usage(path).free, before + needed)
    return tuple(total.values())


def virsh(*arguments: str) -> str | None:
    """What virsh says of the system's libvirt; None when it fails."""
    command = ["virsh", "--connect", "qemu:///system", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def virsh_list(*arguments: str) -> list[tuple[str, str]]:
    """Names and UUIDs of domains."""
    said = virsh("list", "--name", "--uuid", *arguments) or ""
    return [
        (name, uuid) for uuid, name in (line.split(None, 1) for line in said.splitlines() if line.strip())
    ]


def record(guest: str, name: str) -> str | None:
    """One of Vagrant's own notes about a guest."""
    place = Path(os.environ.get("VAGRANT_DOTFILE_PATH", HERE / ".vagrant"))
    try:
        return (place / "machines" / guest / "libvirt" / name).read_text().strip()
    except FileNotFoundError:
        return None


def present_box() -> str | None:
    """The key of the box that Vagrant has; empty when it is not one of ours, None when there is none."""
    home = Path(os.environ.get("VAGRANT_HOME", Path.home() / ".vagrant.d"))
    for metadata in boxes(home, box.NAME):
        key: str = json.loads(metadata.read_text()).get("dynmem_key", "")
        return key
    return None


def boxes(home: Path, name: str) -> list[Path]:
    """The metadata of each version of a box for libvirt that a Vagrant home has."""
    return list(home.glob(f"boxes/{name.replace('/', '-VAGRANTSLASH-')}/**/libvirt/metadata.json"))


def inside() -> bool:
    """Whether this process is in the lab's own namespaces: the anchor's pid is then 1, and we see it."""
    return "VAGRANT_CWD" in os.environ and Path("/proc/1/cmdline").read_bytes().endswith(b"--inside\0")


def answers(path: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(str(path)) == 0


def our_controller() -> int | None:
    """The pid of the controller that the lab has started, if it lives."""
    try:
        pid, started = (STATE / "controller").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if str(start_time(int(pid))) == started else None
