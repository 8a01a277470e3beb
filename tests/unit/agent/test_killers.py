"""Programs that kill at a share of MemTotal are found by name, and their share is read."""

from pathlib import Path

import pytest

from agent.killers import DEFAULT_PERCENT, Killers, find, kill_percent

GIB = 1 << 30


def process(root: Path, pid: int, name: str, *arguments: str) -> None:
    directory = root / "proc" / str(pid)
    directory.mkdir(parents=True)
    (directory / "comm").write_text(name + "\n")
    (directory / "cmdline").write_bytes("\0".join(arguments).encode() + b"\0")


@pytest.mark.parametrize(
    ("arguments", "percent"),
    [
        ("", DEFAULT_PERCENT),
        ("-r 3600 -n --avoid '(^|/)(init)$'", DEFAULT_PERCENT),
        ("-m 5", 5),
        ("-m5", 5),
        ("-m 4,2 -s 100", 4),
        ("-M 409600,300000", 10),  # KiB of 4 GiB, rounded up
        ("-m 3 -M 409600", 3),  # the lower one takes effect
        ("-m", DEFAULT_PERCENT),
        ("-m nonsense", DEFAULT_PERCENT),
        ("-m ²", DEFAULT_PERCENT),  # a digit to isdigit(), and no number to int()
        ("-m 12.5,5", 13),
        ("-m 4.", 4),
        ("-m 250", 100),
        ("-M 99999999999999999999999999999", DEFAULT_PERCENT),
    ],
)
def test_the_share_at_which_earlyoom_kills_is_read_from_its_arguments(arguments, percent):
    assert kill_percent(["/usr/bin/earlyoom", *arguments.split()], 4 * GIB) == percent


def test_what_kills_is_found_among_processes_that_come_and_go(tmp_path):
    process(tmp_path, 1, "systemd", "/sbin/init")
    process(tmp_path, 77, "earlyoom", "/usr/bin/earlyoom", "-m", "7")
    process(tmp_path, 78, "systemd-oomd", "/lib/systemd/systemd-oomd")
    (tmp_path / "proc/99").mkdir()  # it has ended meanwhile
    (tmp_path / "proc/meminfo").write_text("")
    assert find(str(tmp_path)) == Killers(("earlyoom", "systemd-oomd"), 7)


def test_a_guest_without_such_a_program_has_no_share(tmp_path):
    process(tmp_path, 1, "earlyoomish", "/usr/bin/earlyoom")
    assert find(str(tmp_path)) == Killers()
    assert find(str(tmp_path / "nothing")) == Killers()
