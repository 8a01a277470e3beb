"""A host is asked again over the line that is there, and is believed no longer than if there were none."""

import asyncio
import shutil
import socket
import ssl
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from host_controller.api.door import Connection
from host_controller.api.fleet import IDLE_SECONDS, TRUSTED_SECONDS
from host_controller.api.server import Api
from host_controller.credentials import Credentials, CredentialsError
from host_controller.fleet import addresses, lines
from host_controller.fleet.arbiter import TURN_SECONDS
from host_controller.fleet.certificates import make_host
from host_controller.fleet.expiry import DAY
from host_controller.fleet.hosts import Hosts
from tests.support.virtual import Host, aside, run, until
from tests.unit.fleet.authority import credentials
from tests.unit.fleet.test_hosts import listening


@pytest.fixture
def here(tmp_path: Path) -> Credentials:
    return credentials(tmp_path / "ours")


async def asked(hosts: Hosts) -> str | None:
    """Ask the host; why it is silent."""
    _, silent = await aside(hosts.figures, ["localhost"])
    return silent.get("localhost")


def inside(api: Api) -> list[Connection]:
    """Connections that the host has."""
    assert api._fleet is not None
    return list(api._fleet._door._inside)


def test_a_host_is_asked_again_over_the_same_line_and_it_stays_from_turn_to_turn(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(), here) as (_, api, port):
            hosts = Hosts(here, port)
            assert await asked(hosts) is None
            (first,) = inside(api)
            for _ in range(3):
                await asyncio.sleep(3 * TURN_SECONDS)
                assert await asked(hosts) is None
                assert inside(api) == [first]

    run(story())


def test_a_line_that_the_host_has_ended_costs_no_answer(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(), here) as (_, api, port):
            hosts = Hosts(here, port)
            assert await asked(hosts) is None
            await asyncio.sleep(IDLE_SECONDS + 1)
            await until(lambda: inside(api) == [], "nobody has asked for long")
            assert await asked(hosts) is None
            assert len(inside(api)) == 1

    run(story())


def test_a_host_that_goes_away_is_silent_and_believed_when_it_comes_back(here: Credentials) -> None:
    async def story() -> None:
        host = Host()
        async with host.controller() as controller:
            api = Api(controller, lambda: None)
            port = await api.start_fleet("localhost", 0, here)
            hosts = Hosts(here, port)
            assert await asked(hosts) is None
            await api.stop()
            assert "does not answer" in str(await asked(hosts))
            api = Api(controller, lambda: None)
            await api.start_fleet("localhost", port, here)
            assert await asked(hosts) is None
            await api.stop()

    run(story())


def test_whoever_was_trusted_before_the_hosts_credentials_were_replaced_has_to_show_anew_who_it_is(
    here: Credentials, tmp_path: Path
) -> None:
    new = credentials(tmp_path / "new")
    for name in ("certificate", "key", "authority"):
        shutil.copy(getattr(here, name), tmp_path / name)
    old = Credentials(*(tmp_path / name for name in ("certificate", "key", "authority")))

    async def story() -> None:
        async with listening(Host(), here) as (_, api, port):
            hosts = Hosts(old, port)
            assert await asked(hosts) is None
            for name in ("certificate", "key", "authority"):
                shutil.copy(getattr(new, name), getattr(here, name))
            assert api._fleet is not None
            await api._fleet.look()
            assert "certificate is not believed" in str(await asked(hosts))
            assert await asked(Hosts(new, port)) is None

    run(story())


def test_a_host_lets_go_in_time_whoever_asks_again_and_again(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(), here) as (_, api, port):
            hosts = Hosts(here, port)
            assert await asked(hosts) is None
            (first,) = inside(api)
            turn = IDLE_SECONDS / 2
            for _ in range(int(TRUSTED_SECONDS / turn) + 2):
                await asyncio.sleep(turn)
                assert await asked(hosts) is None
            assert first not in inside(api)

    run(story())


def test_whoever_comes_back_shows_its_certificate_anew_as_it_may_have_expired(here: Credentials) -> None:
    context = here.client()

    def come(port: int, session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession]:
        raw = socket.create_connection(("localhost", port), timeout=60)
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as one:
            one.sendall(b"GET /v1/figures HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert one.recv(64).startswith(b"HTTP/1.1 200")
            return one.session_reused, one.session

    async def story() -> None:
        async with listening(Host(), here) as (_, _, port):
            _, session = await aside(come, port, None)
            assert not session.has_ticket
            reused, _ = await aside(come, port, session)
            assert not reused

    run(story())


def test_our_own_new_credentials_are_shown_at_once(here: Credentials, tmp_path: Path) -> None:
    def replace() -> None:
        make_host(tmp_path / "ours", "localhost")

    async def story() -> None:
        async with listening(Host(), here) as (_, api, port):
            hosts = Hosts(here, port)
            assert await asked(hosts) is None
            (first,) = inside(api)
            await aside(replace)
            assert await asked(hosts) is None
            assert inside(api)[-1] is not first

    run(story())


def test_an_arbiter_whose_credentials_are_half_replaced_goes_on_with_the_old_ones(
    here: Credentials, tmp_path: Path
) -> None:
    new = credentials(tmp_path / "new")

    async def story() -> None:
        async with listening(Host(), here) as (_, api, port):
            hosts = Hosts(Credentials.within(tmp_path / "asks"), port)
            shutil.copytree(here.key.parent, tmp_path / "asks")
            assert await asked(hosts) is None
            (first,) = inside(api)
            shutil.copy(new.certificate, tmp_path / "asks/host.pem")
            with structlog.testing.capture_logs() as logs:
                assert await asked(hosts) is None
                assert await asked(hosts) is None
            assert len([one for one in logs if "cannot be used" in one["event"]]) == 1
            assert inside(api) == [first]

    run(story())


def test_a_key_that_others_could_read_is_taken_once_its_mode_is_right(here: Credentials) -> None:
    before = here.stamp()
    here.key.chmod(0o644)
    assert here.stamp() != before
    with pytest.raises(CredentialsError):
        here.server()
    here.key.chmod(0o600)
    assert here.stamp() == before


@pytest.mark.parametrize(
    "later",
    [{"monotonic": lines.KEPT_SECONDS}, {"time": 400 * DAY}],
    ids=["the line is old", "the certificate that was shown has expired"],
)
def test_a_line_is_not_kept_for_ever(
    here: Credentials, monkeypatch: pytest.MonkeyPatch, later: dict[str, float]
) -> None:
    async def story() -> None:
        async with listening(Host(), here) as (_, api, port):
            hosts = Hosts(here, port)
            assert await asked(hosts) is None
            (first,) = inside(api)
            clocks = {
                name: lambda name=name: getattr(time, name)() + later.get(name, 0.0)
                for name in ("monotonic", "time")
            }
            monkeypatch.setattr(lines, "time", SimpleNamespace(**clocks))
            assert await asked(hosts) is None
            assert inside(api)[-1] is not first

    run(story())


@pytest.mark.parametrize("hangs", [True, False])
def test_a_host_is_reached_where_it_was_while_no_name_server_answers(
    here: Credentials, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """Its cluster may run the VM that is the name server: it would start nowhere if no host were believed."""
    asked_for: list[str] = []
    monkeypatch.setattr(addresses, "LOOKUP_SECONDS", 0.2)
    over = threading.Event()

    def unanswered(host: str, *_: object, **__: object) -> list[Any]:
        asked_for.append(host)
        if hangs:
            over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def story() -> None:
        async with listening(Host(), here) as (_, _api, port):
            hosts = Hosts(here, port)
            assert await asked(hosts) is None
            with monkeypatch.context() as meanwhile:
                meanwhile.setattr(socket, "getaddrinfo", unanswered)
                for _ in range(3):
                    hosts._lines.only([])
                    assert await asked(hosts) is None
                assert len(asked_for) == (1 if hangs else 3), "one that hangs is enough"
                stranger = str(await asked(Hosts(here, port)))
                assert ("no name server answers" if hangs else "name resolution") in stranger
            over.set()

    run(story())


def test_of_a_host_that_lets_nobody_in_it_is_said_what_may_keep_us_out(
    here: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its unit does until its network is allowed there: what is sent is dropped without a word."""

    def drop(one: socket.socket, *_: object) -> socket.socket:
        one.close()
        raise TimeoutError

    monkeypatch.setattr(addresses, "_connected", drop)
    _, silent = Hosts(here, 8686).figures(["localhost"])
    assert silent["localhost"].startswith("port 8686 there cannot be reached: IPAddressAllow=")


def test_a_host_that_has_another_address_by_now_is_reached_there(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(), here) as (_, _api, port):
            hosts = Hosts(here, port)
            gone = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]
            hosts._lines._addresses._known["localhost"] = gone
            assert await asked(hosts) is None

    run(story())


def test_a_host_that_is_no_longer_asked_has_no_line(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(), here) as (_, api, port):
            hosts = Hosts(here, port)
            assert await asked(hosts) is None
            await aside(hosts.figures, [])
            await until(lambda: inside(api) == [], "it is gone")

    run(story())


def test_a_host_that_ends_a_line_late_does_not_hold_us_twice(
    here: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the limit that is left when the new line is asked, the old one has taken what it took."""
    limit, late = 30.0, 1.0
    listener = socket.create_server(("localhost", 0))

    def serve() -> None:
        kept = here.server().wrap_socket(listener.accept()[0], server_side=True)
        kept.recv(4096)
        kept.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        kept.recv(4096)
        time.sleep(late)
        kept.close()
        again = here.server().wrap_socket(listener.accept()[0], server_side=True)
        again.recv(4096)
        again.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    limits: list[float] = []
    asking = lines.ask

    def watched(*words: Any, seconds: float, **more: Any) -> Any:
        limits.append(seconds)
        return asking(*words, seconds=seconds, **more)

    monkeypatch.setattr(lines, "ask", watched)
    threading.Thread(target=serve, daemon=True).start()
    found = lines.Lines(listener.getsockname()[1])
    with listener:
        context = here.client()
        for _ in range(2):
            assert found.look(context, "localhost", "/", limit).status == 200
    first, kept, again = limits
    assert first < limit
    assert kept == limit
    assert again <= limit - late
