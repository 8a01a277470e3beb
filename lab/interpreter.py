"""Other releases' Python, from a small root of that release: the agent must run where nobody has ours."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import apt
from lab.cache import build_once, key_of
from lab.errors import ImageError

PACKAGES = ("python3-minimal", "libpython3-stdlib")
_NEXT_RELEASE = ("--aptopt=Acquire::Check-Valid-Until false",)


@contextmanager
def python_of(codename: str, tree: Path) -> Iterator[list[str]]:
    """The command that runs a Debian release's python3 in a copy of `tree`, which is its working directory.

    The root is built once and cached; half a minute. As root, or in a user namespace.

    Raises:
        ImageError: mmdebstrap could not make the root.
    """
    root = build_once(
        f"python-{codename}", key_of(codename, *PACKAGES), lambda place: _build(codename, place)
    )
    copy = Path(tempfile.mkdtemp(prefix="tree-", dir=root / "root" / "tmp"))
    try:
        shutil.copytree(tree, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        copy.chmod(0o755)
        inside = "/" + copy.relative_to(root / "root").as_posix()
        rooted = [] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--map-auto"]
        change = ["chroot", str(root / "root"), "sh", "-c", 'cd "$0" && exec python3 "$@"', inside]
        yield [*rooted, *change]
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _build(codename: str, place: Path) -> None:
    mode = f"--mode={'root' if os.geteuid() == 0 else 'unshare'}"
    made = apt.mmdebstrap(codename, str(place / "root"), PACKAGES, mode, *_NEXT_RELEASE)
    command = [*apt.contained(), *made]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImageError(
            f"mmdebstrap could not make a root of {codename}. Can its archive be reached? It said:\n"
            + done.stderr[-2000:]
        )
