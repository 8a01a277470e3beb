"""Which system a guest runs, as libosinfo's note in its metadata says (virt-manager, virt-install).

Most tools write no such note. Then what a domain is given for one system alone tells: enlightenments for
Windows, the SMC that macOS asks for its key. Either is a hint for people, which nobody keeps up to date: it
decides what is offered, and refuses nothing. Pure.
"""

import re
from typing import Final
from xml.etree.ElementTree import Element

from host_controller.core.model import Growth
from host_controller.domain_xml.arguments import passed

WINDOWS: Final = "windows"
FREEBSD: Final = "freebsd"
LINUX: Final = "linux"
OTHER: Final = "other"

_SYSTEMS: Final = {"microsoft.com": WINDOWS, "freebsd.org": FREEBSD}
_OTHERS: Final = (
    "openbsd.org", "netbsd.org", "dragonflybsd.org", "ghostbsd.org", "haiku-os.org", "apple.com", "ibm.com",
    "oracle.com/solaris", "sun.com", "opensolaris.org", "omnios.org", "smartos.org", "novell.com/netware",
    "freedos.org", "guix.gnu.org/guix/hurd", "android-x86.org",
)  # fmt: skip
_NOT_KNOWN: Final = "libosinfo.org/unknown"
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
    "suse.com/slem": (5, 3),
    "suse.com/caasp": (5,),
    "opensuse.org/opensuse": (15, 4),
    "alpinelinux.org/alpinelinux": (3, 13),
    "fedoraproject.org/silverblue": (33,),
    # built from the sources of Red Hat's
    "cclinux.org/circle": (9,),
    "miraclelinux.com/miraclelinux": (9,),
    "asianux.com/asianux": (9,),
    "scientificlinux.org/scientificlinux": (9,),
    "oracle.com/oel": (9,),
    "redhat.com/rhel-atomic": (9,),
    # from Debian, or from Ubuntu
    "pureos.net/pureos": (10,),
    "univention.de/ucs": (5, 2),
    "system76.com/popos": (20, 10),
    "elementary.io/elementary": (6,),
    "trisquel.info/trisquel": (11,),
    # of their own
    "altlinux.org/alt": (10,),
    "altlinux.org/altlinux": (10,),
    "cirros-cloud.net/cirros": (0, 6),
    "endlessos.com/eos": (4,),
    "freenix.net/freenix": (15,),
    "guix.gnu.org/guix": (1, 3),
    "mageia.org/mageia": (8,),
    "nixos.org/nixos": (21, 5),
    "slackware.com/slackware": (15,),
    "libosinfo.org/linux": (2022,),
}
"""The first release whose kernel is Linux 5.8 or newer, of what osinfo-db knows."""
_OLDER: Final = (
    "opensuse.org/opensuse/42.", "altlinux.org/alt/p8.", "altlinux.org/alt/p9.", "mandriva.com/",
    "gnome.org/", "redhat.com/rhl/", "hyperbola.info/",
)  # fmt: skip
"""Whose numbers do not rise, or of which nothing came since."""
_VERSION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})*)(?:-unknown)?")
"""`8-unknown` is one of 8 that was not known when the note was made."""


def noted(root: Element) -> str:
    """What the note says, as `debian.org/debian/12`; empty without one."""
    for one in root.findall("./metadata//*"):
        told = one.get("id", "").lower()
        if "libosinfo" in one.tag and told:
            return told.partition("://")[2] or told
    return ""


def guest_system(root: Element) -> str:
    """One of the four above; Linux where nobody says."""
    return _known(root)[0]


def _known(root: Element) -> tuple[str, str]:
    """One of the four above, and in words which it is and what says so."""
    name = noted(root)
    if name not in ("", _NOT_KNOWN):
        found = (system for start, system in _SYSTEMS.items() if name.startswith(start))
        return next(found, OTHER if name.startswith(_OTHERS) else LINUX), f"{name} (libosinfo)"
    enlightened = root.find("./features/hyperv")
    if enlightened is not None and (
        enlightened.get("mode", "custom") != "custom" or any(one.get("state") == "on" for one in enlightened)
    ):
        return WINDOWS, "Windows (<hyperv>)"
    if any(one.option == "device" and one.kind == "isa-applesmc" for one in passed(root)):
        return OTHER, "macOS (isa-applesmc)"
    return LINUX, ""


def against(root: Element, growth: Growth) -> str | None:
    """Why this guest would not grow so, as far as its XML says; None where nothing is known against it."""
    if growth is Growth.BALLOON:
        return None
    system, words = _known(root)
    if system != LINUX:
        return f"its guest is {words}, for which there is no agent to bring new memory online"
    if growth is Growth.VIRTIO_MEM and _is_older(noted(root)):
        return f"its guest is {words}, whose Linux is older than 5.8"
    return None


def _is_older(name: str) -> bool:
    product, _, release = name.rpartition("/")
    first, told = _FIRST_WITH_VIRTIO_MEM.get(product), _VERSION.fullmatch(release)
    if first is None or told is None:
        return name.startswith(_OLDER)
    return name.startswith(_OLDER) or tuple(map(int, told[1].split(".")[:4])) < first
