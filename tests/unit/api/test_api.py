"""The control API on its unix socket, and the client that the CLI uses, over simulated VMs."""

import asyncio
import socket
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from host_controller.api.client import Client, ControllerUnreachable, RequestRefused
from host_controller.api.listeners import LOOK_SECONDS, listen_unix
from host_controller.api.schema.explain import ExplainView
from host_controller.api.schema.history import HistoryView, MomentView
from host_controller.api.schema.host import StatusView
from host_controller.api.schema.json_schema import json_schema
from host_controller.api.schema.vm import VmView
from host_controller.cli.status import status as status_command
from host_controller.config import ConfigError, Problem
from host_controller.core.interface import VmConfigChanged
from host_controller.core.model import Limits, Trust
from host_controller.neutral import neutral
from host_controller.simulator.workload import Workload, steady
from host_controller.units import GIB, MIB
from tests.support.serving import invoke, raw, request, served
from tests.support.virtual import Host, aside, run, until


def test_status_shows_the_host_and_every_vm(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        host.vm("db")
        async with served(host, tmp_path) as (_, client):
            await asyncio.sleep(60)
            answer = await aside(client.get, "status")
            status = msgspec.convert(answer, StatusView)
            assert [vm.name for vm in status.vms] == ["db", "web"]
            assert status.host.capacity_bytes == 4 * GIB
            assert status.host.charged_bytes == sum(vm.charge_bytes for vm in status.vms)
            assert status.host.headroom_bytes == 4 * GIB - status.host.charged_bytes
            assert all(vm.status == "ok" and vm.phase == "live" and vm.agent for vm in status.vms)
            assert [vm["name"] for vm in await aside(client.get, "vms")] == ["db", "web"]

    run(story())


def test_a_vm_is_found_by_name_and_by_uuid(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with served(host, tmp_path) as (_, client):
            await asyncio.sleep(30)
            by_name = await aside(client.get, "vms", "web")
            assert (await aside(client.get, "vms", vm.uuid))["name"] == "web"
            assert msgspec.convert(by_name, VmView).uuid == vm.uuid

    run(story())


def test_explain_adds_up(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path) as (_, client):
            await asyncio.sleep(90)
            told = msgspec.convert(await aside(client.get, "vms", "web", "explain"), ExplainView)
            demand = {part.name: part.size_bytes for part in told.demand}
            assert demand["usable"] - demand["available"] == demand["in use"]
            assert demand["demand"] == told.vm.demand_bytes
            assert sum(part.size_bytes for part in told.charge if part.deciding) == told.vm.charge_bytes
            assert [part.name for part in told.balance] == ["lower", "need", "desired", "keep", "goal"]

    run(story())


def test_the_balance_of_now_and_of_the_record_is_what_was_asked_for_and_not_what_an_estimate_says(
    tmp_path: Path,
) -> None:
    """Nothing that a VM has is taken from one that is not trusted, so all of it is asked for."""

    async def story() -> None:
        host = Host()
        vm = host.vm("web", workload=Workload(steady(200 * MIB)))
        async with served(host, tmp_path) as (controller, client):
            await until(lambda: vm.uuid in controller.engine.vms, "it is seen")
            known = controller.engine.vms[vm.uuid]
            controller.put(VmConfigChanged(vm.uuid, replace(known.config, trust=Trust.NONE)))
            await until(lambda: vm.uuid in controller.engine.claims, "it takes part")
            await asyncio.sleep(30)
            [told] = msgspec.convert(await aside(client.get, "balance"), MomentView).vms
            claims = controller.engine.claims[vm.uuid]
            assert (told.name, told.weight, told.goal_bytes) == ("web", 100, controller.engine.goals[vm.uuid])
            assert (told.lower_bytes, told.need_bytes) == (claims.irreducible, claims.need)
            assert (told.eased_bytes, told.desired_bytes) == (claims.eased, claims.desired)
            estimate, sample = known.guest.estimate, controller.journal.samples.last(vm.uuid)
            assert estimate is not None
            assert sample is not None
            assert claims.desired > estimate.desired_bytes
            assert sample.desired_bytes == claims.desired

    run(story())


def test_explain_says_why_a_vm_has_no_more_and_no_less(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        host.settings = replace(host.settings, shrink_after_seconds=300.0)
        host.vm("web")
        async with served(host, tmp_path) as (controller, client):
            await asyncio.sleep(30)
            why = (await aside(client.get, "vms", "web", "explain"))["why"]
            assert any("more than it wants" in one for one in why), why
            controller.hold_all(True)
            await asyncio.sleep(1)
            why = (await aside(client.get, "vms", "web", "explain"))["why"]
            assert "It is left alone: paused by the operator." in why

    run(story())


@pytest.mark.parametrize(("swap_bytes", "told"), [(0, True), (4 * GIB, False)])
def test_explain_says_when_others_keep_what_they_use_whatever_their_weight(
    swap_bytes: int, told: bool, tmp_path: Path
) -> None:
    """The heavy one could swap, so it is to have no more than the light one leaves: nothing is on its way."""

    async def story() -> None:
        host = Host()
        limits = Limits(GIB, 512 * MIB, 3 * GIB)
        async with served(host, tmp_path) as (_, client):
            for name, weight, swap, cold in (("light", 1, swap_bytes, 0.6), ("heavy", 10_000, 4 * GIB, 0.0)):
                asks, works = replace(limits, weight=weight), Workload(steady(2300 * MIB), cold_share=cold)
                host.vm(name, limits=asks, workload=works, swap_bytes=swap, reporting=False)
                await asyncio.sleep(90)
            why = (await aside(client.get, "vms", "heavy", "explain"))["why"]
            assert any("whatever its weight" in one for one in why) is told, why
            why = (await aside(client.get, "vms", "light", "explain"))["why"]
            assert not any("whatever its weight" in one for one in why), why

    run(story())


def test_explain_says_of_a_vm_that_gives_nothing_back_what_it_costs_and_where_the_remedy_is(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        host = Host()
        host.vm("mute", pinned="no balloon")
        async with served(host, tmp_path) as (_, client):
            await asyncio.sleep(5)
            told = await aside(client.get, "vms", "mute", "explain")
            remedy = "It is charged all of its RAM: no balloon; `dynmem doctor mute` says what to do."
            assert remedy in told["why"]
            assert told["vm"]["charge_bytes"] >= told["vm"]["ram_bytes"]
            assert told["vm"]["channel_error"] is None

    run(story())


def test_history_gives_samples_and_what_was_done(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with served(host, tmp_path) as (_, client):
            await until(lambda: vm.actual_bytes < 512 * MIB, "web gets smaller")
            answer = await aside(client.get, "vms", "web", "history")
            history = msgspec.convert(answer, HistoryView)
            assert history.samples[0].actual_bytes == GIB
            assert history.samples[-1].actual_bytes < GIB
            assert any(one.topic == "shrink" for one in history.entries)
            host.hypervisor.power_off(vm)
            await asyncio.sleep(60)
            assert (await aside(client.get, "vms", "web", "history"))["entries"][-1]["topic"] == "gone"

            async def recent() -> dict[str, Any]:
                return await aside(lambda: client.get("vms", "web", "history", since="10s"))

            assert (await recent())["samples"] == []

    run(story())


def test_events_can_be_followed_and_gone_on_with(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with served(host, tmp_path) as (controller, client):
            await asyncio.sleep(30)
            so_far = await aside(lambda: list(client.follow("events")))
            assert [one["number"] for one in so_far] == list(range(1, len(so_far) + 1))
            stream = client.follow("events", follow="true", after=len(so_far), vm="web")
            waiting = asyncio.create_task(asyncio.to_thread(next, stream))
            controller.hold(vm.uuid, True)
            event = await waiting
            assert event["topic"] == "held"
            assert event["number"] > len(so_far)
            stream.close()

    run(story())


def test_the_end_of_the_controller_ends_a_follower(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path) as (_, client):
            await asyncio.sleep(5)
            stream = client.follow("events", follow="true", after=0)
            first = await aside(next, stream)  # it is connected
            following = asyncio.create_task(asyncio.to_thread(list, stream))
        assert first not in await following

    run(story())


def test_pause_and_resume(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path) as (_, client):
            await asyncio.sleep(1)
            assert await aside(client.post, "vms", "web", "pause") == {"done": "paused web"}
            await asyncio.sleep(1)
            assert (await aside(client.get, "vms", "web"))["paused"]
            await aside(client.post, "vms", "web", "resume")
            await aside(client.post, "pause")
            await asyncio.sleep(1)
            answer = await aside(client.get, "status")
            assert answer["host"]["paused"]
            assert answer["vms"][0]["paused"]
            with pytest.raises(RequestRefused, match="resume --all"):
                await aside(client.post, "vms", "web", "resume")
            await aside(client.post, "resume")
            await asyncio.sleep(1)
            assert not (await aside(client.get, "status"))["vms"][0]["paused"]

    run(story())


@pytest.mark.parametrize("by", ["name", "uuid"])
def test_a_vm_that_was_paused_and_does_not_run_is_resumed_all_the_same(tmp_path: Path, by: str) -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with served(host, tmp_path) as (controller, client):
            await asyncio.sleep(1)
            await aside(client.post, "vms", "web", "pause")
            host.hypervisor.power_off(vm)
            await asyncio.sleep(1)
            called = vm.uuid.upper() if by == "uuid" else "web"
            done = await aside(client.post, "vms", called, "resume")
            assert done["done"].endswith("which does not run")
            assert not controller.pausing.paused
            with pytest.raises(RequestRefused, match="no managed VM"):
                await aside(client.post, "vms", called, "resume")

    run(story())


def test_whom_libvirt_has_not_told_of_yet_is_not_said_not_to_run(tmp_path: Path) -> None:
    """As while it starts what starts with the host, or hangs."""

    async def story() -> None:
        async with served(Host(), tmp_path) as (controller, client):
            awaited = controller.engine.state.awaited
            await until(lambda: awaited.names == (), "all are told of")
            awaited.take(("db",), 0.0)
            assert "(db)" in (await aside(client.get, "status"))["host"]["untold"]
            with pytest.raises(RequestRefused) as caught:
                await aside(client.get, "vms", "db")
            assert caught.value.hint == "libvirt has not told yet of a VM that runs (db)"
            said = (await aside(invoke, status_command, tmp_path)).output
            assert "no managed VM is known yet" in said
            assert "(db): until then no VM is admitted" in said
            awaited.take((), 1.0)
            assert (await aside(client.get, "status"))["host"]["untold"] is None
            assert "see dynmem enable" in (await aside(invoke, status_command, tmp_path)).output

    run(story())


def test_a_refused_reload_is_said_to_the_caller_and_stays_in_status_until_one_succeeds(
    tmp_path: Path,
) -> None:
    wrong = True

    def reload() -> None:
        if wrong:
            raise ConfigError("dynmem.toml", [Problem("host.reserve", '"x"', "a size")])

    async def story() -> None:
        nonlocal wrong
        async with served(Host(), tmp_path, reload) as (_, client):
            with pytest.raises(RequestRefused, match=r"host\.reserve") as caught:
                await aside(client.post, "reload")
            assert caught.value.code == "bad-configuration"
            said = (await aside(client.get, "status"))["host"]["configuration_error"]
            assert "host.reserve" in said
            assert neutral(said) == said, "pages, the doctor and the log have one line for it"
            wrong = False
            await aside(client.post, "reload")
            assert (await aside(client.get, "status"))["host"]["configuration_error"] is None

    run(story())


@pytest.mark.parametrize(
    ("line", "body", "status", "code"),
    [
        ("GET /", b"", 404, "unknown-path"),
        ("GET /v1/nonsense", b"", 404, "unknown-path"),
        ("GET /v1/vms/nobody", b"", 404, "unknown-vm"),
        ("GET /v1/vms/%00%ff/explain", b"", 404, "unknown-vm"),
        ("GET /v1/vms/nobody/history", b"", 404, "unknown-vm"),
        ("POST /v1/vms/nobody/pause", b"", 404, "unknown-vm"),
        ("POST /v1/status", b"", 405, "wrong-method"),
        ("DELETE /v1/vms/web", b"", 405, "wrong-method"),
        ("GET /v1/pause", b"", 405, "wrong-method"),
        ("GET /v1/status?verbose=1", b"", 400, "unknown-parameter"),
        ("GET /v1/vms/web/history?points=-1", b"", 400, "bad-parameter"),
        ("GET /v1/events?after=-1", b"", 400, "bad-parameter"),
        ("GET /v1/events?after=99999999999999999999", b"", 400, "bad-parameter"),
        ("GET /v1/events?follow=maybe", b"", 400, "bad-parameter"),
        ("GET /v1/events?vm=nobody", b"", 404, "unknown-vm"),
        ("GET /v1/vms/web/history?since=yesterday", b"", 400, "bad-parameter"),
        ("POST /v1/pause", b'{"on": true}', 400, "unexpected-body"),
        ("POST /v1/pause", b"\xff" * 100, 400, "unexpected-body"),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_problem_and_changes_nothing(
    tmp_path: Path, line: str, body: bytes, status: int, code: str
) -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path) as (controller, _):
            await asyncio.sleep(1)
            got, problem = await aside(raw, tmp_path, request(line, body))
            assert (got, problem["code"]) == (status, code)
            assert problem["message"]
            assert problem["hint"]
            assert not controller.pausing.paused_all

    run(story())


def test_the_socket_is_for_its_owner_and_group_alone_and_goes_with_the_controller(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def story() -> None:
        async with served(Host(), tmp_path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660

    run(story())
    assert not path.exists()


def test_a_dead_controllers_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))

    async def story() -> None:
        async with served(Host(), tmp_path) as (_, client):
            assert (await aside(client.get, "status"))["vms"] == []

    run(story())


def test_a_socket_that_somebody_takes_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def story() -> None:
        async with served(Host(), tmp_path) as (_, client):
            for place in (path, path):  # again and again
                place.unlink()
                await asyncio.sleep(2 * LOOK_SECONDS)
                assert (await aside(client.get, "status"))["vms"] == []
                assert stat.S_IMODE(path.stat().st_mode) == 0o660
            path.unlink()
            path.mkdir()  # somebody else's, which stays
            await asyncio.sleep(2 * LOOK_SECONDS)
            assert path.is_dir()

    run(story())


def test_without_a_controller_the_client_says_so_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ControllerUnreachable, match="systemctl start dynmem"):
        Client(str(tmp_path / "none.sock")).get("status")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(ControllerUnreachable, match="died"):
        Client(str(tmp_path / "dead.sock")).get("status")


def test_the_schema_describes_every_answer() -> None:
    schema = json_schema()
    assert {"StatusView", "HostView", "VmView", "ExplainView", "EntryView"} <= set(schema["$defs"])
    described = schema["$defs"]["VmView"]["properties"]
    assert set(described) == {field.name for field in msgspec.structs.fields(VmView)}


def test_what_lies_in_the_place_of_a_socket_and_is_none_stays(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("somebody's")
    for _ in range(2):
        with pytest.raises(FileExistsError, match="no socket"):
            listen_unix(path)
        assert path.read_text() == "somebody's"
    path.unlink()
    for _ in range(2):  # one that is there is a dead controller's
        listen_unix(path).close()
    assert path.is_socket()


def test_what_was_put_in_the_place_of_our_socket_stays_when_we_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(Host(), tmp_path):
            (tmp_path / "control.sock").unlink()
            (tmp_path / "control.sock").write_text("somebody's")

    run(story())
    assert (tmp_path / "control.sock").read_text() == "somebody's"
