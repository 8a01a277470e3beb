"""Who holds a guest's memory, from recorded trees of control groups and processes."""

import os

import pytest

from agent import holders
from agent.codec import encode
from agent.holders import Found, Steps, T
from agent.values import MAX_HOLDER_CHARS
from agent.wire import Held
from tests.unit.agent.record import add_group, add_process

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


def finished(steps: Steps[T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def services(root: str = "/") -> Found:
    return finished(holders.services(root))


def processes(root: str = "/", *total: int) -> Found:
    return finished(holders.processes(root, *total))[0]


def test_services_are_units_wherever_they_stand_and_groups_that_have_none_beneath(tmp_path):
    add_group(tmp_path, "system.slice", 900 * MIB)
    add_group(tmp_path, "system.slice/php-fpm.service", 500 * MIB)
    add_group(tmp_path, "system.slice/php-fpm.service/worker", 400 * MIB)
    add_group(tmp_path, "user.slice/user-1000.slice/user@1000.service", 200 * MIB)
    add_group(tmp_path, "machines/one", 300 * MIB)
    add_group(tmp_path, "init.scope", 10 * MIB)
    assert services(str(tmp_path)) == (
        ("php-fpm", 500 * MIB),
        ("one", 300 * MIB),
        ("user@1000", 200 * MIB),
        ("init", 10 * MIB),
    )


def test_file_cache_is_nobodys_memory_and_five_are_the_five_that_hold_most_without_it(tmp_path):
    for number in range(1, 9):
        add_group(tmp_path, f"s/cached{number}.service", (500 + number) * MIB, file_bytes=500 * MIB)
    add_group(tmp_path, "s/mysqld.service", 100 * MIB, file_bytes=20 * MIB)
    found = services(str(tmp_path))
    assert found[:2] == (("mysqld", 80 * MIB), ("cached8", 8 * MIB))
    assert [size for _, size in found] == [80 * MIB, 8 * MIB, 7 * MIB, 6 * MIB, 5 * MIB]


def test_groups_of_one_name_are_one_service(tmp_path):
    add_group(tmp_path, "a/web.service", 30 * MIB)
    add_group(tmp_path, "b/web.service", 20 * MIB, file_bytes=5 * MIB)
    assert services(str(tmp_path)) == (("web", 45 * MIB),)


def test_where_there_are_more_groups_than_are_looked_at_the_small_ones_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(holders, "_MOST_GROUPS", 10)
    add_group(tmp_path, "a.slice", 20 * MIB)
    for number in range(20):
        add_group(tmp_path, f"a.slice/u{number}.service", MIB)
    add_group(tmp_path, "z.slice/mysqld.service", 900 * MIB)
    (tmp_path / "sys/fs/cgroup/z.slice/memory.current").write_text(f"{900 * MIB}\n")
    assert services(str(tmp_path))[0] == ("mysqld", 900 * MIB)


def test_where_no_group_counts_memory_there_are_no_services(tmp_path):
    assert services(str(tmp_path)) == ()
    (tmp_path / "sys/fs/cgroup/memory/system.slice").mkdir(parents=True)
    assert services(str(tmp_path)) == ()


def test_where_process_1_is_in_no_group_others_are_in_none_either_and_there_are_no_services(tmp_path):
    add_group(tmp_path, "container", 300 * MIB)
    assert services(str(tmp_path)) == (("container", 300 * MIB),)
    (tmp_path / "proc/1/cgroup").write_text("4:memory:/x\n0::/\n")
    assert services(str(tmp_path)) == ()


def test_processes_of_one_name_are_one_program_and_files_are_nobodys(tmp_path):
    for pid in range(10, 14):
        add_process(tmp_path, pid, "php-fpm", pages=100, shared=5000)
    add_process(tmp_path, 20, "mysqld", pages=300)
    add_process(tmp_path, 2, "kthreadd", pages=0)
    (tmp_path / "proc/self").mkdir()
    assert processes(str(tmp_path)) == (("php-fpm", 400 * PAGE), ("mysqld", 300 * PAGE))


def test_what_forked_processes_share_makes_none_larger_than_the_guest(tmp_path):
    for pid in range(10, 20):
        add_process(tmp_path, pid, "postgres", pages=1000)
    assert processes(str(tmp_path), 5000 * PAGE) == (("postgres", 5000 * PAGE),)


def test_five_are_told_at_most(tmp_path):
    for pid in range(1, 10):
        add_process(tmp_path, pid, f"p{pid}", pages=pid)
        add_group(tmp_path, f"s/p{pid}.service", pid * MIB)
    assert [name for name, _ in processes(str(tmp_path))] == ["p9", "p8", "p7", "p6", "p5"]
    assert [name for name, _ in services(str(tmp_path))] == ["p9", "p8", "p7", "p6", "p5"]


@pytest.mark.parametrize(
    "name", ["\x1b[2J", "é" * 99, "", "   ", "a\nb", "docker-" + "3f" * 32, "\udcff", "<"]
)
def test_whatever_a_program_calls_itself_fits_a_line(name):
    plain = holders.holder_name(name)
    assert 1 <= len(plain) <= MAX_HOLDER_CHARS
    encode(Held(1, "processes", ((plain, MIB),)))


def test_a_process_or_group_that_goes_meanwhile_is_left_out(tmp_path):
    add_process(tmp_path, 1, "here", pages=1)
    (tmp_path / "proc/2").mkdir()
    add_group(tmp_path, "s/here.service", MIB)
    (tmp_path / "sys/fs/cgroup/s/gone.service").mkdir()
    (tmp_path / "sys/fs/cgroup/s/here.service/memory.stat").unlink()
    assert processes(str(tmp_path)) == (("here", PAGE),)
    assert services(str(tmp_path)) == (("here", MIB),)


def test_no_step_reads_more_than_two_small_files_however_many_groups_and_processes_there_are(
    tmp_path, monkeypatch
):
    for number in range(300):
        add_group(tmp_path, f"a.slice/u{number}.service", MIB, file_bytes=MIB // 2)
        add_process(tmp_path, number + 1, f"p{number}", pages=1)
    reads = []
    read = holders.read_file
    monkeypatch.setattr(holders, "read_file", lambda *of: reads.append(of) or read(*of))
    for steps in (holders.services(str(tmp_path)), holders.processes(str(tmp_path))):
        for _ in steps:
            assert len(reads) <= 2
            reads.clear()


def test_of_more_processes_than_are_looked_at_it_is_said_that_some_were_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(holders, "_MOST_PROCESSES", 3)
    for pid in range(1, 4):
        add_process(tmp_path, pid, "one", pages=1)
    assert finished(holders.processes(str(tmp_path)))[1] == "all"
    add_process(tmp_path, 4, "one", pages=1)
    assert finished(holders.processes(str(tmp_path))) == ((("one", 3 * PAGE),), "cut")


def test_threads_of_the_kernel_are_not_looked_at_but_in_a_container_process_2_is_a_program(
    tmp_path, monkeypatch
):
    for pid, pages in ((1, 1), (3, 0), (4, 0), (7, 5)):
        add_process(tmp_path, pid, f"p{pid}", pages=pages)
    add_process(tmp_path, 2, "kthreadd", pages=0)
    (tmp_path / "proc/2/statm").write_text("0 0 0 0 0 0 0\n")
    (tmp_path / "proc/2/task/2").mkdir(parents=True)
    (tmp_path / "proc/2/task/2/children").write_text("3 4 ")
    reads, read = [], holders.read_file
    monkeypatch.setattr(holders, "read_file", lambda *of: reads.append(of[0]) or read(*of))
    assert processes(str(tmp_path)) == (("p7", 5 * PAGE), ("p1", PAGE))
    assert not [path for path in reads if "/proc/3/" in path or "/proc/4/" in path]
    add_process(tmp_path, 2, "sh", pages=2)
    add_process(tmp_path, 4, "p4", pages=9)
    assert processes(str(tmp_path)) == (("p4", 9 * PAGE), ("p7", 5 * PAGE), ("sh", 2 * PAGE), ("p1", PAGE))


def test_where_the_kernel_hides_process_1_others_are_hidden_too_and_that_is_said(tmp_path):
    add_process(tmp_path, 7, "ours", pages=1)
    assert finished(holders.look(4, str(tmp_path), 1 << 40)) == Held(
        4, "processes", (("ours", PAGE),), "hidden"
    )


def test_where_process_1_is_hidden_a_unit_of_systemds_still_knows_that_all_are_in_groups(tmp_path):
    add_group(tmp_path, "system.slice/web.service", 5 * MIB)
    (tmp_path / "proc/1/cgroup").unlink()
    assert services(str(tmp_path)) == ()
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/dynmem-agent.service\n")
    assert finished(holders.look(1, str(tmp_path), 0)) == Held(1, "services", (("web", 5 * MIB),))


def test_of_the_kernel_that_runs_this_test_something_is_told():
    found = processes()
    assert found
    assert all(size > 0 for _, size in found)
    encode(Held(1, "processes", found))
    encode(Held(1, "services", services()))
