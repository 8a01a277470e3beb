"""Who may do what, and who did it: peer credentials, the socket for viewers, and files for us alone."""

import asyncio
import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest
import structlog

from host_controller.api import client, peer
from host_controller.api.client import Client, RequestRefused
from host_controller.api.peer import UNKNOWN, Peer, _login_uid
from host_controller.api.server import Api
from host_controller.config import ConfigError, Problem, parse
from host_controller.control.remembered import Remembered
from host_controller.control.state_dir import StateDir
from host_controller.core.model import Settings
from host_controller.records.history_file import HistoryFile
from host_controller.records.recording import Recorder
from host_controller.units import GIB
from tests.support.serving import raw, request, served
from tests.support.starts import xml
from tests.support.virtual import Host, aside, run, until


def test_whoever_logged_in_is_named_beside_the_user_that_acts(tmp_path: Path) -> None:
    for pid, found in ((1, "0\n"), (2, "4294967295"), (3, "x")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "loginuid").write_text(found)
    assert _login_uid(1, 1000, tmp_path) == 0
    assert [_login_uid(pid, uid, tmp_path) for pid, uid in ((1, 0), (2, 0), (3, 0), (4, 0))] == [None] * 4
    alice = Peer("uid 0", 0, "root", 7, "cockpit-bridge", "alice")
    assert str(alice) == "alice as root (uid 0, cockpit-bridge 7)"
    assert alice.detail()["by_login"] == "alice"
    assert "by_login" not in Peer("uid 0", 0, "root", 7).detail()


def test_a_server_of_names_that_does_not_answer_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a directory that the host cannot reach."""
    answers = threading.Event()
    monkeypatch.setattr(peer.pwd, "getpwuid", lambda uid: answers.wait())

    async def story() -> list[str]:
        async with served(Host(), tmp_path) as (controller, client):
            pausing = asyncio.create_task(asyncio.to_thread(client.post, "pause"))
            await until(lambda: controller.pausing.paused_all and pausing.done(), "the change and its answer")
            answers.set()
            return [one.text for one in controller.journal.entries() if one.topic == "operator"]

    (text,) = run(story())
    assert text.startswith(f"{UNKNOWN} (uid {os.getuid()}, ")


def test_every_change_names_who_made_it_in_events_and_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "NAME_SECONDS", 1e6)  # of virtual time, in which a thread needs none

    def reload() -> None:
        """It is always right."""

    async def story() -> list[dict[str, object]]:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path, reload) as (_, client):
            await asyncio.sleep(1)
            for steps in (
                ("vms", "web", "pause"),
                ("vms", "web", "resume"),
                ("pause",),
                ("resume",),
                ("reload",),
            ):
                await aside(client.post, *steps)
            posting = asyncio.create_task(
                asyncio.to_thread(raw, tmp_path, request("POST /v1/admission", xml("new")))
            )
            while not posting.done():  # noqa: ASYNC110 # it answers in real time, in a thread
                await asyncio.sleep(0.1)
            await aside(client.post, "admission", "new", "stopped")
            events = await aside(lambda: list(client.follow("events")))
            return [one for one in events if one["topic"] in ("operator", "admission")]

    with structlog.testing.capture_logs() as said:
        found = run(story())
    texts = [str(one["text"]) for one in found]
    for what in ("paused web", "resumed web", "paused all VMs", "resumed all VMs", "configuration read again",
                 "gave back what was reserved for new"):  # fmt: skip
        [about] = [one for one in found if what in str(one["text"])]
        assert f"(uid {os.geteuid()}, " in str(about["text"])
        assert about["detail"]["by_uid"] == os.geteuid()  # type: ignore[index]
        assert about["detail"]["by_pid"] == os.getpid()  # type: ignore[index]
        assert any(what in one["event"] for one in said)
    [admitted] = [one for one in found if "may start" in str(one["text"])]
    assert admitted["detail"]["by_uid"] == os.geteuid(), texts  # type: ignore[index]


def test_a_signal_and_a_refused_reload_are_named_too(tmp_path: Path) -> None:
    async def story() -> None:
        def reload() -> None:
            if wrong:
                raise ConfigError("x", [Problem("a", "b", "c")])

        async with Host().controller() as controller:
            api = Api(controller, reload)
            wrong = False
            api.reload("a signal (SIGHUP)")
            wrong = True
            with pytest.raises(ConfigError):
                api.reload("root (uid 0, dynmem 7)")
            texts = [one.text for one in controller.journal.entries()]
            assert texts == ["a signal (SIGHUP) had the configuration read again"]

    with structlog.testing.capture_logs() as said:
        run(story())
    assert any(one.get("by") == "root (uid 0, dynmem 7)" for one in said)


def test_on_the_viewers_socket_everything_is_seen_and_nothing_changed(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with host.controller() as controller:
            api = Api(controller, lambda: None)
            await api.start(tmp_path / "control.sock")
            await api.start_view(tmp_path / "view.sock")
            await asyncio.sleep(1)
            client = Client(str(tmp_path / "view.sock"))
            try:
                assert stat.S_IMODE((tmp_path / "view.sock").stat().st_mode) == 0o660
                assert (await aside(client.get, "vms", "web"))["name"] == "web"
                assert (await aside(client.get, "status"))["vms"]
                for steps in (("pause",), ("vms", "web", "pause"), ("reload",), ("admission",),
                              ("admission", "web", "stopped")):  # fmt: skip
                    with pytest.raises(RequestRefused, match="for those who look") as refused:
                        await aside(client.post, *steps)
                    assert "control socket" in str(refused.value)
                assert not controller.pausing.paused_all
                assert not controller.pausing.paused
            finally:
                await api.stop()
        assert not (tmp_path / "view.sock").exists()

    run(story())


def test_the_configuration_says_where_viewers_are_listened_to() -> None:
    assert str(parse(b"").view_path) == "/run/dynmem/view.sock"
    assert str(parse(b'[paths]\nstate_dir = "/run/x"').view_path) == "/run/x/view.sock"
    assert str(parse(b'[paths]\nview_socket = "/run/y/v.sock"').view_path) == "/run/y/v.sock"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_state_history_and_recordings_are_ours_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        state = StateDir(tmp_path / "run" / "dynmem")
        state.open()
        state.save(Remembered(paused=("uuid",)))
        state.close()
        file = HistoryFile(tmp_path / "lib" / "dynmem" / "history.sqlite")
        file.write([("entry", (1.0, "notice", "gone", None, None, "x", None))])
        beside = list((tmp_path / "lib" / "dynmem").iterdir())
        assert [mode(one) for one in beside] == [0o600] * len(beside)
        file.close()
        Recorder(tmp_path / "recording", Settings(GIB), 0.0).close()
    finally:
        os.umask(before)
    assert [mode(one) for one in (tmp_path / "run" / "dynmem").iterdir()] == [0o600, 0o600]
    assert mode(tmp_path / "run" / "dynmem") == 0o711
    assert mode(tmp_path / "lib" / "dynmem") == 0o700
    assert mode(tmp_path / "recording") == 0o600


def test_files_that_were_there_are_ours_alone_from_then_on_and_a_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_text("before")
    path.chmod(0o666)
    Recorder(path, Settings(GIB), 0.0).close()
    assert mode(path) == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        Recorder(tmp_path / "link", Settings(GIB), 0.0)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("listens", [False, True])
def test_who_may_not_use_the_socket_is_told_that_also_where_nobody_may_only_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listens: bool
) -> None:
    """Not that no controller runs. A socket that a dead one has left is there, and refuses."""
    control, view = tmp_path / "control.sock", tmp_path / "view.sock"
    if listens:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(view))
    monkeypatch.delenv(client.SOCKET_VARIABLE, raising=False)
    monkeypatch.setattr(client, "DEFAULT_SOCKET", str(control))
    monkeypatch.setattr(client, "VIEW_SOCKET", str(view))
    connect = client._UnixConnection._connect

    def ours_alone(self: client._UnixConnection, end: float) -> None:
        if self._path == str(control):
            raise PermissionError(errno.EACCES, "Permission denied")
        connect(self, end)

    monkeypatch.setattr(client._UnixConnection, "_connect", ours_alone)
    with pytest.raises(client.ControllerUnreachable, match=f"you may not use {control}"):
        Client().get("status")
