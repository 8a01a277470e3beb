"""`check-config` refuses what `run` would refuse on this machine, by the same questions."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from host_controller.cli.manage import check_config
from host_controller.config import ConfigError, parse
from host_controller.control.state_dir import AlreadyRunning, StateDir
from host_controller.host import exclusive
from host_controller.preflight import _free_addresses, _own_addresses, check, problems_of, source

RUN = "from host_controller.cli import main; main()"


def text(path: Path, more: str = "", host: str = "") -> str:
    return (
        f'[libvirt]\nuri = "test:///default"\n[host]\n{host}\n'
        f'[paths]\nstate_dir = "{path}/run"\nhistory = "{path}/history.sqlite"\n{more}'
    )


def found(written: str) -> dict[str, str]:
    return {one.key: one.found for one in problems_of(parse(written.encode()))}


def test_a_configuration_that_can_be_used_here_has_no_problems(tmp_path: Path) -> None:
    assert found(text(tmp_path)) == {}
    assert not (tmp_path / "run").exists(), "nothing is made by asking"


@pytest.mark.parametrize("host", ['capacity = "9TiB"', 'reserve = "9TiB"', 'keep_ready = "9TiB"'])
def test_memory_that_this_machine_does_not_have_is_refused_by_both(tmp_path: Path, host: str) -> None:
    written = text(tmp_path, host=host)
    assert list(found(written)) == [f"host.{host.split()[0]}"]
    with pytest.raises(ConfigError, match="the host has"):
        check(parse(written.encode()))
    file = tmp_path / "dynmem.toml"
    file.write_text(written)
    done = CliRunner().invoke(check_config, [str(file)])
    assert done.exit_code != 0
    assert CliRunner().invoke(check_config, [str(file), "--offline"]).exit_code == 0


@pytest.mark.parametrize(
    ("uri", "wrong"),
    [
        ("qemu:///system", False),
        ("qemu+unix:///session?socket=/x/libvirt-sock", False),
        ("qemu:///", True),
        ("qemu:///sytem", True),
        ("quemu:///system", True),
        ("qemu+shh://host/system", True),
        ("lxc:///system", True),
        ("my-alias", True),
        ("/run/libvirt/libvirt-sock", True),
    ],
)
def test_an_address_that_leads_to_no_qemu_of_libvirts_is_refused(
    tmp_path: Path, uri: str, wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusive, "own_directory", lambda: tmp_path)
    assert ("libvirt.uri" in found(text(tmp_path).replace("test:///default", uri))) is wrong


def test_the_memory_of_another_machine_must_be_named(tmp_path: Path) -> None:
    remote = "qemu+ssh://other.example/system"
    assert "host.capacity" in found(text(tmp_path).replace("test:///default", remote))
    named = text(tmp_path, host='capacity = "900GiB"').replace("test:///default", remote)
    assert "host.capacity" not in found(named)


def test_paths_that_cannot_be_made_or_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for state in (f"{tmp_path}/file/run", "/proc/nothing/run"):
        assert "paths.state_dir" in found(text(tmp_path).replace(f"{tmp_path}/run", state)), state
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert (
        "leads nowhere"
        in found(text(tmp_path).replace(f"{tmp_path}/run", f"{tmp_path}/link/run"))["paths.state_dir"]
    )
    for name in (f"{tmp_path}/{'x' * 120}", f"{tmp_path}/file", f"{tmp_path}/file/sock", "/proc/nothing/s"):
        assert "paths.socket" in found(text(tmp_path, f'socket = "{name}"\n')), name
    os.mkfifo(tmp_path / "pipe")
    for name in (f"{tmp_path}/none", f"{tmp_path}/file", f"{tmp_path}/pipe", f"{tmp_path}", "/dev/zero"):
        assert "paths.meminfo" in found(text(tmp_path, f'meminfo = "{name}"\n')), name


@pytest.mark.parametrize("key", ["socket", "view_socket"])
def test_what_lies_where_a_socket_should_be_is_not_deleted_for_it(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("somebody's")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "directory", "link", "pipe", "file/below", "x" * 108):
        refused = found(text(tmp_path, f'{key} = "{tmp_path}/{name}"'))
        assert list(refused) == [f"paths.{key}"], name


@pytest.mark.parametrize(
    ("paths", "key"),
    [
        ('socket = "{}/a"\nview_socket = "{}/a"', "paths.view_socket"),
        ('view_socket = "{}/run/../run/control.sock"', "paths.view_socket"),
        ('socket = "{}/history.sqlite"', "paths.history"),
        ('socket = "{}/run/state.json"', "paths.socket"),
        ('view_socket = "{}/history.sqlite-wal"', "paths.history"),
        ('socket = "{}/history.sqlite-shm"', "paths.history"),
        ('socket = "{}/history.sqlite-journal"', "paths.history"),
    ],
)
def test_two_things_in_one_place_are_refused(tmp_path: Path, paths: str, key: str) -> None:
    assert list(found(text(tmp_path, paths.replace("{}", str(tmp_path))))) == [key]


@pytest.mark.parametrize("address", ["a..b:80", "x." + "y" * 64 + ":80"])
def test_a_name_that_no_host_can_have_is_refused(tmp_path: Path, address: str) -> None:
    assert list(found(text(tmp_path, f'[http]\nlisten = "{address}"'))) == ["http.listen"]


def test_an_address_that_somebody_else_has_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "http.listen" in found(text(tmp_path, f'[http]\nlisten = "127.0.0.1:{port}"\n'))
    assert found(text(tmp_path, f'[http]\nlisten = "127.0.0.1:{port}"\n')) == {}
    assert "http.listen" in found(text(tmp_path, '[http]\nlisten = "203.0.113.7:9876"\n'))
    assert "http.listen" in found(text(tmp_path, '[http]\nlisten = "no.such.name.invalid:9876"\n'))


@pytest.mark.parametrize(
    ("http", "fleet", "together"),
    [
        ("127.0.0.1:9876", "127.0.0.1:9876", False),
        ("127.0.0.1:9876", "0.0.0.0:9876", False),
        ("localhost:9876", "127.0.0.1:9876", False),
        ("127.0.0.1:9876", "127.0.0.2:9876", True),
        ("127.0.0.1:9876", "127.0.0.1:9877", True),
        ("0.0.0.0:9876", "[::]:9876", True),
        ("[::1]:9876", "0.0.0.0:9876", True),
        ("[::1]:9876", "[::]:9876", False),
    ],
)
def test_the_two_listeners_do_not_share_a_place(
    tmp_path: Path, http: str, fleet: str, together: bool
) -> None:
    refused = found(text(tmp_path, f'[http]\nlisten = "{http}"\n[fleet]\nlisten = "{fleet}"\n'))
    assert ("fleet.listen" not in refused) is together


def test_a_history_where_no_file_can_be_is_refused_and_one_that_is_only_not_there_yet_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    for name, wrong in (("directory", True), ("file/below", True), ("file", False), ("new/history", False)):
        written = text(tmp_path).replace("history.sqlite", name)
        assert ("paths.history" in found(written)) is wrong, name
        assert "paths.history" not in found(f"{written}[history]\nenabled = false\n")


def test_a_history_by_a_link_or_in_the_place_of_something_else_is_refused_since_it_would_not_be_written(
    tmp_path: Path,
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere.sqlite")
    os.mkfifo(tmp_path / "pipe")
    by_link = parse(text(tmp_path).replace("history.sqlite", "link").encode())
    (problem,) = problems_of(by_link)
    assert (problem.key, problem.allowed) == (
        "paths.history",
        f"the file itself: {tmp_path}/elsewhere.sqlite",
    )
    for name in ("pipe", "run", "run/"):
        assert "paths.history" in found(text(tmp_path).replace("history.sqlite", name)), name


def test_an_address_that_comes_later_is_told_and_keeps_no_controller_from_starting(tmp_path: Path) -> None:
    """At boot the controller is there before its network, and before VMs start."""
    for listener in ("http", "fleet"):
        config = parse(text(tmp_path, f'[{listener}]\nlisten = "203.0.113.7:9876"\n').encode())
        assert [one.found for one in _own_addresses(config)] == [
            "203.0.113.7:9876, which this machine does not have now"
        ]
        assert list(_free_addresses(config)) == []


def test_paths_that_whoever_asks_may_not_look_at_and_names_that_cannot_be_are_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = text(tmp_path).replace("history.sqlite", "x" * 300)
    assert "too long" in found(long)["paths.history"]
    assert "directory" in found(text(tmp_path).replace(f"{tmp_path}/history.sqlite", "/"))["paths.history"]
    assert "too long" in found(text(tmp_path).replace("/run", f"/{'x' * 300}"))["paths.state_dir"]
    ask = os.stat

    def refused(path: Any, *more: Any, **named: Any) -> os.stat_result:
        if str(path).startswith(f"{tmp_path}/private/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return ask(path, *more, **named)

    (tmp_path / "private").mkdir()
    monkeypatch.setattr(os, "stat", refused)  # root may look everywhere
    assert found(text(tmp_path).replace("history.sqlite", "private/history.sqlite")) == {}
    hidden = found(text(tmp_path).replace("/run", "/private/run"))
    assert "Permission denied" in hidden["paths.state_dir"]


def test_a_state_directory_that_a_controller_holds_is_refused_but_not_to_that_controllers_own_file(
    tmp_path: Path,
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(text(tmp_path))
    state = StateDir(tmp_path / "run")
    state.open(source(mine))
    with pytest.raises(AlreadyRunning):
        StateDir(tmp_path / "run").open()
    config = parse(mine.read_bytes())
    assert [one.key for one in problems_of(config)] == ["paths.state_dir"]
    assert f"held by pid {os.getpid()}" in problems_of(config)[0].found
    assert problems_of(config, running_from=source(mine)) == []
    assert problems_of(config, running_from=source(tmp_path / "other.toml"))
    state.close()
    assert problems_of(config) == []


def test_run_refuses_with_the_same_words_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "dynmem.toml"
    file.write_text(
        text(tmp_path, '[http]\nlisten = "no.such.name.invalid:9876"\n', host='capacity = "9TiB"')
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", RUN, *words], capture_output=True, text=True, timeout=60, check=False
        )
        for words in (("run", "--config", str(file)), ("check-config", str(file)))
    ]
    assert [done.returncode for done in said] == [2, 2]
    for key in ("host.capacity", "http.listen"):
        assert all(key in done.stderr for done in said)
    assert not (tmp_path / "run").exists()
