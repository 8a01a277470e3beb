"""Files for us alone; and what is no file is left as it is, /dev/null above all."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from host_controller.host.exclusive import lock
from host_controller.private import FILE_MODE, open_private, write_private

NULL = os.makedev(1, 3)


def device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, NULL)
    except PermissionError:
        pytest.skip("making a device takes root")
    path.chmod(0o666)


def pipe(path: Path) -> None:
    os.mkfifo(path)
    path.chmod(0o666)


def link(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("")
    target.chmod(0o666)
    path.symlink_to(target)


@pytest.mark.parametrize("make", [device, pipe, link])
@pytest.mark.parametrize(
    "use", [lambda path: write_private(path, b"x"), lambda path: lock(path, "me").close()]
)
def test_what_is_no_file_is_refused_and_keeps_its_mode(
    make: Callable[[Path], None], use: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(OSError, match="thing"):
        use(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_a_file_that_was_open_to_all_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("older and longer")
    path.chmod(0o666)
    os.close(open_private(path))
    assert (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) == (FILE_MODE, b"")
