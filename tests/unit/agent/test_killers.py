"""Programs that kill at a share of MemTotal are found by name, and their share is read."""

import os
from pathlib import Path

import pytest

from agent.killers import DEFAULT_PERCENT, Killers, find, kill_percent, nohang_percent

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


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("soft_threshold_min_mem = 5 %\n", 5),
        ("## soft_threshold_min_mem = 8 %\nsoft_threshold_min_mem=3.2%", 4),
        ("soft_threshold_min_mem = 410 M", 11),  # of 4 GiB, rounded up
        ("hard_threshold_min_mem = 2 %\nmem_min_sigterm = 9 %", 9),  # as releases before 0.2 name it
        ("soft_threshold_min_mem = 5", DEFAULT_PERCENT),
        ("soft_threshold_min_mem = ² %", DEFAULT_PERCENT),
        ("soft_threshold_min_mem =", DEFAULT_PERCENT),
        ("soft_threshold_min_mem = -5 %", DEFAULT_PERCENT),
        ("soft_threshold_min_mem = 400 %", 100),
        ("", DEFAULT_PERCENT),
    ],
)
def test_the_share_at_which_nohang_kills_is_read_from_its_configuration(text, percent):
    assert nohang_percent(text, 4 * GIB) == percent


@pytest.mark.parametrize(
    "arguments", [("-c", "/etc/mine.conf"), ("--config", "/etc/mine.conf"), ("--config=/etc/mine.conf",)]
)
def test_nohang_is_asked_for_the_configuration_that_it_was_started_with(tmp_path, arguments):
    process(tmp_path, 9, "nohang", "/usr/sbin/nohang", "--monitor", *arguments)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/mine.conf").write_text("soft_threshold_min_mem = 6 %\n")
    assert find(str(tmp_path), 4 * GIB) == Killers(("nohang",), 6)


def test_the_highest_share_counts_and_who_has_none_is_named_all_the_same(tmp_path):
    process(tmp_path, 9, "nohang", "/usr/sbin/nohang")
    process(tmp_path, 10, "earlyoom", "/usr/bin/earlyoom", "-m", "4")
    process(tmp_path, 11, "bustd", "/usr/bin/bustd")
    process(tmp_path, 12, "kubelet", "/usr/bin/kubelet")
    assert find(str(tmp_path), 4 * GIB) == Killers(
        ("bustd", "earlyoom", "kubelet", "nohang"), DEFAULT_PERCENT
    )


@pytest.mark.parametrize("name", ["k3s-server", "k3s-agent", "kubelite"])
def test_a_kubelet_within_another_program_is_one(tmp_path, name):
    process(tmp_path, 12, name, f"/usr/local/bin/{name}")
    assert find(str(tmp_path), 4 * GIB) == Killers(("kubelet",), 0)


def test_a_pipe_in_the_place_of_a_configuration_is_not_waited_for(tmp_path):
    process(tmp_path, 9, "nohang", "/home/mallory/nohang", "-c", "/pipe")
    os.mkfifo(tmp_path / "pipe")
    assert find(str(tmp_path), 4 * GIB).percent == DEFAULT_PERCENT
