"""Hosts are asked over mutual TLS: who has no certificate of the authority neither asks nor is believed."""

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from host_controller.api.figures import vm_figures
from host_controller.api.fleet import MOST_HANDSHAKES
from host_controller.api.server import Api
from host_controller.control import promises
from host_controller.control.controller import Controller
from host_controller.core.interface import ConnectionChanged
from host_controller.core.model import HugePool, Limits, Unmanaged, VmConfig
from host_controller.core.operations.standstill import Stage, Standstill
from host_controller.core.operator_events import Reserve
from host_controller.credentials import Credentials, CredentialsError
from host_controller.errors import DynmemError, InputError
from host_controller.fleet.certificates import make_authority, make_host
from host_controller.fleet.core.model import Huge
from host_controller.fleet.errors import FleetError, HostSilent
from host_controller.fleet.expiry import DAY
from host_controller.fleet.hosts import Hosts, Promise
from host_controller.fleet.lines import Answer, Lines
from host_controller.fleet.reading import CLOCK_SECONDS, LARGEST_ANSWER, read_figures
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.units import GIB, MIB, TIB
from tests.support.virtual import Host, aside, run, until
from tests.unit.fleet.authority import credentials


@asynccontextmanager
async def listening(host: Host, own: Credentials) -> AsyncIterator[tuple[Controller, Api, int]]:
    async with host.controller() as controller:
        api = Api(controller, lambda: None)
        # The page and the figures carry the host's time of day; the lab's clock stands for it.
        port = await api.start_fleet("localhost", 0, own)
        try:
            yield controller, api, port
        finally:
            await api.stop()


class InHugePages(GuestSpec):
    """All of its RAM lies in the host's pool."""

    def config(self) -> VmConfig:
        return replace(super().config(), huge_page_bytes=2 * MIB, pinned="huge pages")


IN_PAGES = Huge(GIB, 2 * MIB)


async def promise(
    own: Credentials, port: int, vm: str, size_bytes: int, token: str = "ours", huge: Huge | None = None
) -> Promise:
    """Asked in a thread, while time passes: a promise waits for the books."""
    hosts = Hosts(own, port)
    task = asyncio.create_task(asyncio.to_thread(hosts.promise, "localhost", vm, size_bytes, token, huge))
    while not task.done():
        await asyncio.sleep(0.05)
        await aside(time.sleep, 0.01)
    return task.result()


@pytest.fixture
def here(tmp_path: Path) -> Credentials:
    return credentials(tmp_path / "ours")


def raw(own: Credentials, port: int, method: str, path: str) -> tuple[int, dict[str, object]]:
    answer = Lines(port).ask(own.client(), "localhost", method, path, 10.0)
    return answer.status, json.loads(answer.body)


def test_a_host_of_the_fleet_reads_figures(here: Credentials) -> None:
    async def story() -> None:
        host = Host(4 * GIB)
        host.vm("web")
        async with listening(host, here) as (controller, _, port):
            await asyncio.sleep(30)
            status, answer = await aside(raw, here, port, "GET", "/v1/figures")
            assert status == 200
            (vm,) = answer["vms"]  # type: ignore[misc]
            assert vm["name"] == "web"
            assert vm["settled"]
            assert vm["need_bytes"] + vm["beside_bytes"] <= vm["charge_bytes"]
            assert vm["arrival_bytes"] >= vm["charge_bytes"]
            assert answer["capacity_bytes"] == 4 * GIB
            assert controller.engine.headroom_bytes <= answer["admits_bytes"] <= 4 * GIB  # type: ignore[operator]

    run(story())


def test_a_vm_in_huge_pages_arrives_without_ordinary_memory_for_its_ram(here: Credentials) -> None:
    async def story() -> None:
        host = Host(4 * GIB)
        host.hypervisor.power_on(host.hypervisor.define(InHugePages("web", Limits(GIB, GIB, GIB))))
        async with listening(host, here) as (_, _, port):
            await asyncio.sleep(30)
            _, answer = await aside(raw, here, port, "GET", "/v1/figures")
            assert [one["arrival_bytes"] for one in answer["vms"]] == [64 * MIB]  # type: ignore[attr-defined]
            figures, _ = await aside(Hosts(here, port).figures, ["localhost"])
            assert [one.huge for one in figures["localhost"].vms] == [IN_PAGES]

    run(story())


def test_huge_pages_are_promised_once_of_what_their_pool_has_and_kept_when_that_is_renewed(
    here: Credentials,
) -> None:
    """Two VMs of a host are moved, and the pool of their destination has room for one."""

    async def story() -> None:
        host = Host(4 * GIB)
        seen, pool = host.hypervisor.host_facts, HugePool(2 * MIB, GIB, GIB)
        host.hypervisor.host_facts = lambda: replace(seen(), pools=(pool,))  # type: ignore[method-assign]
        async with listening(host, here) as (controller, _, port):
            await asyncio.sleep(30)
            books = controller.engine.ledger.reservations
            assert (await promise(here, port, "one", 64 * MIB, huge=IN_PAGES)).given
            assert (books["one"].size_bytes, books["one"].huge_bytes) == (64 * MIB, GIB)
            refused = await promise(here, port, "two", 64 * MIB, huge=IN_PAGES)
            assert not refused.given
            assert "1 GiB in huge pages of 2 MiB" in refused.said
            expires = books["one"].expires
            await asyncio.sleep(60)
            assert (await promise(here, port, "one", 64 * MIB, huge=IN_PAGES)).given
            await until(lambda: books["one"].expires > expires, "it is renewed")
            assert books["one"].huge_bytes == GIB
            assert not (await promise(here, port, "one", 64 * MIB, huge=Huge(2 * GIB, 2 * MIB))).given

    run(story())


def test_a_host_of_a_version_that_knows_no_huge_pages_is_asked_for_the_rest(here: Credentials) -> None:
    hosts = Hosts(here, 1)
    asked: list[str] = []

    def ask(_context: object, _host: str, _method: str, path: str, _seconds: float) -> Answer:
        asked.append(path.partition("?")[2])
        if "huge" in path:
            return Answer(400, b'{"code": "unknown-parameter", "message": "there is no parameter"}', 0.0)
        return Answer(200, b'{"admitted": true, "message": "it may come"}', 0.0)

    hosts._lines.ask = ask  # type: ignore[method-assign]
    assert hosts.promise("old", "web", 64 * MIB, "t", IN_PAGES).given
    pages = f"&huge={GIB}&page={2 * MIB}"
    assert asked == [f"bytes={64 * MIB}&token=t{pages}", f"bytes={64 * MIB}&token=t"]


def test_a_vm_whose_vcpus_stand_still_is_charged_whole_and_counted_on_for_nothing(here: Credentials) -> None:
    """No balloon of its moves: what it does not need cannot be taken for a start."""

    async def story() -> None:
        host = Host(4 * GIB)
        web = host.vm("web", limits=Limits(2 * GIB, 256 * MIB, 2 * GIB))
        async with listening(host, here) as (controller, _, port):
            await asyncio.sleep(12)
            before = (await aside(raw, here, port, "GET", "/v1/figures"))[1]
            assert before["admits_bytes"] > controller.engine.headroom_bytes  # type: ignore[operator]
            web.suspend()
            await asyncio.sleep(1)
            after = (await aside(raw, here, port, "GET", "/v1/figures"))[1]
            assert [one["settled"] for one in (*before["vms"], *after["vms"])] == [True, False]  # type: ignore[misc, index]
            assert after["admits_bytes"] == controller.engine.headroom_bytes

    run(story())


def test_a_host_whose_libvirt_does_not_answer_says_so_and_promises_nothing_new(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(4 * GIB), here) as (controller, _, port):
            await asyncio.sleep(30)
            figures, _ = await aside(Hosts(here, port).figures, ["localhost"])
            assert figures["localhost"].connected
            assert (await promise(here, port, "old", GIB)).given
            controller.put(ConnectionChanged(up=False, detail="gone"))
            await asyncio.sleep(1)
            figures, _ = await aside(Hosts(here, port).figures, ["localhost"])
            assert not figures["localhost"].connected
            assert (await promise(here, port, "old", GIB)).given
            answer = await promise(here, port, "new", GIB)
            assert (answer.given, "libvirt does not answer" in answer.said) == (False, True)
            assert set(controller.engine.ledger.reservations) == {"old"}

    run(story())


@pytest.mark.parametrize(
    ("stage", "told"),
    [(Stage.DUE, False), (Stage.STOPPING, True), (Stage.STANDING, True), (Stage.OVER, False)],
)
def test_a_vm_that_its_host_has_stopped_until_there_is_room_is_told_as_such(stage: Stage, told: bool) -> None:
    async def story() -> None:
        host = Host(4 * GIB)
        uuid = host.vm("web").uuid
        async with host.controller() as controller:
            await asyncio.sleep(30)
            engine = controller.engine
            assert not vm_figures(controller, engine.vms[uuid]).stands_still
            engine.state.standstills[uuid] = Standstill(0.0, 99.0, stage)
            assert vm_figures(controller, engine.vms[uuid]).stands_still is told

    run(story())


def test_vms_that_a_host_does_not_manage_are_told_beside_the_others_and_none_twice(here: Credentials) -> None:
    async def story() -> None:
        host = Host(4 * GIB)
        uuid = host.vm("web").uuid
        plain, adopted = (Unmanaged(name, name, GIB) for name in ("plain", uuid))
        seen = host.hypervisor.host_facts
        host.hypervisor.host_facts = lambda: replace(seen(), unmanaged=(plain, adopted))  # type: ignore[method-assign]
        async with listening(host, here) as (_, _, port):
            await asyncio.sleep(30)
            _, answer = await aside(raw, here, port, "GET", "/v1/figures")
            assert answer["unmanaged"] == [{"uuid": "plain", "name": "plain", "size_bytes": GIB + 64 * MIB}]

    run(story())


def test_nothing_else_of_the_api_is_there(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(), here) as (controller, _, port):
            for method, path in (
                ("POST", "/v1/pause"),
                ("POST", "/v1/reload"),
                ("POST", "/v1/admission"),
                ("GET", "/v1/status"),
                ("GET", "/v1/events"),
                ("GET", "/metrics"),
                ("GET", "/"),
            ):
                status, _ = await aside(raw, here, port, method, path)
                assert status == 404, path
            assert not controller.pausing.paused_all

    run(story())


def test_a_stranger_is_neither_answered_nor_believed(
    here: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = credentials(tmp_path / "theirs")
    monkeypatch.setenv("LD_PRELOAD", str(next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))))
    monkeypatch.setenv("FAKETIME", "-10d")
    expired = Credentials.within(make_host(tmp_path / "ours", "expired.example", 1))
    monkeypatch.undo()
    other = Credentials.within(make_host(tmp_path / "ours", "other"))
    mixed = Credentials(foreign.certificate, foreign.key, here.authority)

    async def story() -> None:
        async with listening(Host(), here) as (_, _, port):
            for own, said in (
                (foreign, "certificate is not believed"),  # we do not know its authority
                (mixed, "does not answer"),  # it knows ours and shows a foreign certificate
                (expired, "does not answer"),
            ):
                _, silent = await aside(Hosts(own, port).figures, ["localhost"])
                assert said in silent["localhost"], own
            nobody = ssl.create_default_context(cafile=str(here.authority))
            with pytest.raises(HostSilent):
                await aside(Lines(port).ask, nobody, "localhost", "GET", "/v1/figures", 5.0)
        async with listening(Host(), other) as (_, _, port):
            # A certificate of the fleet, and of another host than was meant.
            _, silent = await aside(Hosts(here, port).figures, ["localhost"])
            assert "certificate is not believed" in silent["localhost"]

    run(story())


@pytest.mark.parametrize("address", ["a..b", ".", "x" * 64 + ".example", "no.such.host.invalid"])
def test_an_address_that_can_be_none_is_refused_in_a_sentence(here: Credentials, address: str) -> None:
    async def story() -> None:
        async with Host().controller() as controller:
            api = Api(controller, lambda: None)
            with pytest.raises(DynmemError, match="listen"):
                await api.start_fleet(address, 0, here)
            with pytest.raises(DynmemError, match="listen"):
                await api.listeners.tcp(address, 0, [])
            await api.stop()

    run(story())


def test_strangers_that_never_shake_hands_hold_few_descriptors_and_keep_no_host_out(
    here: Credentials,
) -> None:
    def accepted(port: int) -> int:
        """Connections whose end here is a descriptor, and not in the kernel's queue."""
        mine = {one.readlink().name for one in Path("/proc/self/fd").iterdir() if one.is_symlink()}
        lines = [one.split() for one in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
        return sum(one[1].endswith(f":{port:04X}") and f"socket:[{one[9]}]" in mine for one in lines) - 1

    async def story() -> None:
        async with listening(Host(), here) as (_, _, port):
            with contextlib.ExitStack() as strangers:

                def come() -> None:
                    for _ in range(3 * MOST_HANDSHAKES):
                        strangers.enter_context(socket.create_connection(("127.0.0.1", port)))

                await aside(come)
                found, silent = await aside(Hosts(here, port).figures, ["localhost"])
                assert found, silent
                left = (found["localhost"].certificate_until or 0) - time.time()
                assert 0 < left <= DAY  # it was made for a day
                assert 0 < accepted(port) <= MOST_HANDSHAKES

    run(story())


def test_credentials_are_replaced_without_a_restart_and_bad_ones_are_not_taken(
    here: Credentials, tmp_path: Path
) -> None:
    new = credentials(tmp_path / "new")

    def asks(own: Credentials, port: int) -> bool:
        try:
            return raw(own, port, "GET", "/v1/figures")[0] == 200
        except HostSilent:
            return False

    async def story() -> None:
        async with listening(Host(), here) as (_, api, port):
            assert api._fleet is not None
            here.key.write_text("no key")
            await api._fleet.look()
            shutil.copy(new.key, here.key)
            kept = Credentials(new.certificate, new.key, here.authority)
            assert not await aside(asks, kept, port)
            for name in ("certificate", "key", "authority"):
                shutil.copy(getattr(new, name), getattr(here, name))
            await until(lambda: True, "the files are there")
            await asyncio.sleep(11)
            assert await aside(asks, new, port)

    run(story())


def test_memory_is_promised_once_renewed_by_its_token_and_taken_back(here: Credentials) -> None:
    async def story() -> None:
        host = Host(4 * GIB)
        host.vm("web")
        async with listening(host, here) as (controller, _, port):
            await asyncio.sleep(30)
            hosts, books = Hosts(here, port), controller.engine.ledger
            assert (await promise(here, port, "new", 512 * MIB)).given
            assert books.reservations["new"].size_bytes == 512 * MIB
            expires = books.reservations["new"].expires
            await asyncio.sleep(60)
            assert (await promise(here, port, "new", 512 * MIB)).given
            await until(lambda: books.reservations["new"].expires > expires, "it is renewed")
            other = await promise(here, port, "new", 512 * MIB, "theirs")
            assert not other.given
            assert "somebody else's wish" in other.said
            await aside(hosts.take_back, "localhost", "new", "theirs")
            await asyncio.sleep(1)
            assert "new" in books.reservations
            await aside(hosts.take_back, "localhost", "new", "ours")
            await until(lambda: "new" not in books.reservations, "it is taken back")

    run(story())


def test_who_renews_a_promise_takes_no_huge_pages_from_a_start_that_is_under_way(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(4 * GIB), here) as (controller, _, port):
            await asyncio.sleep(30)
            books = controller.engine.ledger.reservations
            assert (await promise(here, port, "new", 64 * MIB)).given
            controller.put(Reserve("new", GIB, controller.now() + 60, 2 * MIB, 2 * GIB, 960 * MIB, 3 * GIB))
            await until(lambda: books["new"].huge_bytes, "its start has come")
            begun = books["new"]
            answer = await promise(here, port, "new", 64 * MIB)
            assert "is starting here" in answer.said
            assert books["new"] == begun

    run(story())


def test_a_promise_that_nobody_renews_ends_by_itself(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(4 * GIB), here) as (controller, _, port):
            await asyncio.sleep(1)
            assert (await promise(here, port, "new", GIB)).given
            await asyncio.sleep(121)
            assert controller.engine.ledger.reservations == {}

    run(story())


def test_a_promise_is_refused_for_a_vm_that_runs_here_and_for_more_than_there_is(here: Credentials) -> None:
    async def story() -> None:
        host = Host(4 * GIB)
        host.vm("web")
        async with listening(host, here) as (controller, _, port):
            await asyncio.sleep(30)
            assert "runs here" in (await promise(here, port, "web", MIB)).said
            much = await promise(here, port, "new", 64 * GIB)
            assert not much.given
            assert "web" in much.said
            assert (await aside(raw, here, port, "POST", "/v1/promises/new?bytes=0&token=t"))[0] == 400
            assert (await aside(raw, here, port, "POST", "/v1/promises/new?bytes=1&token="))[0] == 400
            assert controller.engine.ledger.reservations == {}

    run(story())


def test_what_no_domain_can_be_called_is_promised_nothing(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(4 * GIB), here) as (controller, _, port):
            for name in ("x" * 257, "a\nb", "\x00", "../..", "w\x1b[31m"):
                answer = await promise(here, port, name, MIB)
                assert not answer.given
                assert "no name" in answer.said, name
            assert not controller.engine.ledger.reservations
            assert (await promise(here, port, "mémé; <b> $(id)", MIB)).given

    run(story())


def test_all_vms_of_a_drained_host_are_promised_memory_by_the_only_other_one(here: Credentials) -> None:
    async def story() -> None:
        async with listening(Host(64 * GIB), here) as (controller, _, port):
            await asyncio.sleep(1)
            refused = [
                one.said for i in range(40) if not (one := await promise(here, port, f"v{i}", MIB)).given
            ]
            assert refused == []
            assert len(controller.engine.ledger.reservations) == 40

    run(story())


def test_an_arbiter_that_asks_without_end_is_promised_no_more_than_so_many(
    here: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promises, "MOST", 16)

    async def story() -> None:
        async with listening(Host(64 * GIB), here) as (controller, _, port):
            await asyncio.sleep(1)
            given = [await promise(here, port, f"v{i}", MIB) for i in range(18)]
            assert [one.given for one in given] == [True] * 16 + [False] * 2
            assert len(controller.engine.ledger.reservations) == 16

    run(story())


def test_a_key_that_others_may_read_is_not_used(here: Credentials) -> None:
    here.key.chmod(0o640)
    with pytest.raises(CredentialsError, match="chmod 600"):
        here.server()


@pytest.mark.parametrize("part", ["certificate", "key", "authority"])
def test_a_file_that_an_editor_has_begun_with_a_mark_is_named_with_that(here: Credentials, part: str) -> None:
    file: Path = getattr(here, part)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    with pytest.raises(CredentialsError, match=f"{file.name}: it begins with a byte order mark"):
        here.client()


@pytest.mark.parametrize("name", ["", "a b", "../up", "-x", ".x", "a;b", "a\n", "ü", "x" * 65, "a,DNS:b"])
def test_what_is_no_name_of_a_host_gets_no_certificate(tmp_path: Path, name: str) -> None:
    make_authority(tmp_path)
    with pytest.raises(InputError):
        make_host(tmp_path, name)


@pytest.mark.parametrize("name", ["n1", "node_1.example", "127.0.0.1"])
def test_a_host_is_believed_by_the_name_that_its_node_has_in_whatever_case_and_by_no_other(
    tmp_path: Path, name: str
) -> None:
    own = credentials(tmp_path, name)
    for asked, believed in ((name, True), (name.upper(), True), ("other", False), ("10.9.9.9", False)):
        ends = ssl.MemoryBIO(), ssl.MemoryBIO()
        host = own.server().wrap_bio(*ends, server_side=True)
        asker = own.client().wrap_bio(*reversed(ends), server_hostname=asked)
        for one in (asker, host):
            with pytest.raises(ssl.SSLWantReadError):
                one.do_handshake()
        with contextlib.nullcontext() if believed else pytest.raises(ssl.SSLError, match="mismatch"):
            asker.do_handshake()


def believe_each_other(asks: Credentials, answers: Credentials, name: str) -> bool:
    ends = ssl.MemoryBIO(), ssl.MemoryBIO()
    host = answers.server().wrap_bio(*ends, server_side=True)
    asker = asks.client().wrap_bio(*reversed(ends), server_hostname=name)
    for one in (asker, host, asker, host):
        try:
            one.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError:
            return False
    return True


def test_while_an_authority_is_replaced_hosts_of_the_old_and_of_the_new_one_believe_each_other(
    tmp_path: Path,
) -> None:
    old, new = (credentials(tmp_path / name, name) for name in ("old", "new"))
    both = old.authority.read_bytes() + new.authority.read_bytes()
    assert not believe_each_other(old, new, "new")
    old.authority.write_bytes(both)
    assert not believe_each_other(old, new, "new"), "the new one does not know who asks"
    new.authority.write_bytes(both)
    assert believe_each_other(old, new, "new")
    assert believe_each_other(new, old, "old")


@pytest.mark.parametrize("name", ["ca.pem", "ca.key"])
def test_a_host_named_as_a_file_of_the_authority_is_refused(tmp_path: Path, name: str) -> None:
    make_authority(tmp_path)
    with pytest.raises(FleetError, match=name):
        make_host(tmp_path, name)


def test_an_authority_is_made_nowhere_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FleetError, match="file"):
        make_authority(tmp_path / "file")


def test_where_nobody_may_look_for_an_authority_is_told(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="File name too long"):  # root may look everywhere
        make_authority(tmp_path / ("x" * 300))


def test_an_authority_is_made_once_and_its_key_is_the_owners(tmp_path: Path) -> None:
    assert make_authority(tmp_path / "ca")
    before = (tmp_path / "ca/ca.key").read_bytes()
    assert not make_authority(tmp_path / "ca")
    assert (tmp_path / "ca/ca.key").read_bytes() == before
    assert (tmp_path / "ca/ca.key").stat().st_mode & 0o077 == 0
    (tmp_path / "ca/ca.pem").unlink()
    with pytest.raises(DynmemError):
        make_authority(tmp_path / "ca")


GOOD = {
    "at": 1000.0,
    "version": "9.9",
    "capacity_bytes": 64,
    "reserved_bytes": 0,
    "admits_bytes": 64,
    "overdraft": False,
    "emergency": None,
    "vms": [
        {
            "uuid": "u",
            "name": "web",
            "need_bytes": None,
            "minimum_bytes": 1,
            "charge_bytes": 2,
            "beside_bytes": 3,
            "arrival_bytes": 4,
            "settled": True,
            "of a later version": [1, 2],
        }
    ],
}


def test_figures_are_read_and_what_a_later_version_adds_is_left_out() -> None:
    found = read_figures("a", json.dumps(GOOD).encode(), 1000.0)
    assert (found.capacity_bytes, found.admits_bytes) == (64, 64)
    assert found.vms[0].arrival_bytes == 4
    assert found.unmanaged == ()
    fixed = {"uuid": "f", "name": "fixed", "size_bytes": 7}
    (one,) = read_figures("a", json.dumps({**GOOD, "unmanaged": [fixed]}).encode(), 1000.0).unmanaged
    assert (one.name, one.floor_bytes, one.arrival_bytes, one.managed) == ("fixed", 7, 7, False)


@pytest.mark.parametrize(
    "change",
    [
        {"at": 1000.0 + CLOCK_SECONDS + 1},
        {"at": 0.0},
        {"capacity_bytes": -1},
        {"capacity_bytes": 1 << 62},
        {"capacity_bytes": 1.5},
        {"capacity_bytes": "64"},
        {"admits_bytes": 65},
        {"overdraft": 0},
        {"emergency": "x" * 5000},
        {"vms": None},
        {"vms": GOOD["vms"] * 2},  # type: ignore[operator]
        {"vms": [{"name": "web"}]},
        {"unmanaged": [{"uuid": "f", "name": "web", "size_bytes": 1}]},
        {"unmanaged": [{"uuid": "f", "name": "fixed", "size_bytes": -1}]},
        {"unmanaged": [{"uuid": "f", "name": "fixed", "size_bytes": 600 * TIB}]},
    ],
)
def test_figures_that_cannot_be_are_none(change: dict[str, object]) -> None:
    with pytest.raises(HostSilent):
        read_figures("a", json.dumps({**GOOD, **change}).encode(), 1000.0)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b"x" * (LARGEST_ANSWER + 1), b'{"at": NaN}']
)
def test_an_answer_that_is_no_figures_is_none(text: bytes) -> None:
    with pytest.raises(HostSilent):
        read_figures("a", text, 1000.0)


def serve(own: Credentials, talk: Callable[[ssl.SSLSocket], None]) -> int:
    """A host that says what it likes to the first who asks; returns its port."""
    listener = socket.create_server(("localhost", 0), family=socket.AF_INET)

    def work() -> None:
        with (
            listener,
            listener.accept()[0] as plain,
            own.server().wrap_socket(plain, server_side=True) as one,
        ):
            one.recv(4096)
            try:
                talk(one)
            except OSError:
                return

    threading.Thread(target=work, daemon=True).start()
    return int(listener.getsockname()[1])


def test_a_host_that_drips_or_floods_does_not_hold_whoever_asks(here: Credentials) -> None:
    def drip(one: ssl.SSLSocket) -> None:
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            one.sendall(b" ")
            time.sleep(0.05)

    def drip_fields(one: ssl.SSLSocket) -> None:
        one.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(1200):
            one.sendall(b"x")
            time.sleep(0.05)

    def flood(one: ssl.SSLSocket) -> None:
        one.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            one.sendall(b" " * 65536)

    for slowly in (drip, drip_fields):
        with pytest.raises(HostSilent, match="within"):
            Lines(serve(here, slowly)).look(here.client(), "localhost", "/", 2.0)
    with pytest.raises(HostSilent, match="larger"):
        Lines(serve(here, flood)).look(here.client(), "localhost", "/", 60.0)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[]", b"\xff", b'{"message": ' + b"9" * 5000 + b"}"])
@pytest.mark.parametrize("status", [200, 409])
def test_an_answer_to_a_promise_that_is_nonsense_is_no_promise(
    here: Credentials, status: int, body: bytes
) -> None:
    def talk(one: ssl.SSLSocket) -> None:
        one.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    answer = Hosts(here, serve(here, talk)).promise("localhost", "web", 1, "t")
    assert not answer.given
    assert answer.said


@pytest.mark.parametrize("name", ["a..b", ".a", "x" * 100, "", "a b", "a\nb", "ä" * 80, "$(id)", "h\udcff"])
def test_a_node_whose_name_can_be_no_hosts_is_silent_and_harms_no_other(here: Credentials, name: str) -> None:
    hosts = Hosts(here, 1)
    found, silent = hosts.figures([name])
    assert not found
    assert silent[name]
    assert not hosts.promise(name, "web", 1, "t").given
    hosts.take_back(name, "web", "t")


def test_a_vm_whose_name_no_address_can_hold_is_promised_nothing_with_a_reason(here: Credentials) -> None:
    hosts = Hosts(here, 1)
    assert hosts.promise("localhost", "w\udcff", 1, "t").said == (
        "localhost: 'w?' is no name to ask it about"
    )
    hosts.take_back("localhost", "w\udcff", "t")
