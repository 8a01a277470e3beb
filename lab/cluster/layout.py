"""What nodes find in their cluster's directory: agents, certificates, names, and another dynmem perhaps."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from host_controller.fleet.certificates import make_authority, make_host
from lab.cluster.network import ADDRESSES
from lab.cluster.node import AGENTS
from lab.cluster.shell import run
from lab.code_disk import REPOSITORY


def lay_out(directory: Path, nodes: Sequence[str]) -> None:
    """Put there what all nodes mount or read. nodes: in the order of their addresses."""
    agents = directory / "ocf"
    shutil.copytree(AGENTS, agents, symlinks=True)
    (agents / "dynmem").mkdir()
    shutil.copy(REPOSITORY / "services/ocf/fleet", agents / "dynmem")
    (directory / "sbin").mkdir()
    shutil.copy(REPOSITORY / "lab/cluster/fence_lab", directory / "sbin")
    make_authority(directory / "ca")
    for name in nodes:
        make_host(directory / "ca", name)
    lines = [f"{ADDRESSES}.{number} {name}" for number, name in enumerate(nodes, 1)]
    (directory / "hosts").write_text(
        "\n".join((f"#directory {directory}", "127.0.0.1 localhost", *lines, ""))
    )
    # libvirtd wants its users, which a machine has that runs it for the whole system.
    for name, line in (
        ("passwd", "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"),
        ("group", "libvirt-qemu:x:64055:"),
    ):
        known = Path("/etc", name).read_text()
        (directory / name).write_text(known if "libvirt-qemu:" in known else f"{known}{line}\n")


def check_out(commit: str, place: Path) -> None:
    """dynmem of a commit on today's libraries, with a command to run it."""
    place.mkdir()
    archive = place / "tree.tar"
    run("git", "-C", str(REPOSITORY), "archive", "-o", str(archive), commit, "host_controller", "agent")
    run("tar", "-C", str(place), "-xf", str(archive))
    command = place / "dynmem"
    start = f"#!{sys.executable} -P\nimport sys\nsys.path.insert(0, {str(place)!r})\n"
    command.write_text(f"{start}from host_controller.cli import main\nmain()\n")
    command.chmod(0o755)
