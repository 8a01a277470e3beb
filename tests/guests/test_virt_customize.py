"""An image that is off gets the agent by guestfs-tools, with the command that OPERATIONS.md has."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import wire
from host_controller.delivery.agent_file import agent_file, digest
from host_controller.delivery.push import INSTALLED
from tests.guests.systemd_guest import booted, system_image

MANUAL = Path(__file__).parents[2] / "OPERATIONS.md"
RECIPE = re.compile(r"^ +virt-customize .*?(?=\n\n)", re.MULTILINE | re.DOTALL)
STEP = f"""
sha256sum {INSTALLED}
"""


def recipe(disk: Path, agent: Path) -> list[str]:
    """The manual's command, word by word, about these files."""
    found = RECIPE.search(MANUAL.read_text())
    assert found is not None
    text = found[0].replace("\\\n", " ")
    for written, place in (("image.qcow2", disk), ("/usr/share/dynmem/dynmem-agent.pyz", agent)):
        assert text.count(written) == 1
        text = text.replace(written, str(place))
    return shlex.split(text)


def appliance(image: Path, directory: Path) -> dict[str, str]:
    """guestfs-tools boot the kernel of the image: this host may have none, and no KVM."""
    modules = directory / "modules"
    modules.mkdir()
    dump = ["debugfs", "-R", f"rdump /usr/lib/modules {modules}", image / "root.ext4"]
    subprocess.run(dump, check=True, capture_output=True)
    (kernel,) = (modules / "modules").iterdir()
    return {
        "SUPERMIN_KERNEL": str(image / "vmlinuz"),
        "SUPERMIN_KERNEL_VERSION": kernel.name,
        "SUPERMIN_MODULES": str(kernel),
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
        "LIBGUESTFS_CACHEDIR": str(directory),
        "LIBGUESTFS_MEMSIZE": "768",
    }


@pytest.fixture
def modules_directory() -> Iterator[None]:
    """supermin looks there whatever it is told, and a host in a container may have none."""
    place = Path("/lib/modules")
    missing = not place.exists()
    place.mkdir(exist_ok=True)
    yield
    if missing:
        place.rmdir()


@pytest.mark.usefixtures("modules_directory")
@pytest.mark.faults  # an appliance of its own, and a boot
def test_an_image_that_was_off_has_the_agent_from_its_first_boot_on(tmp_path: Path) -> None:
    for tool in ("virt-customize", "mmdebstrap", "qemu-system-x86_64", "mke2fs"):
        if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            pytest.skip(f"needs {tool}")
    image, disk, agent = system_image(), tmp_path / "disk.qcow2", tmp_path / "dynmem-agent.pyz"
    backing = ["-b", str(image / "root.ext4"), "-F", "raw"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, disk], check=True)
    agent.write_bytes(agent_file())
    done = subprocess.run(
        recipe(disk, agent),
        env={**os.environ, **appliance(image, tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with booted(image, tmp_path, 1, STEP) as machine:
        assert isinstance(machine.hear(wire.Hello, 480), wire.Hello)
        assert digest(agent_file()) in machine.until_said(INSTALLED)
