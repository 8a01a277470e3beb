"""`make matrix-guests`: guests of several Debian releases, with the package of the agent.

It writes its table into docs/compatibility.md.

    make matrix-guests                 every suite
    make matrix-guests SUITE=bullseye  one
    make matrix-guests SUITE=bullseye GROWTH=balloon  one of its guests; the other cells stay as they are

Exit 1 where a cell is not as it should be, 75 where a suite could not be had. What was said lies in
build/matrix-guests.log.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from lab import apt
from lab.code_disk import REPOSITORY
from lab.errors import FetchError, LabError
from lab.image import ensure_image
from lab.lab import Lab
from lab.matrix import guest_story, runs, table
from lab.matrix.cells import Cell
from lab.matrix.guest_image import guest_image, make_guest_disk
from lab.matrix.roots import built_here
from lab.matrix.suites import GUESTS, NOT_FETCHED
from lab.progress import Progress

_ARM64_MAGIC: Final = b"ARM\x64"
"""Documentation/arch/arm64/booting.rst, magic."""
LOG: Final = runs.GUESTS_LOG


def main() -> int:
    """Do what the module's text says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make matrix-guests", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(GUESTS))
    parser.add_argument("--growth", choices=guest_story.GROWTHS, help="of the three guests this one alone")
    parser.add_argument("--no-table", action="store_true", help="write nothing of what was seen")
    arguments = parser.parse_args()
    wanted = arguments.suites or list(GUESTS)
    growths = [arguments.growth] if arguments.growth else guest_story.GROWTHS
    if unknown := set(wanted) - GUESTS.keys():
        parser.error(f"no suite is called {', '.join(sorted(unknown))}; there are {', '.join(GUESTS)}")
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    try:
        agent = next(path for path in built_here() if path.name.startswith("dynmem-agent_"))
    except LabError as error:
        print(f"✗ {error}", file=sys.stderr)
        return NOT_FETCHED if isinstance(error, FetchError) else 1
    return runs.run(wanted, partial(_play, agent=agent, growths=growths, write=not arguments.no_table))


def _play(name: str, seen: list[Cell], *, agent: Path, growths: Sequence[str], write: bool) -> None:
    if GUESTS[name].architecture:
        apt.install(REPOSITORY / "lab/arm64-packages.txt")
    with Progress(name) as progress, ThreadPoolExecutor(1) as beside:
        progress.step("guest images")
        neighbours = beside.submit(ensure_image)
        image = guest_image(GUESTS[name])
        neighbours.result()
        with Lab() as lab:
            disk = lab.directory / "guest.ext4"
            make_guest_disk(disk, agent)
            for cell in guest_story.play(lab, GUESTS[name], image, disk, growths, _log):
                seen.append(cell)
                progress.step(f"{'✓' if cell.passed else '✗'} {cell.name}: {cell.said or f'see {LOG}'}")
    if write:
        table.write(
            name, _kernel(image.kernel), seen, "guests", whole=len(growths) == len(guest_story.GROWTHS)
        )


def _kernel(vmlinuz: Path) -> str:
    """The release in a bzImage: its header says where (Documentation/arch/x86/boot.rst, kernel_version).

    An arm64 Image is not compressed, and says it as a running kernel does.
    """
    image = vmlinuz.read_bytes()
    if image[0x38:0x3C] == _ARM64_MAGIC:
        said = re.search(rb"Linux version ([0-9][0-9A-Za-z.+~-]*) ", image)
        return f"Linux {said[1].decode()}" if said else "Linux"
    start = int.from_bytes(image[0x20E:0x210], "little") + 0x200
    return "Linux " + image[start : image.index(b"\0", start)].split()[0].decode()


def _log(text: str) -> None:
    with LOG.open("a", encoding="utf-8") as log:
        log.write(text)


if __name__ == "__main__":
    sys.exit(main())
