"""What is tried on each host: install, doctor, the demo's story, and single tests of real guests."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from lab.matrix.roots import TREE, Root, install
from lab.matrix.suites import LAB_PACKAGES

GUESTS: Final = "tests/guests"
TESTS: Final = {
    "hot remove": f"{GUESTS}/test_traps.py::test_an_unplug_does_not_shrink_the_guest_by_the_dimm",
    "virtio-mem cycle": f"{GUESTS}/test_virtio_mem.py -m 'not faults'",
    "save and restore": f"{GUESTS}/test_migration.py -k saved_guest",
    "live migration": f"{GUESTS}/test_migration.py -k grown_guest_is_taken_over_where_it_is_migrated_to",
    "libvirtd restarts": f"{GUESTS}/test_adapter.py -k libvirtd_that_goes_away",
}
INSTALL: Final = "install"
STORY: Final = "the demo's story"
LATER: Final = (STORY, *TESTS)
"""What needs the lab's packages, which a fresh host has not."""
NAMES: Final = (INSTALL, "doctor", *LATER)
PYTHONPATH: Final = f"{TREE}:/usr/lib/dynmem"
"""This checkout, and behind it the libraries that the packages carry because the release has none."""
LARGEST_INSTALL_MIB: Final = 60
_VERSIONS: Final = """
qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \\([0-9.]*\\).*/QEMU \\1/p'
libvirtd --version | sed 's/.* \\([0-9.]*\\)$/libvirt \\1/'
python3 --version
"""
_DOCTOR: Final = """
libvirtd -d; virtlogd -d
dynmem run >/root/run.log 2>&1 &
for try in $(seq 100); do test -S /run/dynmem/control.sock && break; sleep 0.1; done
dynmem doctor; echo exit $?
kill $!; wait
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing that was tried on one suite."""

    name: str
    passed: bool
    said: str
    seconds: float
    """For the table, when it passed; else the end of what was said."""


def versions(root: Root) -> str:
    """QEMU, libvirt and Python of the suite."""
    return ", ".join(line.strip() for line in root.run(_VERSIONS).stdout.splitlines() if line.strip())


def play(
    root: Root, packages: Sequence[Path], names: Sequence[str], log: Callable[[str], None]
) -> Iterator[Cell]:
    """Each cell when it is known. names: of NAMES; it is installed in any case. log: of what failed."""
    root.put(*packages)
    steps: dict[str, Callable[[], tuple[bool, str]]] = {
        INSTALL: lambda: _install(root, packages),
        "doctor": lambda: _doctor(root),
        STORY: lambda: _story(root),
        **{name: partial(_test, root, test) for name, test in TESTS.items()},
    }
    equipped = False
    for name in dict.fromkeys((INSTALL, *names)):
        if not equipped and name in LATER:
            install(root, LAB_PACKAGES)
            equipped = True
        begun = time.monotonic()
        passed, said = steps[name]()
        if not passed:
            log(f"--- {root.suite.name}, {name}\n{said}\n")
        yield Cell(name, passed, said if passed else "", time.monotonic() - begun)
        if name == INSTALL and not passed:
            return


def _install(root: Root, packages: Sequence[Path]) -> tuple[bool, str]:
    """One command; the size is of everything that it brings."""
    wanted = [f"/root/{path.name}" for path in packages if not path.name.startswith("dynmem-agent_")]
    sizes = "dpkg-query -W -f '${Installed-Size}\\n' | awk '{sum += $1} END {print \"KiB\", sum}'"
    before = _kib(root.run(sizes).stdout)
    said = install(root, wanted)
    grown = (_kib(root.run(sizes).stdout) - before) / 1024
    return (
        grown <= LARGEST_INSTALL_MIB,
        f"{grown:.0f} MiB" if grown <= LARGEST_INSTALL_MIB else f"{said}\n{grown} MiB",
    )


def _kib(said: str) -> int:
    found = re.search(r"KiB (\d+)", said)
    return int(found[1]) if found else 0


def _doctor(root: Root) -> tuple[bool, str]:
    """It judges a controller that was started as the package has it; what it finds is the host's."""
    said = root.run(_DOCTOR).stdout
    summary = re.search(r"\d+ of \d+ checks are in order", said)
    fails = re.findall(r"^(?:error|FAIL)\b.*", said, re.MULTILINE)
    works = summary is not None and "Traceback" not in said
    return works, (summary[0] + "".join(f"; {one}" for one in fails)) if works and summary else said


def _story(root: Root) -> tuple[bool, str]:
    done = root.run("cd /root && python3 -m lab.demo", path=PYTHONPATH)
    return done.returncode == 0, "seen" if done.returncode == 0 else done.stdout


def _test(root: Root, test: str) -> tuple[bool, str]:
    options = "-p no:cacheprovider -q --junit-xml=/root/result.xml"
    done = root.run(f"cd {TREE} && python3 -m pytest {options} {test}", path=PYTHONPATH)
    result = root.file("/root/result.xml")
    if not result.exists():
        return False, done.stdout
    [suite] = ElementTree.parse(result).getroot().iter("testsuite")  # our own file
    result.unlink()
    count = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    passed = done.returncode == 0 and count["tests"] > 0 and not count["skipped"]
    return passed, "seen" if passed else done.stdout
