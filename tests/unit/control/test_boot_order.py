"""While libvirt starts what starts with the host, it answers nobody: the books alone admit."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from host_controller.api.explain import explain
from host_controller.api.figures import figures_view
from host_controller.control.admission import Admission
from host_controller.control.remembered import Remembered
from host_controller.control.start_queue import Start
from host_controller.core.interface import ConnectionChanged, VmsAwaited
from host_controller.core.model import Unmanaged
from host_controller.core.operator_events import Reserve
from host_controller.simulator.guest_spec import GuestSpec
from host_controller.units import GIB, MIB
from tests.support.serving import served
from tests.support.starts import call, flowing, start, xml
from tests.support.virtual import Host, aside, run, until
from tests.unit.control.test_admission import SMALL


def test_at_the_hosts_boot_starts_are_admitted_until_the_capacity_is_spoken_for(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host(2 * GIB + GIB // 2)
        async with served(host, tmp_path) as (controller, _):
            controller.put(ConnectionChanged(up=False, detail="starting"))
            await asyncio.sleep(1)
            assert not controller.engine.state.connected
            for name in ("one", "two"):
                assert (await flowing(asyncio.create_task(start(tmp_path, name=name))))[0] == 0
            code, said = await flowing(asyncio.create_task(start(tmp_path, xml("three"), "three")))
            assert code == 1
            assert "one (starting) 1.06 GiB" in said

    run(story())


def test_what_has_started_is_reserved_until_libvirt_can_tell_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first VMs of a boot have run for minutes when the last one is asked for."""
    host = Host(2 * GIB + GIB // 2)
    seen = host.hypervisor.host_facts
    plain: list[Unmanaged] = []

    def facts() -> object:
        return replace(
            seen(), unmanaged=tuple(plain), unmanaged_bytes=sum(one.ordinary_bytes for one in plain)
        )

    monkeypatch.setattr(host.hypervisor, "host_facts", facts)

    async def story() -> None:
        async with served(host, tmp_path) as (controller, _):
            reservations = controller.engine.ledger.reservations
            controller.put(ConnectionChanged(up=False, detail="starting"))
            await asyncio.sleep(1)
            for name, ours in (("managed", True), ("plain", False)):
                body = xml(name, ours=ours)
                assert (await flowing(asyncio.create_task(start(tmp_path, body, name))))[0] == 0
                assert (await aside(call, tmp_path, "started begin", b"", name))[0] == 0
            await asyncio.sleep(600)
            code, said = await flowing(asyncio.create_task(start(tmp_path, xml("three"), "three")))
            assert code == 1
            assert "managed (starting) 1.06 GiB" in said
            controller.put(ConnectionChanged(up=True, detail="it is there"))
            await asyncio.sleep(10)
            assert set(reservations) == {"managed", "plain"}, "it has not told of them yet"
            host.hypervisor.power_on(host.hypervisor.define(GuestSpec("managed", SMALL)))
            plain.append(Unmanaged("u-plain", "plain", GIB))
            await until(lambda: not reservations, "both are seen", limit=10)
            assert controller.engine.headroom_bytes < 512 * MIB

    run(story())


def test_a_controller_that_has_just_started_admits_nobody_before_it_knows_who_runs(tmp_path: Path) -> None:
    """Its books are empty, and the memory is others': libvirt tells of them one after another."""
    host = Host(2 * GIB)

    async def story() -> None:
        async with served(host, tmp_path) as (controller, _):
            desk = Admission(controller)
            assert figures_view(controller, desk, []).admits_bytes == 0, "nobody has said who runs"
            await until(lambda: controller.engine.state.host is not None, "it has looked at the host")
            controller.put(VmsAwaited(("mail", "web")))
            waits = asyncio.create_task(start(tmp_path))
            await asyncio.sleep(5)
            assert not waits.done()
            assert figures_view(controller, desk, []).admits_bytes == 0
            code, said = await flowing(waits)
            assert code == 1
            assert "libvirt has not told yet of 2 VMs that run (mail, web), so nobody can say what is" in said
            waits = asyncio.create_task(start(tmp_path))
            await asyncio.sleep(5)
            controller.put(VmsAwaited(()))
            assert await flowing(waits) == (0, "")
            assert figures_view(controller, desk, []).admits_bytes > 0

    run(story())


def test_a_vm_that_is_given_nothing_until_all_are_known_says_so(tmp_path: Path) -> None:
    host = Host(4 * GIB)

    async def story() -> None:
        vm = host.vm("web")
        async with served(host, tmp_path) as (controller, _):
            await until(lambda: vm.uuid in controller.engine.vms, "web is told of")
            controller.put(VmsAwaited(("db", "web")))
            await asyncio.sleep(1)
            why = explain(controller, controller.engine.vms[vm.uuid]).why
            assert "Nobody is given more: libvirt has not told yet of a VM that runs (db)." in why

    run(story())


def test_who_needs_more_than_the_host_has_is_refused_at_once_whoever_runs(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(Host(2 * GIB), tmp_path) as (controller, _):
            await until(lambda: controller.engine.state.host is not None, "it has looked at the host")
            controller.put(VmsAwaited(("web",)))
            await asyncio.sleep(1)
            answer = await Admission(controller).admit(Start("new", managed=True, need_bytes=4 * GIB))
            assert (answer.admitted, answer.waited_seconds < 1.0) == (False, True)
            assert "are missing" in answer.message

    run(story())


def test_a_controller_that_is_restarted_while_the_host_boots_goes_on_by_its_books(tmp_path: Path) -> None:
    """libvirt answers nobody before it has started all of them, so it tells of none that runs already."""
    before = Remembered(reservations=(Reserve("one", GIB, 1000.0, started_at=0.0),))

    async def story() -> None:
        async with served(Host(4 * GIB), tmp_path, before=before) as (controller, _):
            await until(lambda: controller.engine.state.host is not None, "it has looked at the host")
            controller.put(VmsAwaited(("one",)))
            assert await flowing(asyncio.create_task(start(tmp_path))) == (0, "")
            assert set(controller.engine.ledger.reservations) == {"one", "new"}

    run(story())


def test_what_has_started_and_is_never_seen_is_given_back_once_libvirt_is_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(Host(4 * GIB), tmp_path) as (controller, _):
            await asyncio.sleep(1)
            assert (await flowing(asyncio.create_task(start(tmp_path))))[0] == 0
            assert (await aside(call, tmp_path, "started begin", b""))[0] == 0
            await asyncio.sleep(60)
            assert list(controller.engine.ledger.reservations) == ["new"]
            await until(lambda: not controller.engine.ledger.reservations, "it ran out", limit=90)

    run(story())
