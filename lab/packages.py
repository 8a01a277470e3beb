"""`make packages`: the .deb of agent and controller, as dpkg-buildpackage makes them on this machine.

What the release has no package of (msgspec in Debian 12, uPlot everywhere) is carried in packages of its own.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lab import sbom
from lab.errors import LabError, error_of
from lab.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
PROFILES = {"pkg.dynmem.msgspec": "python3-msgspec", "pkg.dynmem.uplot": "libjs-uplot"}
"""What is carried, and the package that would make it needless."""
# Of the distribution alone: no Python of somebody's home takes part.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class PackageError(LabError):
    """The packages could not be built."""


def build(out: Path) -> list[Path]:
    """Every .deb of this tree's files that git knows, in `out`; a bill of materials beside each.

    Half a minute; fetches what is carried.

    Raises:
        FetchError: what is carried could not be had.
        PackageError: with the end of what dpkg-buildpackage said.
    """
    if shutil.which("dpkg-buildpackage", path=PATH) is None:
        raise PackageError("dpkg-buildpackage is missing. Run `make packages` on Debian or Ubuntu.")
    profiles = [profile for profile, package in PROFILES.items() if not _has(package)]
    with tempfile.TemporaryDirectory(prefix="dynmem-packages-") as name:
        tree = Path(name) / "dynmem"
        copy_tree(tree)
        environment = {
            **os.environ,
            "PATH": PATH,
            "DEB_BUILD_PROFILES": " ".join(profiles),
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            ["dpkg-buildpackage", "--build=binary", "--no-sign"],
            cwd=tree, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = done.stdout + done.stderr
            raise error_of(said, PackageError)(f"The packages could not be built:\n{said[-3000:]}")
        out.mkdir(parents=True, exist_ok=True)
        made = [path for path in sorted(Path(name).glob("*.deb")) if "-dbgsym_" not in path.name]
        copied = [Path(shutil.copy(path, out / path.name)) for path in made]
    for package in copied:
        sbom.write(package, changed_at())
    return copied


def changed_at() -> int:
    """Of the changelog's newest entry, seconds since 1970: the time of everything in a reproducible build."""
    shown = subprocess.run(
        ["dpkg-parsechangelog", "--show-field", "Timestamp"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(shown.stdout)


def _has(package: str) -> bool:
    shown = subprocess.run(["apt-cache", "show", package], capture_output=True, check=False)
    return shown.returncode == 0


def tracked() -> list[str]:
    """This tree's files, as git knows them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).exists()]


def copy_tree(tree: Path) -> None:
    """Those files, into a folder that is not there yet."""
    for name in tracked():
        source, target = ROOT / name, tree / name
        if source.is_file() or source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def main() -> int:
    """`python -m lab.packages [DIRECTORY]`: build them, and say where they are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "dist")
    out = parser.parse_args().out
    try:
        with Progress("packages") as progress:
            progress.step("dpkg-buildpackage")
            made = build(out)
            progress.step("done")
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(map(str, made)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
