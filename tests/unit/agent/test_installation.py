"""The agent put into a guest without a package, and taken out again."""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import installation
from agent.installation import MARK, PACKAGED, PLACE, RULE, UNIT, WANTED, NotInstalled, install, remove

Calls = list[list[str]]


class Guest:
    """A root directory with what a guest has, and what was run there."""

    def __init__(self, root: Path, *, systemd: bool = True, running: bool = True, udev: bool = True) -> None:
        self.root = root
        self.calls: Calls = []
        self.archive = root / "dropped.pyz"
        self.archive.write_bytes(b"the agent")
        for there, path in ((systemd, "usr/lib/systemd/systemd"), (running, "run/systemd/system")):
            if there:
                (root / path).mkdir(parents=True)
        if udev:
            (root / "usr/lib/udev/rules.d").mkdir(parents=True)

    def run(self, command: list[str]) -> tuple[int, str]:
        self.calls.append(command)
        return 0, ""

    def install(self) -> list[str]:
        return list(install(str(self.archive), "/usr/bin/python3", str(self.root), self.run))

    def remove(self) -> list[str]:
        return list(remove(str(self.root), self.run))

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}


def test_with_systemd_and_udev_the_port_starts_it(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    said = guest.install()
    assert (tmp_path / PLACE).read_bytes() == b"the agent"
    unit = (tmp_path / UNIT).read_text()
    assert unit.startswith(MARK)
    assert f"ExecStart=/usr/bin/python3 -I -S /{PLACE} run\n" in unit
    assert f"ExecStopPost=-/usr/bin/python3 -I -S /{PLACE} restore\n" in unit
    assert "/usr/bin/dynmem-agent" not in unit
    assert "BindsTo=dev-virtio" in unit
    assert (tmp_path / RULE).read_text().startswith(MARK)
    assert ["systemctl", "daemon-reload"] in guest.calls
    assert said[-1] == "The agent runs."


def test_without_udev_the_unit_starts_at_boot_and_waits_for_no_device(tmp_path: Path) -> None:
    guest = Guest(tmp_path, udev=False)
    guest.install()
    unit = (tmp_path / UNIT).read_text()
    assert not re.search(r"^(BindsTo|After)=", unit, re.M)
    assert "DeviceAllow=char-virtio-portsdev rw" in unit
    assert "WantedBy=multi-user.target" in unit
    assert os.readlink(tmp_path / WANTED) == f"/{UNIT}"
    assert guest.calls[-2] == ["systemctl", "restart", "dynmem-agent.service"]
    guest.remove()
    assert guest.files() == {"dropped.pyz"}


@pytest.mark.parametrize("running", [True, False])
def test_an_agent_that_goes_with_the_next_boot_is_told_to_be(tmp_path: Path, running: bool) -> None:
    guest = Guest(tmp_path, running=running)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/mounts").write_text("tmpfs / tmpfs rw 0 0\n")
    told = "gone after the next boot" in guest.install()[-1]
    assert told is running, "an image may be built in memory"


def test_in_an_image_that_is_being_built_nothing_is_started(tmp_path: Path) -> None:
    guest = Guest(tmp_path, running=False)
    assert guest.install()[-1] == "It starts with the next boot."
    assert guest.calls == []
    assert {PLACE, UNIT, RULE} <= guest.files()


def test_without_systemd_its_own_init_is_named(tmp_path: Path) -> None:
    guest = Guest(tmp_path, systemd=False, running=False)
    assert f"/usr/bin/python3 -I -S /{PLACE} run" in guest.install()[-1]
    assert guest.files() == {"dropped.pyz", PLACE}


def test_a_systemd_that_lies_elsewhere_and_runs_is_told_of_the_agent(tmp_path: Path) -> None:
    """NixOS, whose /etc cannot be written: that it runs was said of an agent that nothing starts."""
    guest = Guest(tmp_path, systemd=False)
    guest.install()
    assert (tmp_path / UNIT).exists()
    guest.remove()
    assert not (tmp_path / UNIT).exists()


def test_installed_twice_is_installed_once(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    guest.install()
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in guest.files()}
    assert [one for one in guest.install() if "written" in one] == []
    assert before == {path: (tmp_path / path).stat().st_mtime_ns for path in guest.files()}


def test_remove_leaves_the_guest_as_it_was_and_may_be_repeated(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    before = guest.files()
    guest.install()
    assert guest.remove()[-1] == "3 files are removed."
    assert guest.files() == before
    assert not (tmp_path / PLACE).parent.exists()
    assert guest.remove() == ["There was nothing to remove."]


def test_where_the_package_is_nothing_is_put(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    (tmp_path / PACKAGED).parent.mkdir(parents=True)
    (tmp_path / PACKAGED).write_text("")
    with pytest.raises(NotInstalled, match="package dynmem-agent is installed"):
        guest.install()
    assert not (tmp_path / PLACE).exists()


def test_an_administrators_own_unit_is_neither_replaced_nor_removed(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    (tmp_path / UNIT).parent.mkdir(parents=True)
    (tmp_path / UNIT).write_text("[Service]\n")
    with pytest.raises(NotInstalled, match="is not ours"):
        guest.install()
    guest.remove()
    assert (tmp_path / UNIT).read_text() == "[Service]\n"
    assert ["systemctl", "stop", "dynmem-agent.service"] not in guest.calls


@pytest.mark.parametrize("step", range(8))
def test_cut_off_at_any_step_a_second_run_completes_it_and_remove_undoes_it(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = Guest(tmp_path)
    before = guest.files()
    left = [step]

    def cut(function: Any) -> Any:
        def once(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return function(*arguments, **more)

        return once

    with monkeypatch.context() as patch:
        for name in ("replace", "fsync", "chmod"):
            patch.setattr(installation.os, name, cut(getattr(os, name)))
        with pytest.raises(KeyboardInterrupt):
            guest.install()
    if step % 2:
        guest.install()
        assert {PLACE, UNIT, RULE} == guest.files() - before
    guest.remove()
    assert guest.files() == before


def test_a_full_disk_is_a_sentence_and_leaves_no_part_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = Guest(tmp_path)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(installation.os, "fsync", full)
    with pytest.raises(NotInstalled, match=r"dynmem-agent.pyz: No space left on device\."):
        guest.install()
    assert guest.files() == {"dropped.pyz"}


def test_a_link_that_lies_beside_its_place_is_not_written_through(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    precious = tmp_path / "precious"
    precious.write_text("of somebody else")
    for path in (PLACE, UNIT):
        beside = tmp_path / f"{path}.new"
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.symlink_to(precious)
    guest.install()
    assert precious.read_text() == "of somebody else"
    assert not (tmp_path / PLACE).is_symlink()


def test_only_the_one_file_installs_itself(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/dynmem-agent", "install"])
    assert installation.main(["install"]) == 1
    assert "only the file dynmem-agent.pyz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (errno.EROFS, r"Read-only file system\. Put the agent into the image"),
        (errno.EACCES, r"Permission denied\. Run it from a shell of root's"),
    ],
)
def test_where_nothing_can_be_written_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: int, said: str
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(why, os.strerror(why), "/usr/local/lib/dynmem-agent")

    guest = Guest(tmp_path)
    monkeypatch.setattr(installation.os, "makedirs", refused)
    with pytest.raises(NotInstalled, match=said):
        guest.install()
