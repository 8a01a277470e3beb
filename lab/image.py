"""The guest image: a small Debian, its kernel and an initrd, built once from packages and cached."""

import argparse
import inspect
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab import apt, initrd
from lab.cache import build_once, cache_directory, key_of
from lab.errors import ImageError, error_of
from lab.progress import Progress

CODENAME = "bookworm"
PACKAGES = (
    "busybox-static",  # the initrd's tools
    "e2fsprogs",
    "initramfs-tools",  # the kernel package asks for one; ours is used
    "linux-image-cloud-amd64",
    "python3-click",
    "python3-minimal",
    "python3-psutil",
    "python3-pyroute2",
    "python3-structlog",
    "qemu-guest-agent",  # what the agent's size is compared with
    "util-linux",
)
ROOT_DISK_MIB = (
    4096  # sparse: about 330 MiB of it are used, the rest is for swap files and file-cache workloads
)


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: kernel, initrd and raw root disk (read only, shared by all guests)."""

    kernel: Path
    initrd: Path
    root_disk: Path


def ensure_image(*more: str) -> Image:
    """The cached image, built first if it is missing or its inputs have changed (about a minute).

    more: packages beside those of every guest. Such an image is built and cached by itself.

    Raises FetchError or ImageError with what the builder said.
    """
    packages = (*PACKAGES, *more)
    key = key_of(
        CODENAME,
        *packages,
        *apt.LEFT_OUT,
        str(ROOT_DISK_MIB),
        initrd.INIT,
        inspect.getsource(apt.mmdebstrap),
        inspect.getsource(sys.modules[__name__]),
    )
    place = build_once("-".join(("image", *more)), key, partial(_build, packages))
    return Image(place / "vmlinuz", place / "initrd", place / "root.ext4")


def _build(packages: Iterable[str], directory: Path) -> None:
    for tool in ("mmdebstrap", "mke2fs"):
        if shutil.which(tool, path=_PATH) is None:
            raise ImageError(f"{tool} is missing. Run `make setup`.")
    with Progress("guest image") as progress:
        archive = directory / "root.tar"
        _bootstrap(archive, packages, progress)
        progress.step("making initrd and root disk")
        make_bootable(archive, directory)
        progress.step("done")


def debian(codename: str, archive: Path, packages: Iterable[str]) -> list[str]:
    """The command that makes the archive of a guest's Debian."""
    return apt.mmdebstrap(
        codename,
        str(archive),
        packages,
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        # Not a byte of this machine's apt configuration stays in the image.
        '--customize-hook=rm -rf "$1"/etc/apt/sources.list* "$1"/etc/apt/apt.conf.d/99mmdebstrap',
        '--customize-hook=mkdir -p "$1/lab"',
    )


def make_bootable(archive: Path, directory: Path) -> None:
    """`vmlinuz`, `initrd` and `root.ext4` in `directory`, from the archive, which goes."""
    with tarfile.open(archive) as rootfs:
        (directory / "initrd").write_bytes(initrd.build_initrd(rootfs))
        kernel = next(m for m in rootfs.getmembers() if "/boot/vmlinuz-" in m.name)
        content = rootfs.extractfile(kernel)
        assert content is not None
        (directory / "vmlinuz").write_bytes(content.read())
    _make_root_disk(archive, directory / "root.ext4")
    archive.unlink()


_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_ENVIRONMENT = {**os.environ, "PATH": _PATH, "LC_ALL": "C.UTF-8", "INITRD": "No"}


def _bootstrap(archive: Path, packages: Iterable[str], progress: Progress) -> None:
    progress.step("packages by mmdebstrap")
    said: list[str] = []
    with subprocess.Popen(
        debian(CODENAME, archive, packages),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=_ENVIRONMENT,
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                said.append(line.rstrip())
                if line.startswith("I: "):
                    progress.step(line[3:].strip().rstrip("."))
        except BaseException:
            process.terminate()  # mmdebstrap takes its chroot and mounts down itself
            raise
    if process.returncode != 0:
        end = "\n".join(said[-15:])
        raise error_of(end, ImageError)(f"mmdebstrap could not build the guest image. It said:\n{end}")


def _make_root_disk(archive: Path, disk: Path) -> None:
    """An ext4 from the archive. Without root, in a user namespace, so that the files keep their owners."""
    unpacked = archive.with_suffix(".dir")
    script = (
        'set -e; mkdir "$2"; tar -xf "$1" -C "$2" --numeric-owner --exclude="./dev/*"; '
        'mke2fs -q -F -t ext4 -O ^has_journal -E lazy_itable_init=1 -m 0 -d "$2" "$3" "$4"; rm -rf "$2"'
    )
    prefix = [] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--map-auto"]
    command = [*prefix, "sh", "-c", script, "sh", str(archive), str(unpacked), str(disk), f"{ROOT_DISK_MIB}M"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=_ENVIRONMENT)
    if result.returncode != 0:
        raise ImageError(f"The root disk could not be made. It said:\n{result.stderr[-2000:]}")
    disk.chmod(0o444)


def main() -> None:
    """`python -m lab.image`: build the image if it is missing, and say where it is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--remove", action="store_true", help="remove all cached images instead")
    if parser.parse_args().remove:
        for old in cache_directory().glob("image-*"):
            shutil.rmtree(old)
        return
    image = ensure_image()
    print(f"guest image: {image.root_disk.parent}")


if __name__ == "__main__":
    main()
