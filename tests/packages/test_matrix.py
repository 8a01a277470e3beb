"""The matrix of releases: what its table keeps, and what it says of what cannot be done."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from host_controller.verify.accelerator import Accelerator, find_accelerator
from host_controller.verify.observer import Sample
from lab.domain import ARM64, GuestSpec, domain_xml
from lab.errors import FetchError, LabError
from lab.image import Image
from lab.matrix import __main__ as hosts
from lab.matrix import of_commit, roots, runs, table
from lab.matrix.cells import TESTS, Cell
from lab.matrix.guest_story import Stage
from lab.matrix.guests import _kernel
from lab.matrix.of_commit import chosen
from lab.matrix.suites import GUESTS, NOT_FETCHED, SUITES

ROOT = Path(__file__).parents[2]
KVM = Accelerator("KVM", "kvm", "host-passthrough", "")
_RUN = subprocess.run
SEEN = [Cell("install", True, "15 MiB", 3.2), Cell("story", False, "", 40.0)]


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "compatibility.md"
    path.write_text("before\n<!-- hosts -->\n<!-- /hosts -->\nafter\n<!-- guests -->\n<!-- /guests -->\n")
    return path


def test_a_run_writes_its_own_column_and_leaves_the_others(document: Path) -> None:
    table.write("trixie", "QEMU 10", SEEN, path=document)
    table.write("forky", "QEMU 11", SEEN[:1], path=document)
    table.write("trixie", "QEMU 10.1", [Cell("install", True, "16 MiB", 2.0), SEEN[1]], path=document)
    rows = [line for line in document.read_text().splitlines() if line.startswith("|")]
    assert rows[0] == "|  | trixie | forky |"
    assert "| versions | QEMU 10.1 | QEMU 11 |" in rows
    assert "| install | 16 MiB (2 s) | 15 MiB (3 s) |" in rows
    assert "| story | **not true** (40 s) | not tried |" in rows


def test_a_run_of_one_cell_leaves_the_others_of_its_suite(document: Path) -> None:
    table.write("trixie", "QEMU 10", SEEN, path=document)
    table.write("trixie", "QEMU 10", [Cell("story", True, "seen", 61.0)], path=document, whole=False)
    rows = document.read_text().splitlines()
    assert "| install | 15 MiB (3 s) |" in rows
    assert "| story | seen (61 s) |" in rows
    table.write("trixie", "QEMU 10", SEEN[:1], path=document)
    assert "story" not in document.read_text(), "a whole run says all that is known"


def test_what_stands_around_the_table_stays(document: Path) -> None:
    table.write("trixie", "QEMU 10", SEEN, path=document)
    table.write("trixie", "Linux 6", SEEN, "guests", path=document)
    text = document.read_text()
    assert text.startswith("before\n<!-- hosts -->\n|")
    assert "<!-- /hosts -->\nafter\n<!-- guests -->\n|" in text
    assert text.count("| trixie |") == 2


def test_every_test_that_the_matrix_plays_exists() -> None:
    for test in TESTS.values():
        name, _, options = test.partition(" ")
        file, _, function = name.partition("::")
        text = (ROOT / file).read_text()
        assert not function or f"def {function}(" in text
        if options.startswith("-k"):
            assert options.removeprefix("-k ") in text


def test_the_present_release_comes_first() -> None:
    assert next(iter(SUITES)) == next(iter(GUESTS)) == "trixie"


@pytest.mark.parametrize("command", ["lab.matrix", "lab.matrix.guests"])
def test_a_suite_that_does_not_exist_is_answered_with_those_that_do(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", command, "sarge"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "no suite is called sarge; there are trixie, bookworm" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_kernels_release_is_read_from_its_image(tmp_path: Path) -> None:
    image = bytearray(0x1000)
    image[0x20E:0x210] = (0x300).to_bytes(2, "little")
    text = b"6.12.1-cloud-amd64 (builder) #1\0"
    image[0x500 : 0x500 + len(text)] = text
    (tmp_path / "vmlinuz").write_bytes(image)
    assert _kernel(tmp_path / "vmlinuz") == "Linux 6.12.1-cloud-amd64"


def test_an_arm64_kernels_release_is_what_it_says_itself(tmp_path: Path) -> None:
    image = bytearray(0x1000)
    image[0x38:0x3C] = b"ARMd"
    text = b"Linux version 6.12.1-cloud-arm64 (builder) #1\0"
    image[0x500 : 0x500 + len(text)] = text
    (tmp_path / "vmlinuz").write_bytes(image)
    assert _kernel(tmp_path / "vmlinuz") == "Linux 6.12.1-cloud-arm64"


def test_an_arm64_guest_is_emulated_whatever_this_machine_can() -> None:
    spec = GuestSpec("arm", machine="virt", platform=ARM64)
    place = Path("/lab")
    xml = domain_xml(spec, KVM, Image(place, place, place), place, place, place)
    root = ElementTree.fromstring(xml)
    assert root.get("type") == "qemu"
    assert root.findtext("os/loader") == str(ARM64.firmware), "without it `virt` has no ACPI"
    assert "console=ttyAMA0" in (root.findtext("os/cmdline") or "")


def test_a_cpu_lacks_what_a_kernel_cannot_use_only_where_it_is_emulated() -> None:
    spec = GuestSpec("one", cpu_without=("cx16",))
    place = Path("/lab")
    for accelerator, lacks in ((find_accelerator(Path("/nowhere")), ["cx16"]), (KVM, [])):
        xml = domain_xml(spec, accelerator, Image(place, place, place), place, place, place)
        assert [one.get("name") for one in ElementTree.fromstring(xml).iterfind("cpu/feature")] == lacks


def test_every_suite_has_its_turn_by_the_hash_of_a_commit() -> None:
    turns = {chosen(f"{number:040x}") for number in range(len(SUITES) + len(GUESTS))}
    assert turns == {("lab.matrix", name) for name in SUITES} | {
        ("lab.matrix.guests", name) for name in GUESTS
    }


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 1), (NOT_FETCHED, 0)])
def test_a_suite_that_cannot_be_fetched_is_said_and_is_no_failure_of_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, ends: int
) -> None:
    def run(command: list[str], **_: object) -> SimpleNamespace:
        asks_git = command[0] == "git"
        return SimpleNamespace(returncode=0 if asks_git else code, stdout=f"{3:040x}\n", stderr="")

    monkeypatch.setattr(of_commit.subprocess, "run", run)
    monkeypatch.setattr(of_commit.namespaces, "why_not", lambda _: "")
    monkeypatch.setattr(sys, "argv", ["of_commit"])
    assert of_commit.main() == ends
    said = capsys.readouterr().out
    assert f"asks for {list(SUITES)[3]} as a host" in said
    assert ("could not be fetched. Once it can be: make test-suite" in said) == (code == NOT_FETCHED)
    assert said.splitlines()[-1].startswith(f"{0 if code == NOT_FETCHED else 1} of 1 suites tried")


HOST, GUEST = 3, len(SUITES)


@pytest.mark.parametrize(
    ("number", "user", "hindered", "tried"),
    [
        (HOST, 1000, "it needs root", 0),
        (GUEST, 1000, "it needs root", 1),
        (HOST, 0, "there are no namespaces", 0),
        (GUEST, 0, "there are no namespaces", 0),
        (GUEST, 0, "", 1),
    ],
)
def test_a_machine_that_cannot_enter_a_root_says_so_and_tries_guests_without_root(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    user: int,
    hindered: str,
    tried: int,
) -> None:
    begun: list[str] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        begun.append(command[0])
        return SimpleNamespace(returncode=0, stdout=f"{number:040x}\n", stderr="")

    monkeypatch.setattr(of_commit.subprocess, "run", run)
    monkeypatch.setattr(of_commit.os, "geteuid", lambda: user)
    monkeypatch.setattr(of_commit.namespaces, "why_not", lambda _: hindered)
    monkeypatch.setattr(sys, "argv", ["of_commit"])
    assert of_commit.main() == 0
    assert begun == ["git", sys.executable][: 1 + tried]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{tried} of 1 suites tried")
    assert (f"since {hindered}. Once it can be" in last) == (not tried)


def test_what_was_said_of_a_red_cell_is_shown_where_nobody_can_look_into_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "matrix.log"
    log.write_text("--- trixie, doctor\nno controller answers\n")
    monkeypatch.setattr(of_commit, "LOGS", dict.fromkeys(of_commit.LOGS, log))
    monkeypatch.setattr(of_commit, "REPOSITORY", ROOT)
    monkeypatch.setattr(of_commit.namespaces, "why_not", lambda _: "")
    ask = subprocess.run

    def run(command: list[str], **options: object) -> object:
        return ask(command, **options) if command[0] == "git" else SimpleNamespace(returncode=1)  # type: ignore[call-overload]

    monkeypatch.setattr(of_commit.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["of_commit"])
    assert of_commit.main() == 1
    assert "no controller answers" in capsys.readouterr().out


def _plays(*cells: Cell, then: LabError | None = None) -> Callable[[str, list[Cell]], None]:
    def play(_: str, seen: list[Cell]) -> None:
        seen += cells
        if then:
            raise then

    return play


@pytest.mark.parametrize(
    ("play", "ends"),
    [
        (_plays(SEEN[0]), 0),
        (_plays(*SEEN), 1),
        (_plays(then=FetchError("no archive")), NOT_FETCHED),
        (_plays(SEEN[0], then=FetchError("no archive")), NOT_FETCHED),
        (_plays(*SEEN, then=FetchError("no archive")), 1),
        (_plays(then=LabError("it cannot be installed")), 1),
    ],
)
def test_a_suite_that_is_not_fetched_excuses_no_cell_that_is_red(
    play: Callable[[str, list[Cell]], None], ends: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs.run(["trixie"], play) == ends
    assert " cells, 0.0 min" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("W: Failed to fetch http://deb.example/InRelease  Could not resolve 'deb.example'", FetchError),
        ("E: Unable to fetch some archives, maybe run apt-get update", FetchError),
        ("NewConnectionError: Failed to establish a new connection: [Errno -3]", FetchError),
        ("NameResolutionError: Failed to resolve 'index.example'", FetchError),
        ("ERROR: HTTP error 503 while getting msgspec", FetchError),
        ("E: Failed to fetch msgspec.deb  write error: No space left on device", LabError),
        ("dynmem : Depends: python3-aiohttp but it is not installable", LabError),
        ("Failed to connect to bus: Connection refused\ndpkg: error processing package dynmem", LabError),
    ],
)
def test_a_package_that_cannot_be_installed_is_told_from_an_archive_that_is_not_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, error: type[LabError]
) -> None:
    done = SimpleNamespace(returncode=100, stdout=said)
    monkeypatch.setattr(roots.Root, "run", lambda *_, **__: done)
    root = roots.Root(SUITES["trixie"], tmp_path, tmp_path)
    with pytest.raises(LabError) as raised:
        roots.install(root, ["dynmem"])
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("build", "said", "error"),
    [
        (True, "E: Unable to satisfy dependencies", LabError),
        (True, "E: Failed to fetch http://deb.example/gcc.deb", FetchError),
        (False, "E: Unable to locate package qemu-system-x86", FetchError),
    ],
)
def test_what_a_commit_asks_of_a_suite_in_vain_is_no_suite_that_is_not_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, build: bool, said: str, error: type[LabError]
) -> None:
    done = SimpleNamespace(returncode=25, stdout="", stderr=said)
    monkeypatch.setattr(roots.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(roots.apt, "mmdebstrap", lambda *_: [])
    with pytest.raises(LabError) as raised:
        roots._make(SUITES["trixie"], tmp_path, [], build)
    assert type(raised.value) is error


def test_an_archive_that_is_not_reached_is_told_from_a_cell_that_is_red(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreached(*_: object, **__: object) -> None:
        raise FetchError("mmdebstrap could not make a root of trixie. Can its archive be reached?")

    monkeypatch.setattr(hosts, "_play", unreached)
    monkeypatch.setattr(hosts, "LOG", tmp_path / "build" / "matrix.log")
    monkeypatch.setattr(hosts.os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["matrix", "trixie"])
    assert hosts.main() == NOT_FETCHED
    assert "Can its archive be reached?" in capsys.readouterr().err


def test_what_takes_too_long_in_a_root_ends_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DYNMEM_CACHE", str(tmp_path))
    monkeypatch.setattr(roots, "_ENTER", "echo begun; sleep 100")
    monkeypatch.setattr(
        roots.subprocess, "run", lambda command, **how: _RUN(command[command.index("sh") :], **how)
    )
    done = roots.Root(SUITES["trixie"], tmp_path, tmp_path).run("", limit=0.5)
    assert done.returncode == 124
    assert done.stdout == "begun\n\nkilled after 0 s"


@pytest.mark.parametrize(
    ("at", "excused"), [(9.8, False), (9.95, True), (10.1, True), (10.25, True), (10.4, False)]
)
def test_a_sample_is_excused_that_was_read_while_a_reset_guest_was_not_yet_held(
    at: float, excused: bool
) -> None:
    over: Any = SimpleNamespace(violations=lambda _: [Sample(at, 0.1, {})])
    nothing: Any = None
    stage = Stage(nothing, nothing, over, nothing, "balloon")
    stage.stopping = (10.0, 10.2)
    assert (stage.violations() == []) == excused
