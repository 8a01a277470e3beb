"""`make release`: nothing is tagged that is not clean, dated, checked, reproducible and signed."""

import itertools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.release import SUMS, VERSIONS, ReleaseError, check_tree, passed_at, release, version_of

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


def git(tree: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    command = ["git", "-C", str(tree), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with what a release reads, dated and committed."""
    tree = tmp_path / "tree"
    for name in VERSIONS:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    (tree / "CHANGELOG.md").write_text(f"# Changes\n\n## {version_of(ROOT)} (2026-11-28)\n")
    git(tmp_path, "init", "-q", str(tree))
    git(tree, "config", "user.name", "x")
    git(tree, "config", "user.email", "x@localhost")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "all")
    return tree


@pytest.fixture
def key(tmp_path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    return str(tmp_path / "key")


def same(out: Path) -> list[Path]:
    out.mkdir(exist_ok=True)
    (out / "a.deb").write_bytes(b"a package")
    return [out / "a.deb"]


def run(tree: Path, key: str, build: Callable[[Path], list[Path]] = same, check: object = None) -> list[str]:
    def passes() -> str:
        if isinstance(check, Exception):
            raise check
        return "all tests pass"

    return list(release(tree, key, tree.parent / "dist", passes, build))


def test_the_version_stands_in_one_form_everywhere() -> None:
    assert version_of(ROOT)


def test_a_release_is_tagged_and_its_sums_are_signed_so_that_anybody_can_check(tree: Path, key: str) -> None:
    run(tree, key)
    version, out = version_of(tree), tree.parent / "dist"
    assert git(tree, "tag", "--list").split() == [f"v{version}"]
    assert "BEGIN SSH SIGNATURE" in git(tree, "cat-file", "-p", f"v{version}")
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=out, check=True, capture_output=True)
    allowed = tree.parent / "allowed"
    allowed.write_text("authors " + Path(f"{key}.pub").read_text())
    verify = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "authors", "-n", "file"]
    with (out / SUMS).open("rb") as sums:
        subprocess.run([*verify, "-s", out / f"{SUMS}.sig"], stdin=sums, check=True, capture_output=True)


def test_what_is_not_committed_is_not_released(tree: Path, key: str) -> None:
    (tree / "CHANGELOG.md").write_text("")
    with pytest.raises(ReleaseError, match="not everything is committed"):
        run(tree, key)


def test_a_section_without_a_date_is_not_released(tree: Path) -> None:
    (tree / "CHANGELOG.md").write_text(f"## {version_of(tree)} (not released yet)\n")
    git(tree, "commit", "-qam", "undated")
    with pytest.raises(ReleaseError, match="no section"):
        check_tree(tree, version_of(tree))


def test_versions_that_differ_are_named(tree: Path) -> None:
    (tree / "agent/__init__.py").write_text('__version__ = "9.9"\n')
    with pytest.raises(ReleaseError, match=r"agent/__init__.py says 9\.9"):
        version_of(tree)


def test_a_version_is_released_once(tree: Path, key: str) -> None:
    run(tree, key)
    with pytest.raises(ReleaseError, match="was released before"):
        run(tree, key)


def test_builds_that_differ_are_not_released(tree: Path, key: str) -> None:
    count = itertools.count()

    def other(out: Path) -> list[Path]:
        [made] = same(out)
        made.write_text(str(next(count)))
        return [made]

    with pytest.raises(ReleaseError, match=r"two builds differ in a\.deb"):
        run(tree, key, other)
    assert git(tree, "tag", "--list") == ""


@pytest.mark.parametrize("key_of", ["/nowhere", "0123456789ABCDEF"])
def test_a_key_that_does_not_sign_is_told_before_anything_takes_long(tree: Path, key_of: str) -> None:
    with pytest.raises(ReleaseError, match="could not be signed"):
        run(tree, key_of, check=AssertionError("the tests were run"))
    assert git(tree, "tag", "--list") == ""


def test_a_run_of_the_tests_counts_as_long_as_nothing_but_the_changelog_has_changed(tree: Path) -> None:
    tested = git(tree, "rev-parse", "HEAD").strip()
    (tree / "CHANGELOG.md").write_text(f"## {version_of(tree)} (2026-11-29)\n")
    git(tree, "commit", "-qam", "dated")
    assert tested in passed_at(tree, tested)
    (tree / "agent/__init__.py").write_text('__version__ = "9.9"\n')
    git(tree, "commit", "-qam", "changed")
    with pytest.raises(ReleaseError, match=r"agent/__init__\.py changed after"):
        passed_at(tree, tested)
    with pytest.raises(ReleaseError, match="git diff failed"):
        passed_at(tree, "0123456")


def test_where_a_check_fails_nothing_is_built(tree: Path, key: str) -> None:
    with pytest.raises(ReleaseError, match="a test fails"):
        run(tree, key, check=ReleaseError("a test fails"))
    assert not (tree.parent / "dist").exists()
