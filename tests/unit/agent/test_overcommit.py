"""The kernel is kept from refusing what the guest's maximum allows, and gets its settings back."""

import errno
import os
from pathlib import Path

import pytest

from agent import overcommit
from agent.maximum import Maximum
from agent.overcommit import Overcommit

MIB = 1 << 20
GIB = 1 << 30


class Guest:
    def __init__(self, root: Path, mode: str, kbytes: str = "0", ratio: str = "50") -> None:
        self.root, self.said = root, []
        self.settings = root / "proc/sys/vm"
        self.settings.mkdir(parents=True)
        self.write(overcommit_memory=mode, overcommit_kbytes=kbytes, overcommit_ratio=ratio)
        self.overcommit = self.agent()

    def agent(self, **options: bool) -> Overcommit:
        return Overcommit(str(self.root), lambda *line: self.said.append(line), **options)

    def write(self, **values: str) -> None:
        for name, value in values.items():
            (self.settings / name).write_text(value + "\n")

    def read(self, name: str) -> str:
        return (self.settings / name).read_text().strip()


def test_a_heuristic_kernel_promises_everything_while_it_is_managed_and_refuses_again_afterwards(tmp_path):
    guest = Guest(tmp_path, mode="0")
    guest.overcommit.keep(4 * GIB, 0)
    assert guest.read("overcommit_memory") == "1"
    guest.overcommit.restore()
    assert guest.read("overcommit_memory") == "0"
    assert not (tmp_path / "run/dynmem-agent/overcommit").exists()


def test_a_strict_kernel_has_the_commit_limit_of_its_maximum(tmp_path):
    guest = Guest(tmp_path, mode="2", ratio="80")
    guest.overcommit.keep(2 * GIB, 100 * MIB)
    assert guest.read("overcommit_memory") == "2"
    assert int(guest.read("overcommit_kbytes")) == (2 * GIB - 100 * MIB) // 1024 * 80 // 100
    # A larger maximum is followed; the kernel shows a ratio of 0 as long as KiB are set.
    guest.write(overcommit_ratio="0")
    guest.overcommit.keep(4 * GIB, 100 * MIB)
    assert int(guest.read("overcommit_kbytes")) == (4 * GIB - 100 * MIB) // 1024 * 80 // 100
    guest.overcommit.restore()
    assert guest.read("overcommit_ratio") == "80"


@pytest.mark.parametrize(
    ("meminfo", "huge"),
    [
        ("HugePages_Total: 512\nHugepagesize: 2048 kB\nHugetlb: 3145728 kB\n", 3 * GIB),  # of two sizes
        ("HugePages_Total: 512\nHugepagesize: 2048 kB\n", GIB),
        ("HugePages_Total: 0\nHugepagesize: 2048 kB\nHugetlb: 0 kB\n", 0),
        ("HugePages_Total: many\n", 0),
        ("HugePages_Total: 512\nHugepagesize: 2048 kB\nHugetlb: 9999999999 kB\n", 4 * GIB),
    ],
)
def test_a_strict_kernel_promises_no_memory_that_lies_in_huge_pages(tmp_path, meminfo, huge):
    guest = Guest(tmp_path, mode="2", ratio="80")
    (tmp_path / "proc/meminfo").write_text(meminfo)
    guest.overcommit.keep(4 * GIB, 0)
    assert int(guest.read("overcommit_kbytes")) == (4 * GIB - huge) // 1024 * 80 // 100


def test_a_killed_agents_settings_are_put_back_by_the_next_one(tmp_path):
    guest = Guest(tmp_path, mode="0")
    guest.overcommit.keep(GIB, 0)
    guest.agent().restore()
    assert guest.read("overcommit_memory") == "0"


def test_an_agent_that_comes_after_a_killed_one_still_knows_what_was_there_first(tmp_path):
    guest = Guest(tmp_path, mode="2", ratio="60")
    guest.overcommit.keep(GIB, 0)
    heir = guest.agent()
    guest.write(overcommit_ratio="0")
    heir.keep(2 * GIB, 0)
    heir.restore()
    assert guest.read("overcommit_ratio") == "60"


def test_whoever_changes_the_setting_meanwhile_has_the_last_word(tmp_path):
    guest = Guest(tmp_path, mode="0")
    guest.overcommit.keep(GIB, 0)
    guest.write(overcommit_memory="2")
    guest.overcommit.restore()
    assert guest.read("overcommit_memory") == "2"
    again = Guest(tmp_path / "again", mode="0")
    again.overcommit.keep(GIB, 0)
    again.write(overcommit_memory="0")
    again.overcommit.keep(GIB, 0)
    assert again.read("overcommit_memory") == "0"


@pytest.mark.parametrize(("mode", "kbytes"), [("1", "0"), ("2", "500000"), ("x", "0")])
def test_what_needs_no_help_or_is_somebodys_figure_is_left_alone(tmp_path, mode, kbytes):
    guest = Guest(tmp_path, mode=mode, kbytes=kbytes)
    guest.overcommit.keep(4 * GIB, 0)
    assert (guest.read("overcommit_memory"), guest.read("overcommit_kbytes")) == (mode, kbytes)
    guest.overcommit.restore()
    assert guest.read("overcommit_kbytes") == kbytes


def test_an_administrator_can_have_it_left_alone(tmp_path):
    guest = Guest(tmp_path, mode="0")
    guest.agent(allowed=overcommit.wanted({"DYNMEM_OVERCOMMIT": "leave"})).keep(4 * GIB, 0)
    assert guest.read("overcommit_memory") == "0"
    assert overcommit.wanted({})


def test_a_setting_that_cannot_be_written_is_told_once(tmp_path):
    guest = Guest(tmp_path, mode="0")
    (guest.settings / "overcommit_memory").unlink()
    (guest.settings / "overcommit_memory").mkdir()  # not even root writes this
    guest.write(overcommit_kbytes="0")
    agent = guest.agent()
    agent._read = lambda name: "0"
    for _ in range(3):
        agent.keep(GIB, 0)
    assert [line[1] for line in guest.said] == ["overcommit"]


@pytest.mark.parametrize(
    "damage",
    ["", "overcommit_memory", "shmmax 1 2\n", "overcommit_memory 1\n", "\xff\xfe", "a b c d e\n" * 9999],
)
def test_a_damaged_memory_of_what_was_there_changes_nothing(tmp_path, damage):
    guest = Guest(tmp_path, mode="1")
    before = tmp_path / "run/dynmem-agent/overcommit"
    before.parent.mkdir(parents=True)
    before.write_text(damage, encoding="latin-1")
    guest.overcommit.restore()
    assert guest.read("overcommit_memory") == "1"


def test_an_agent_that_comes_after_a_killed_one_follows_a_maximum_that_changes(tmp_path):
    guest = Guest(tmp_path, mode="2", ratio="60")
    guest.overcommit.keep(GIB, 0)
    guest.write(overcommit_ratio="0")  # so the kernel shows it while KiB are set
    heir = guest.agent()
    heir.keep(2 * GIB, 0)
    assert int(guest.read("overcommit_kbytes")) == 2 * GIB // 1024 * 60 // 100
    heir.restore()
    assert guest.read("overcommit_ratio") == "60"


def test_a_full_disk_costs_nothing_of_what_is_remembered(tmp_path, monkeypatch):
    guest = Guest(tmp_path, mode="2", ratio="60")
    guest.overcommit.keep(GIB, 0)
    kept = (tmp_path / "run/dynmem-agent/overcommit").read_text()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.rename", full)
    guest.overcommit.keep(2 * GIB, 0)
    assert guest.read("overcommit_kbytes") == str(2 * GIB // 1024 * 60 // 100)
    assert (tmp_path / "run/dynmem-agent/overcommit").read_text() == kept
    guest.overcommit.restore()
    assert guest.read("overcommit_ratio") == "60"


def test_where_nothing_can_be_written_down_the_agent_itself_still_knows(tmp_path):
    guest = Guest(tmp_path, mode="0")
    (tmp_path / "run").write_text("no directory, as on a root that cannot be written")
    guest.overcommit.keep(GIB, 0)
    assert guest.read("overcommit_memory") == "1"
    guest.overcommit.restore()
    assert guest.read("overcommit_memory") == "0"


def test_what_was_there_is_written_down_before_anything_is_changed(tmp_path):
    """An agent that is killed in between leaves nothing that nobody puts back."""
    guest = Guest(tmp_path, mode="0")
    seen = []
    write = guest.overcommit._try_write

    def look(name: str, value: str) -> bool:
        seen.append((tmp_path / "run/dynmem-agent/overcommit").read_text())
        return write(name, value)

    guest.overcommit._try_write = look
    guest.overcommit.keep(GIB, 0)
    assert seen == ["overcommit_memory 1 0\n"]


def test_nothing_of_a_killed_agent_is_left(tmp_path):
    guest = Guest(tmp_path, mode="0")
    guest.overcommit.keep(GIB, 0)
    Maximum(str(tmp_path)).show(GIB)
    assert overcommit.main(str(tmp_path)) == 0
    assert guest.read("overcommit_memory") == "0"
    assert os.listdir(tmp_path / "run/dynmem-agent") == []
