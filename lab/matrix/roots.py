"""Roots of other Debian releases: made once, cached elsewhere, entered in namespaces of their own."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab import apt, packages
from lab.cache import build_once, cache_directory, key_of, remove
from lab.code_disk import REPOSITORY
from lab.errors import FetchError, LabError, error_of
from lab.matrix.suites import BUILD_PACKAGES, HOST_PACKAGES, Suite
from lab.namespaces import SEPARATE

TREE: Final = "/dynmem"
"""Where a root sees this checkout, which it cannot write."""
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_NOT_PACKED: Final = ("tests/", "bench/", "lab/", "vagrant/")
_PINNED: Final = "Package: *\\nPin: release n={suite}\\nPin-Priority: {priority}\\n"
# The archive of a release to come may be past its date.
_DATES: Final = "--aptopt=Acquire::Check-Valid-Until false"
_ENTER: Final = """
set -e
root=$1 place=$2 cache=$3 tree=$4 script=$5
mkdir -p "$place/upper" "$place/work" "$place/merged"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$place/upper,workdir=$place/work" "$place/merged"
cd "$place/merged"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 run run
mkdir -p -m 1777 run/lock
mkdir -p dynmem var/cache/dynmem
mount --bind "$tree" dynmem
mount -o remount,bind,ro dynmem
mount --bind "$cache" var/cache/dynmem
! ip link set lo up 2>/dev/null || true
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \\
    DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$7" $6 /bin/sh -c "$script"
"""


@dataclass(frozen=True, slots=True)
class Root:
    """A root with what was written into it since; the cached one below it stays as it is."""

    suite: Suite
    base: Path
    place: Path

    def run(
        self, script: str, *, network: bool = False, limit: float = 900.0, path: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """A shell script in it, as root, in namespaces of its own; never raises for an exit code.

        network: this machine's, else a loopback of its own. path: of Python. limit: in seconds; what is
        not done then is killed, and what was said ends with a line about that.
        """
        passed = [f"{name}={value}" for name, value in os.environ.items() if name.lower().endswith("_proxy")]
        command: list[str | Path] = [
            *("unshare", *SEPARATE, *([] if network else ["--net"])),
            *("sh", "-c", _ENTER, "sh", self.base, self.place, cache_directory(), REPOSITORY, script),
            *(" ".join(passed), path),
        ]
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            said = (
                late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
            )
            return subprocess.CompletedProcess(command, 124, f"{said}\nkilled after {limit:.0f} s")

    def file(self, path: str) -> Path:
        """What was written there since."""
        return self.place / "upper" / path.lstrip("/")

    def put(self, *files: Path) -> None:
        """Copy files into its /root."""
        self.file("/root").mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, self.file("/root"))


@contextmanager
def entered(suite: Suite, base: Path) -> Iterator[Root]:
    """The root, to be written into; of that nothing is left."""
    # Not in /tmp, which may be an overlay or a tmpfs itself.
    place = Path(tempfile.mkdtemp(prefix="matrix-", dir=cache_directory()))
    place.chmod(0o755)
    try:
        yield Root(suite, base, place)
    finally:
        remove(place)


def host_root(suite: Suite) -> Path:
    """A host without dynmem: libvirt, QEMU and Python. Raises FetchError."""
    return _made(suite, "host", HOST_PACKAGES)


def built_packages(suite: Suite) -> list[Path]:
    """The packages of this tree, built in that release: in a root of its, or here where this is one. Cached.

    Raises:
        FetchError: an archive was not reached.
        LabError: with the end of what was said.
    """
    place = build_once(
        f"packages-{suite.name}", _key_of_tree(suite.name), lambda out: _build_packages(suite, out)
    )
    return sorted(place.glob("*.deb"))


def built_here() -> list[Path]:
    """The packages of this tree, built on this machine. Cached. Raises LabError."""

    def build(out: Path) -> None:
        packages.build(out)

    return sorted(build_once("packages-here", _key_of_tree(), build).glob("*.deb"))


def _key_of_tree(*more: str) -> str:
    names = [name for name in packages.tracked() if not name.startswith(_NOT_PACKED)]
    return key_of(*more, *(part for name in names for part in (name, (REPOSITORY / name).read_bytes())))


def _build_packages(suite: Suite, out: Path) -> None:
    if platform.freedesktop_os_release().get("VERSION_CODENAME") == suite.codename:
        packages.build(out)
        return
    base = _made(suite, "build", BUILD_PACKAGES, build=True)
    with entered(suite, base) as root:
        packages.copy_tree(root.file("/build/dynmem"))
        if _CERTIFICATES.exists():  # what is carried comes from where this machine gets it
            target = root.file(str(_CERTIFICATES))
            target.parent.mkdir(parents=True)
            shutil.copy(_CERTIFICATES, target)
        done = root.run(
            f"cd /build/dynmem && DEB_BUILD_PROFILES='{' '.join(suite.carried)}' "
            "dpkg-buildpackage --build=binary --no-sign",
            network=True,
        )
        made = sorted(path for path in root.file("/build").glob("*.deb") if "-dbgsym_" not in path.name)
        if done.returncode != 0 or not made:
            error = error_of(done.stdout, LabError)
            raise error(f"{suite.name}: the packages could not be built:\n{done.stdout[-3000:]}")
        for path in made:
            shutil.copy(path, out)


def install(root: Root, wanted: Sequence[str]) -> str:
    """apt-get install, as an administrator would. Returns what it said.

    Raises:
        FetchError: an archive was not reached.
        LabError: the packages cannot be installed.
    """
    command = f"apt-get install --yes --no-install-recommends {' '.join(wanted)}"
    done = root.run(f"apt-get update -q && {command}", network=True)
    if done.returncode != 0:
        error = error_of(done.stdout, LabError)
        raise error(f"{root.suite.name}: {command}:\n{done.stdout[-2000:]}")
    return done.stdout


def options_of(suite: Suite) -> list[str]:
    """What mmdebstrap is told of that archive."""
    pins = dict.fromkeys(suite.closed, -1)
    if suite.backports:
        pins[f"{suite.codename}-backports"] = 500
    if not pins:
        return [_DATES]
    said = "\\n".join(_PINNED.format(suite=name, priority=number) for name, number in pins.items())
    return [_DATES, f"--setup-hook=printf '{said}' > \"$1\"/etc/apt/preferences.d/lab"]


def _made(suite: Suite, kind: str, wanted: Sequence[str], build: bool = False) -> Path:
    name = f"matrix-{kind}-{suite.name}"
    control = (REPOSITORY / "debian/control").read_text() if build else ""
    key = key_of(suite.name, *wanted, control)
    return build_once(name, key, lambda place: _make(suite, place, wanted, build)) / "root"


def _make(suite: Suite, place: Path, wanted: Sequence[str], build: bool) -> None:
    target = place / "root"
    options = ["--mode=root", *options_of(suite)]
    if build:
        needed = (
            "cd /src && apt-get build-dep --yes --no-install-recommends "
            "-o Dpkg::Options::=--force-unsafe-io ./ && rm -r /src"
        )
        options += [
            '--customize-hook=mkdir -p "$1/src/debian"',
            f"--customize-hook=copy-in {REPOSITORY}/debian/control /src/debian",
            f"--customize-hook=chroot \"$1\" sh -c '{needed}'",
        ]
    command = apt.mmdebstrap(suite.codename, str(target), wanted, *options)
    if suite.backports:
        command += apt.backports(suite.codename)
    environment = {**os.environ, "DEB_BUILD_PROFILES": " ".join(suite.carried)}
    done = subprocess.run(
        [*apt.contained(), *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode == 0:
        return
    # What does not come from the archive, though it was reached, is asked for by debian/control.
    raise error_of(done.stderr, LabError if build else FetchError)(
        f"mmdebstrap could not make a root of {suite.name}. Can its archive be reached? It said:\n"
        + done.stderr[-2000:]
    )
