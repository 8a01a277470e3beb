"""The Debian releases that the matrix is run on, and what each needs beside its own archive."""

import os
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Suite:
    """A release of Debian as a host. `backports`: what is taken from there, with what it depends on."""

    name: str
    codename: str
    backports: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    """Build profiles for what the release has no package of."""
    closed: tuple[str, ...] = ()
    """Its archives that still list packages which they no longer have."""
    architecture: str = ""
    """Debian's name of another than this machine's. Such a guest is unpacked, not installed: nothing here
    runs its programs. So the lab's small init boots it, not systemd, and no package is installed in it."""
    cpu_without: tuple[str, ...] = ()
    """CPU features that its kernel cannot use under TCG: QEMU 7.2 emulates them wrongly."""


NOT_FETCHED: Final = os.EX_TEMPFAIL
"""How a run ends of which nothing failed, but a suite could not be had."""

HOST_PACKAGES: Final = ("libvirt-daemon-system", "qemu-system-x86", "qemu-utils", "python3", "iproute2")
"""What a host has before dynmem comes: `fresh root` in the table."""
LAB_PACKAGES: Final = ("e2fsprogs", "python3-pytest", "python3-pytest-asyncio")
"""What only the lab's story needs there."""
BUILD_PACKAGES: Final = ("build-essential", "ca-certificates", "dpkg-dev")

GUEST_PACKAGES: Final = (
    "busybox-static", "dbus", "e2fsprogs", "initramfs-tools", "linux-image-cloud-amd64", "python3",
    "systemd-sysv", "udev", "util-linux",
)  # fmt: skip
"""A guest before the agent comes: kernel, systemd, and what the lab's initrd and workload need."""

FOREIGN_PACKAGES: Final = (
    "base-files", "busybox-static", "coreutils", "dash", "e2fsprogs", "grep", "linux-image-cloud-arm64",
    "mount", "python3", "sed", "util-linux",
)  # fmt: skip
"""A guest of another architecture: what the lab's initrd, init and workload need."""

_MSGSPEC: Final = ("pkg.dynmem.msgspec",)
_VIRTUALIZATION: Final = ("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils")

SUITES: Final = {
    suite.name: suite
    for suite in (
        Suite("trixie", "trixie"),
        Suite("bookworm", "bookworm", carried=_MSGSPEC),
        Suite("bookworm-backports", "bookworm", backports=_VIRTUALIZATION, carried=_MSGSPEC),
        Suite("forky", "forky"),
    )
}
"""Hosts of the matrix by their names, the present release first."""

GUESTS: Final = {
    suite.name: suite
    for suite in (
        Suite("trixie", "trixie"),
        Suite("bookworm", "bookworm"),
        # Fact: cmpxchg16b-under-tcg.
        Suite(
            "bookworm-backports", "bookworm", backports=("linux-image-cloud-amd64",), cpu_without=("cx16",)
        ),
        Suite("forky", "forky"),
        Suite("bullseye", "bullseye", closed=("bullseye-security",)),
        Suite("trixie-arm64", "trixie", architecture="arm64"),
    )
}
