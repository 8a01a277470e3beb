"""Which system a guest runs, as libosinfo's note in its metadata says (virt-manager, virt-install).

A note for people, which nobody keeps up to date: it decides what is offered, and refuses nothing. Pure.
"""

import re
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.core.model import Growth

WINDOWS: Final = "windows"
FREEBSD: Final = "freebsd"
LINUX: Final = "linux"
OTHER: Final = "other"

_SYSTEMS: Final = {"microsoft.com": WINDOWS, "freebsd.org": FREEBSD}
_OTHERS: Final = (
    "openbsd.org", "netbsd.org", "dragonflybsd.org", "ghostbsd.org", "haiku-os.org", "apple.com", "ibm.com",
    "oracle.com/solaris", "sun.com", "opensolaris.org", "omnios.org", "smartos.org", "novell.com/netware",
    "freedos.org",
)  # fmt: skip
_FIRST_WITH_VIRTIO_MEM: Final = {
    "debian.org/debian": (11,),
    "ubuntu.com/ubuntu": (20, 10),
    "fedoraproject.org/fedora": (33,),
    "centos.org/centos": (9,),
    "centos.org/centos-stream": (9,),
    "redhat.com/rhel": (9,),
    "rockylinux.org/rocky": (9,),
    "almalinux.org/almalinux": (9,),
    "oracle.com/ol": (9,),
    "suse.com/sle": (15, 4),
    "suse.com/sles": (15, 4),
    "suse.com/sled": (15, 4),
    "opensuse.org/opensuse": (15, 4),
    "alpinelinux.org/alpinelinux": (3, 13),
}
"""The first release whose kernel is Linux 5.8 or newer."""
_VERSION: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})*$")


def noted(root: Element) -> str:
    """What the note says, as `debian.org/debian/12`; empty without one."""
    for one in root.findall("./metadata//*"):
        told = one.get("id", "").lower()
        if "libosinfo" in one.tag and told:
            return told.partition("://")[2] or told
    return ""


def guest_system(root: Element) -> str:
    """One of the four above; Linux where nobody says."""
    name = noted(root)
    for start, system in _SYSTEMS.items():
        if name.startswith(start):
            return system
    return OTHER if name.startswith(_OTHERS) else LINUX


def against(root: Element, growth: Growth) -> str | None:
    """Why this guest would not grow so, as far as its note says; None where nothing is known against it."""
    if growth is Growth.BALLOON:
        return None
    name = noted(root)
    if guest_system(root) != LINUX:
        return f"its guest is {name} (libosinfo), for which there is no agent to bring new memory online"
    product, _, release = name.rpartition("/")
    first = _FIRST_WITH_VIRTIO_MEM.get(product)
    if growth is not Growth.VIRTIO_MEM or first is None or not _VERSION.match(release):
        return None
    if tuple(map(int, release.split(".")[:4])) < first:
        return f"its guest is {name} (libosinfo), whose Linux is older than 5.8"
    return None
