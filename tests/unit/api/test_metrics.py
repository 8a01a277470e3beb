"""`/metrics`: what it says, and what it costs the control loop."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent import wire
from host_controller import __version__
from host_controller.api import turns
from host_controller.api.metric_families import FAMILIES
from host_controller.api.metrics import Metrics
from host_controller.api.server import Api
from host_controller.core.interface import CommandDone, GuestSpoke, SetTarget
from host_controller.records import fleet_figures
from host_controller.records.journal import Failure, Journal
from host_controller.records.tally import Tally, Window
from host_controller.units import GIB, MIB
from tests.support.serving import ask, request, served
from tests.support.virtual import Host, aside, run, until


def scraped(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def rendered(metrics: Metrics) -> str:
    return b"".join(metrics.render()).decode()


@pytest.mark.parametrize(
    ("version", "label"),
    [
        (None, ""),
        ("", ""),
        (__version__, __version__),
        ("9.9", "other"),
        ('x"} 1\n', "other"),
        ("simulated", "other"),
    ],
)
def test_the_agents_version_is_a_bounded_label(version: str | None, label: str) -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web", agent=False)
        async with host.controller() as controller:
            await asyncio.sleep(1)
            if version is not None:
                hello = wire.Hello("", version, "", 0, True, "", "kernel")
                controller.engine.handle(GuestSpoke(vm.uuid, hello), controller.now())
            labels = [
                dict(one) for name, one in scraped(rendered(Metrics(controller))) if name == "dynmem_vm_info"
            ]
            assert [one["agent"] for one in labels] == [label]

    run(story())


def test_whether_an_agent_reports_is_not_told_of_a_vm_that_stands_still() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            metrics = Metrics(controller)
            of_web = ("dynmem_vm_agent_up", frozenset({("vm", "web")}))
            await until(lambda: scraped(rendered(metrics)).get(of_web) == 1, "its agent reports")
            vm.suspend()
            await until(lambda: of_web not in scraped(rendered(metrics)), "it stands still")

    run(story())


def test_every_figure_is_there_in_base_units_per_vm_and_for_the_host() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm('we"b\\')
        async with host.controller() as controller:
            metrics = Metrics(controller)
            controller.journal.add_sink(metrics.tally)
            await until(lambda: vm.actual_bytes < 512 * MIB, "it gets smaller")
            figures = scraped(rendered(metrics))
            of_vm = frozenset({("vm", 'we"b\\')})
            assert figures["dynmem_vm_maximum_bytes", of_vm] == 2 * GIB
            assert figures["dynmem_vm_removed_bytes_total", of_vm] > 512 * MIB
            assert 0 < figures["dynmem_vm_pressure_average_ratio", of_vm] <= 1
            assert (
                figures["dynmem_vm_pressure_minimum_ratio", of_vm]
                <= figures["dynmem_vm_pressure_ratio", of_vm]
                <= figures["dynmem_vm_pressure_maximum_ratio", of_vm]
            )
            assert figures["dynmem_vm_report_age_seconds", of_vm] < 6
            assert figures["dynmem_host_capacity_bytes", frozenset()] == 4 * GIB
            sent = frozenset({("command", "SetTarget")})
            # Prometheus sees no increase in what begins with 1: what may come is there before.
            never = [
                ("dynmem_vm_operations_total", of_vm | sent | {("result", "failed")}),
                ("dynmem_vm_operations_total", of_vm | sent | {("result", "timeout")}),
                *(("dynmem_host_errors_total", frozenset({("kind", one)})) for one in get_args(Failure)),
            ]
            assert [figures[one] for one in never] == [0] * len(never)
            assert figures["dynmem_host_command_seconds_count", sent] > 3
            # Whatever has no VM behind it needs an error, a refusal or PSI to be there.
            missing = {one.name for one in FAMILIES} - {
                name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
                for name, _ in figures
            }
            assert missing <= {
                "dynmem_vm_ignored_total",
                "dynmem_vm_psi_some_seconds_total",
                "dynmem_vm_goal_bytes",
                "dynmem_host_scrape_turn_seconds",  # of the scrape before
                "dynmem_host_ordinary_bytes",  # this and huge pages: of a host that tells them
                "dynmem_host_huge_total_bytes",
                "dynmem_host_huge_free_bytes",
                "dynmem_host_huge_vms_bytes",
                "dynmem_host_huge_reserved_bytes",
            }
            assert "dynmem_host_scrape_turn_seconds" in rendered(metrics)

    run(story())


def test_metrics_of_many_vms_give_way_to_the_control_loop_after_every_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)

    async def story() -> list[bytes]:
        host = Host(100 * GIB)
        for number in range(100):
            host.vm(f"vm{number:03}")
        async with host.controller() as controller:
            await asyncio.sleep(12)
            return list(Metrics(controller).render())

    pieces = run(story())
    assert sum(piece == b"" for piece in pieces) >= 100
    assert b"".join(pieces).count(b"dynmem_vm_assigned_bytes{") == 100


def test_metrics_are_on_the_socket_too_with_what_the_fleets_arbiter_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_figures, "METRICS", tmp_path / "metrics.prom")
    fleet_figures.keep(b"dynmem_fleet_notes 0\n", fleet_figures.METRICS)

    async def story() -> None:
        host = Host()
        host.vm("web")
        async with served(host, tmp_path):
            await asyncio.sleep(5)
            _, body = await aside(raw_text, tmp_path, request("GET /metrics"))
            assert "dynmem_vm_assigned_bytes" in body
            assert body.endswith("\ndynmem_fleet_notes 0\n")

    run(story())


def raw_text(path: Path, line: bytes) -> tuple[int, str]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path / "control.sock"))
        connection.sendall(line)
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/metrics", {}, 200),
        ("GET", "/v1/status", {}, 200),
        ("POST", "/v1/pause", {}, 404),
        ("POST", "/v1/vms/web/pause", {}, 404),
        ("POST", "/v1/reload", {}, 404),
        ("GET", "/metrics", {"Host": "evil.example"}, 403),
    ],
)
def test_over_tcp_one_can_read_and_nothing_else(
    tmp_path: Path, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async def story() -> None:
        host = Host()
        host.vm("web")
        async with host.controller() as controller:
            api = Api(controller, lambda: None)
            port = await api.start_tcp("127.0.0.1", 0)
            try:
                await asyncio.sleep(1)
                got, body = await aside(lambda: ask(port, path, method, **headers))
                assert got == status, body
                assert not controller.pausing.paused_all
            finally:
                await api.stop()

    run(story())


def test_a_window_weighs_by_time_and_forgets_after_a_minute() -> None:
    window = Window()
    assert window.read(0) is None
    window.add(1.0, 0.0)
    window.add(0.5, 10.0)
    assert window.read(40.0) == pytest.approx((0.5, (10 * 1.0 + 30 * 0.5) / 40, 0.5, 1.0))
    assert window.read(1000.0) == pytest.approx((0.5, 0.5, 0.5, 0.5))


def test_a_command_that_ends_after_its_vm_is_gone_opens_no_counters_for_it_again() -> None:
    tally, journal = Tally(), Journal()
    journal.add_sink(tally)
    sent = SetTarget("uuid-of-web", 7, 300 * MIB)
    tally.of("uuid-of-web")
    journal.commanded(sent, "web", 1.0)
    journal.done(CommandDone("uuid-of-web", 7, None, seconds=0.1), "web", 1.1)
    assert tally.vms["uuid-of-web"].operations == {"SetTarget": {"done": 1}}
    journal.commanded(replace(sent, ticket=8), "web", 2.0)
    journal.said("gone", "web is gone", 2.5, "uuid-of-web", "web")
    journal.done(CommandDone("uuid-of-web", 8, "stopped", timed_out=True, seconds=1.0), "web", 3.0)
    assert not tally.vms
    assert tally.latencies["SetTarget"].total == pytest.approx(1.1), "how long it took counts all the same"


def test_a_vm_that_is_gone_leaves_no_series_behind() -> None:
    async def story() -> None:
        host = Host()
        vm = host.vm("web")
        async with host.controller() as controller:
            metrics = Metrics(controller)
            controller.journal.add_sink(metrics.tally)
            await asyncio.sleep(10)
            assert 'vm="web"' in rendered(metrics)
            host.hypervisor.power_off(vm)
            await asyncio.sleep(2)
            assert 'vm="web"' not in rendered(metrics)
            assert not metrics.tally.vms

    run(story())
