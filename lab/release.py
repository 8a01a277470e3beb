"""`make release KEY=…`: tag, build, check and sign what others install.

    make release KEY=0123ABCD…            an OpenPGP key that gpg knows
    make release KEY=~/.ssh/id_ed25519    an SSH key (`ssh-keygen -Y verify` checks what it signed)
    make release KEY=… TESTED=7369792     lint and tests have passed at that commit: they are not run again

The tree must be clean, its versions must agree, and CHANGELOG.md must have a dated section. Then lint and
unit tests run, the packages are built twice and compared, and dist/ gets them with bills of materials, sums
and a signature. The tag comes last: where something fails there is none, and all can be done again.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from lab import packages, rpms
from lab.errors import LabError
from lab.packages import ROOT

VERSIONS: Final = {
    "pyproject.toml": r'^version = "([^"]+)"',
    "agent/__init__.py": r'^__version__ = "([^"]+)"',
    "host_controller/__init__.py": r'^__version__ = "([^"]+)"',
    "debian/changelog": r"^dynmem \(([^)]+)\)",
    "rpm/dynmem.spec": r"^Version:\s*(\S+)",
}
"""Where the version stands, and how."""
SUMS: Final = "SHA256SUMS"
CHANGES: Final = "CHANGELOG.md"
"""What a release alone changes after the tests."""


class ReleaseError(LabError):
    """This tree cannot be released. Says why, and what to do."""


def version_of(tree: Path) -> str:
    """The one version. Raises ReleaseError where two places differ."""
    found = {}
    for name, pattern in VERSIONS.items():
        match = re.search(pattern, (tree / name).read_text(encoding="utf-8"), re.MULTILINE)
        found[name] = match[1] if match else "none"
    if len(set(found.values())) != 1:
        raise ReleaseError(
            "the versions differ: " + ", ".join(f"{name} says {one}" for name, one in found.items())
        )
    return found["pyproject.toml"]


def check_tree(tree: Path, version: str) -> None:
    """Raises ReleaseError: something is not committed, not dated, or was released before."""
    if changed := _git(tree, "status", "--porcelain"):
        raise ReleaseError(f"not everything is committed:\n{changed}")
    if _git(tree, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"v{version} was released before: raise the version in {', '.join(VERSIONS)}")
    changes = (tree / CHANGES).read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changes, re.MULTILINE):
        raise ReleaseError(f"CHANGELOG.md has no section `## {version} (YYYY-MM-DD)`: date it, and commit")


def passed_at(tree: Path, commit: str) -> str:
    """What is said of a run of the tests before. Raises ReleaseError: of another tree, or of no commit."""
    changed = _git(tree, "diff", "--name-only", f"{commit}^{{commit}}", "HEAD").splitlines()
    if others := sorted(set(changed) - {CHANGES}):
        raise ReleaseError(
            f"{', '.join(others)} changed after {commit}: run the tests again, or leave TESTED out"
        )
    return f"lint and tests passed at {commit}, you say; nothing but {CHANGES} has changed since"


def build_twice(build: Callable[[Path], list[Path]], out: Path) -> list[Path]:
    """What `build` makes, in `out`. Raises ReleaseError where a second build makes other bytes."""
    made = build(out)
    with tempfile.TemporaryDirectory(prefix="dynmem-again-") as again:
        second = {path.name: path.read_bytes() for path in build(Path(again))}
    differing = [path.name for path in made if second.get(path.name) != path.read_bytes()]
    if differing or len(second) != len(made):
        raise ReleaseError(
            f"two builds differ in {', '.join(differing) or 'their files'}: nothing is released"
        )
    return made


def sign(key: str, file: Path) -> Path:
    """A detached signature beside a file. Raises ReleaseError."""
    if _is_file(key):
        command = ["ssh-keygen", "-Y", "sign", "-f", key, "-n", "file", str(file)]
        signature = file.with_name(f"{file.name}.sig")
    else:
        command = ["gpg", "--batch", "--yes", "--armor", "--local-user", key, "--detach-sign", str(file)]
        signature = file.with_name(f"{file.name}.asc")
    signature.unlink(missing_ok=True)
    _run(command, f"{file.name} could not be signed with {key}")
    return signature


def tag(tree: Path, version: str, key: str) -> None:
    """A signed, annotated tag. Raises ReleaseError."""
    kind = ["-c", "gpg.format=ssh"] if _is_file(key) else []
    message = f"dynmem {version}"
    command = ["git", "-C", str(tree), *kind, "tag", "--sign", "-u", key, "-m", message, f"v{version}"]
    _run(command, f"v{version} could not be tagged with {key}")


def release(
    tree: Path, key: str, out: Path, check: Callable[[], str], build: Callable[[Path], list[Path]]
) -> Iterator[str]:
    """Each step, when it is done; nothing is tagged before all of them are. check: says what has passed.

    Raises:
        ReleaseError: what is not as it must be.
    """
    version = version_of(tree)
    check_tree(tree, version)
    yield f"dynmem {version}: the tree is clean, dated and new"
    with tempfile.TemporaryDirectory(prefix="dynmem-key-") as place:
        (trial := Path(place) / SUMS).touch()
        sign(key, trial)
    yield f"{key} signs"
    yield check()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    made = build_twice(build, out)
    yield f"{len(made)} packages, the same bytes in two builds"
    files = sorted(path for path in out.iterdir() if path.name != SUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (out / SUMS).write_text("".join(lines))
    yield f"signed: {sign(key, out / SUMS)}"
    tag(tree, version, key)
    yield f"tagged v{version}; now: git push origin v{version}"


def _is_file(key: str) -> bool:
    return Path(key).expanduser().is_file()


def _git(tree: Path, *arguments: str) -> str:
    return _run(["git", "-C", str(tree), *arguments], f"git {arguments[0]} failed").strip()


def _run(command: list[str], failed: str) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ReleaseError(f"{failed}: {command[0]} is not installed") from None
    if done.returncode != 0:
        raise ReleaseError(f"{failed}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _check() -> str:
    done = subprocess.run(["make", "lint", "test-unit"], cwd=ROOT, check=False)
    if done.returncode != 0:
        raise ReleaseError("lint or a test fails: nothing is released")
    return "lint and unit tests pass"


def _build(out: Path) -> list[Path]:
    return [*packages.build(out), *rpms.build(out)]


def main() -> int:
    """Do what the module's text says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("key", nargs="?", help="what to sign with")
    parser.add_argument("--tested", metavar="COMMIT", help="where lint and tests have passed already")
    arguments = parser.parse_args()
    key, tested = arguments.key, arguments.tested
    if not key:
        parser.error(
            "name the key to sign with: make release KEY=… (an OpenPGP key, or the file of an SSH key)"
        )
    try:
        for step in release(
            ROOT,
            str(Path(key).expanduser()) if _is_file(key) else key,
            ROOT / "dist",
            partial(passed_at, ROOT, tested) if tested else _check,
            _build,
        ):
            print(f"✓ {step}")
    except LabError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
