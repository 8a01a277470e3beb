"""`make matrix-guests`: guests of several Debian releases, with the package of the agent.

It writes its table into docs/compatibility.md.

    make matrix-guests                 every suite
    make matrix-guests SUITE=bullseye  one

Exit 1 where a cell is not as it should be; what it said lies in build/matrix-guests.log.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from lab.code_disk import REPOSITORY
from lab.errors import LabError
from lab.lab import Lab
from lab.matrix import guest_story, table
from lab.matrix.guest_image import guest_image, make_guest_disk
from lab.matrix.roots import built_here
from lab.matrix.suites import GUESTS
from lab.progress import Progress

LOG: Final = REPOSITORY / "build" / "matrix-guests.log"


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="make matrix-guests", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(GUESTS))
    wanted = parser.parse_args().suites or list(GUESTS)
    if unknown := set(wanted) - GUESTS.keys():
        parser.error(f"no suite is called {', '.join(sorted(unknown))}; there are {', '.join(GUESTS)}")
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    failed = False
    try:
        agent = next(path for path in built_here() if path.name.startswith("dynmem-agent_"))
    except LabError as error:
        parser.error(str(error))
    for name in wanted:
        try:
            failed |= not _try(name, agent)
        except LabError as error:
            failed = True
            print(f"✗ {name}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _try(name: str, agent: Path) -> bool:
    begun = time.monotonic()
    seen = []
    with Progress(name) as progress:
        progress.step("guest image")
        image = guest_image(GUESTS[name])
        with Lab() as lab:
            disk = lab.directory / "guest.ext4"
            make_guest_disk(disk, agent)
            for cell in guest_story.play(lab, GUESTS[name], image, disk, _log):
                seen.append(cell)
                progress.step(f"{'✓' if cell.passed else '✗'} {cell.name}: {cell.said or f'see {LOG}'}")
    minutes = (time.monotonic() - begun) / 60
    table.write(name, _kernel(image.kernel), seen, "guests")
    print(f"{name}: {sum(cell.passed for cell in seen)} of {len(seen)} cells, {minutes:.1f} min")
    return all(cell.passed for cell in seen)


def _kernel(vmlinuz: Path) -> str:
    """The release in a bzImage: its header says where (Documentation/arch/x86/boot.rst, kernel_version)."""
    image = vmlinuz.read_bytes()
    start = int.from_bytes(image[0x20E:0x210], "little") + 0x200
    return "Linux " + image[start : image.index(b"\0", start)].split()[0].decode()


def _log(text: str) -> None:
    with LOG.open("a", encoding="utf-8") as log:
        log.write(text)


if __name__ == "__main__":
    sys.exit(main())
