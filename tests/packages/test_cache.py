"""What was built once stays, and one kind's builder touches nothing of another's."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.cache import build_once, key_of, remove
from lab.errors import LabError

ROOT = Path(__file__).parents[2]
KEY = key_of("an input")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DYNMEM_CACHE", str(tmp_path))
    return tmp_path


def made(place: Path) -> None:
    (place / "made").write_text("")


def test_a_second_asker_gets_what_the_first_one_built() -> None:
    place = build_once("guest", KEY, made)
    assert build_once("guest", KEY, lambda _: pytest.fail("built again")) == place


def test_an_interrupted_build_leaves_nothing_and_the_next_one_removes_what_a_crash_left(cache: Path) -> None:
    with pytest.raises(OSError, match="interrupted"):
        build_once("guest", KEY, lambda _: (_ for _ in ()).throw(OSError("interrupted")))
    assert not list(cache.glob("guest-*"))
    (cache / f"guest-{KEY}.partial.crashed").mkdir()
    build_once("guest", KEY, made)
    assert [one.name for one in cache.glob("guest-*")] == [f"guest-{KEY}"]


def test_a_build_leaves_alone_what_another_kind_of_a_longer_name_is_just_building(cache: Path) -> None:
    other = cache / f"guest-bookworm-backports-{KEY}.partial.running"
    other.mkdir()
    build_once("guest-bookworm", KEY, made)
    assert other.is_dir()


AFTER_A_KILLED_BUILD = """
import subprocess, sys
from lab.cache import build_once
left, kind, key = sys.argv[1:]
subprocess.run(["mount", "--bind", "precious", left + "/dev"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "none", left + "/dev"], check=True)
build_once(kind, key, lambda place: None)
"""


def test_what_a_killed_build_left_mounted_is_not_deleted_with_its_leftover(cache: Path) -> None:
    left = cache / f"guest-{KEY}.partial.killed"
    (left / "dev").mkdir(parents=True)
    (cache / "precious").mkdir()
    (cache / "precious/file").write_text("of this machine")
    namespaces = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*namespaces, sys.executable, "-c", AFTER_A_KILLED_BUILD, left, "guest", KEY]
    done = subprocess.run(
        command,
        cwd=cache,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (cache / "precious/file").read_text() == "of this machine"
    assert not left.exists()


def test_a_mount_that_stays_keeps_all_that_is_beside_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "kept").write_text("")
    mounted = SimpleNamespace(mountpoint=str(cache / "dev"))
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: [mounted])
    with pytest.raises(LabError, match=r"dev is still mounted\. Unmount it"):
        remove(cache)
    assert (cache / "kept").exists()
