"""What keeps the lab from coming up, found before anything is changed. Pure: facts in, sentences out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

MIB: Final = 1 << 20
GIB: Final = 1 << 30

CAPACITY_BYTES: Final = 2432 * MIB
"""What the controller may give to the three guests, everything that QEMU needs beside them included."""
MEMORY_BYTES: Final = CAPACITY_BYTES + 512 * MIB
"""And what libvirt, Vagrant and the controller need."""
PREFIX: Final = "dynmem-"
"""Of the domains' names; what follows is Vagrant's name for the guest."""


@dataclass(frozen=True, slots=True)
class Disk:
    """One file system that the lab needs room on."""

    path: str
    free_bytes: int
    needed_bytes: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so on this machine."""

    names: tuple[str, ...]
    """Vagrant's names of the guests."""
    root: bool = True
    private: bool = False
    """In namespaces of the lab's own, or about to be."""
    can_install: bool = True
    missing_packages: tuple[str, ...] = ()
    available_bytes: int = 1 << 40
    disks: tuple[Disk, ...] = ()
    foreign_controller: bool = False
    libvirt_answers: bool = True
    wanted_box: str = ""
    """Key of the box that these files make."""
    present_box: str | None = None
    """Key of the box that Vagrant has; None: it has none."""
    domains: Mapping[str, str] = field(default_factory=dict)
    """UUIDs of libvirt's domains, by name."""
    running: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    """In libvirt's default pool."""
    known: Mapping[str, str] = field(default_factory=dict)
    """UUIDs of Vagrant's machines, by its name."""
    provisioned: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Problem:
    """A sentence, and the command that mends it."""

    sentence: str
    command: str

    def __str__(self) -> str:
        return f"{self.sentence} Run: {self.command}"


def problems(facts: Facts) -> list[Problem]:
    """Everything that is in the way; empty when the lab may come up."""
    return [*_host(facts), *_box(facts), *(one for name in facts.names for one in _guest(facts, name))]


def _host(facts: Facts) -> Iterator[Problem]:
    netns = " NETNS=1" if facts.private else ""
    if not facts.root:
        yield Problem(
            "Only root may look at the guests' memory from the host, as the controller does.",
            f"sudo make vagrant-lab{netns}",
        )
    if facts.missing_packages and not facts.can_install:
        yield Problem(
            "These packages are missing, and there is no apt-get here to install them.",
            f"your distribution's installer for: {' '.join(facts.missing_packages)}",
        )
    still_to_start = sum(PREFIX + name not in facts.running for name in facts.names)
    needed = MEMORY_BYTES * still_to_start // max(1, len(facts.names))
    if facts.available_bytes < needed:
        yield Problem(
            f"The guests need {_size(needed)} of memory, and {_size(facts.available_bytes)} are available.",
            "ps -eo rss,comm --sort=-rss | head, and end what you can do without",
        )
    for disk in facts.disks:
        if disk.free_bytes < disk.needed_bytes:
            yield Problem(
                f"The lab needs {_size(disk.needed_bytes)} of disk in {disk.path}, where "
                f"{_size(disk.free_bytes)} are free.",
                f"du -xhd1 {disk.path} | sort -h, and make room",
            )
    if facts.foreign_controller:
        yield Problem(
            "A controller is in charge of this host already, and there can be only one.",
            "make vagrant-lab NETNS=1, which has a host to itself, or: systemctl stop dynmem",
        )
    if not facts.libvirt_answers and not facts.missing_packages:
        yield Problem(
            "libvirt does not answer on qemu:///system.",
            "systemctl start libvirtd, or: make vagrant-lab NETNS=1, which brings its own",
        )


def _box(facts: Facts) -> Iterator[Problem]:
    if facts.present_box not in (None, facts.wanted_box):
        netns = " NETNS=1" if facts.private else ""
        yield Problem(
            "The box that Vagrant has was built from other files than these.",
            f"make vagrant-end vagrant-lab{netns}",
        )


def _guest(facts: Facts, name: str) -> Iterator[Problem]:
    domain = PREFIX + name
    uuid = facts.domains.get(domain)
    if uuid is None:
        if f"{domain}.img" in facts.volumes:
            yield Problem(
                f"The disk of a guest {name} was left over by a half-made one.",
                _in_lab(facts, f"vagrant destroy -f {name}"),
            )
    elif facts.known.get(name) != uuid:
        destroy = f"virsh destroy {domain}; " if domain in facts.running else ""
        yield Problem(
            f"libvirt has a domain {domain} that is not this Vagrant's: half made, or of another lab.",
            _in_lab(facts, f"{destroy}virsh undefine {domain} --managed-save --remove-all-storage"),
        )
    elif name not in facts.provisioned:
        yield Problem(
            f"The guest {name} is half made: it was never provisioned to the end.",
            _in_lab(facts, f"vagrant up --provision {name}"),
        )


def _in_lab(facts: Facts, command: str) -> str:
    return f"vagrant/enter sh -c '{command}'" if facts.private else f"cd vagrant; {command}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"
