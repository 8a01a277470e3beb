"""`make rpms`: the .rpm of agent and controller, by rpmbuild with rpm/dynmem.spec."""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from lab import sbom
from lab.errors import LabError
from lab.packages import ROOT, changed_at, copy_tree

REPRODUCIBLE = (
    "_buildhost localhost",
    "use_source_date_epoch_as_buildtime 1",
    "clamp_mtime_to_source_date_epoch 1",
)
"""Neither the machine nor the minute is in what comes out."""
SPEC = ROOT / "rpm" / "dynmem.spec"


class RpmError(LabError):
    """The packages could not be built."""


def build(out: Path) -> list[Path]:
    """Every .rpm of this tree's files that git knows, in `out`; a bill of materials beside each.

    Raises:
        RpmError: with the end of what rpmbuild said.
    """
    if shutil.which("rpmbuild") is None:
        raise RpmError("rpmbuild is missing. Install the package rpm (Debian) or rpm-build (Fedora).")
    version = next(line.split()[1] for line in SPEC.read_text().splitlines() if line.startswith("Version:"))
    with tempfile.TemporaryDirectory(prefix="dynmem-rpms-") as name:
        top = Path(name)
        tree = top / f"dynmem-{version}"
        copy_tree(tree)
        (top / "SOURCES").mkdir()
        with tarfile.open(top / f"SOURCES/dynmem-{version}.tar.gz", "w:gz") as archive:
            archive.add(tree, tree.name)
        # Debian's rpm knows no package that BuildRequires names.
        command = ["rpmbuild", "-bb", "--nodeps", "--define", f"_topdir {top}"]
        command += ["--define", f"buildpython {sys.executable}"]
        command += [part for one in REPRODUCIBLE for part in ("--define", one)]
        done = subprocess.run(
            [*command, str(SPEC)], env={**os.environ, "SOURCE_DATE_EPOCH": str(changed_at())},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RpmError(f"The packages could not be built:\n{(done.stdout + done.stderr)[-3000:]}")
        out.mkdir(parents=True, exist_ok=True)
        made = [Path(shutil.copy(path, out / path.name)) for path in sorted(top.rglob("RPMS/**/*.rpm"))]
    for package in made:
        sbom.write(package, changed_at())
    return made


def main() -> int:
    """`python -m lab.rpms [DIRECTORY]`: build them, and say where they are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "dist")
    try:
        made = build(parser.parse_args().out)
    except RpmError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(map(str, made)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
